"""How large the study is, and the sizes to which it cuts the embedded model."""

from dataclasses import dataclass, replace

from core.specs import DataSpec, ScoreSpec, Targets, TextSpec

DOMAINS = ("wikipedia", "sotu")
"""Held-out texts: the calibration's own domain, and elsewhere."""

CRITERIA = ("activation", "wanda", "taylor")
"""The criteria that are set against the choice of text: the paper's, one that reads weights too, and one that reads gradients."""

TOGETHER = {
    "20 %": Targets(num_attention_heads=6, intermediate_size=1280, hidden_size=540),
    "35 %": Targets(num_attention_heads=6, intermediate_size=1152, hidden_size=468),
}
"""Heads, neurons and channels at once, by the share of all parameters that goes."""

APART = {
    "heads": {"5 %": Targets(num_attention_heads=6), "10 %": Targets(num_attention_heads=3)},
    "neurons": {"10 %": Targets(intermediate_size=1280), "20 %": Targets(intermediate_size=1024), "35 %": Targets(intermediate_size=624)},
    "channels": {"10 %": Targets(hidden_size=522), "20 %": Targets(hidden_size=459), "35 %": Targets(hidden_size=378)},
}
"""One axis at a time; heads cannot give more than 10 % while every key-value head keeps a query head, and at 10 % one of three is all
that is left, so that half as much is cut too."""

AGAINST_RANDOM = {
    "heads": Targets(num_attention_heads=6),
    "neurons": Targets(intermediate_size=1024),
    "channels": Targets(hidden_size=522),
}
"""Where criteria meet their reverse and random."""

THIRD = Targets(hidden_size=387)
"""The cut of the paper's table on iterative importance, a third of the embedding channels, to a size that can be loaded."""

AXES_AT_20 = {
    "neurons": Targets(intermediate_size=1024),
    "heads and neurons": Targets(num_attention_heads=6, intermediate_size=1152),
    "neurons and channels": Targets(intermediate_size=1280, hidden_size=513),
    "heads, neurons and channels": TOGETHER["20 %"],
    "channels": Targets(hidden_size=459),
    "layers": Targets(num_hidden_layers=22),
}
"""About 20 % of all parameters, taken from one axis or from several."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much of everything."""

    name: str = "full"
    seq_len: int = 512
    calibration_blocks: int = 16
    gradient_blocks: int = 8
    """Calibration blocks of Taylor and Fisher, which cost three passes each."""
    ppl_blocks: int = 2
    """Calibration blocks on which the loss without layers is measured."""
    shards: int = 4
    heldout_blocks: int = 4
    """Of each text, where there are few cuts to compare."""
    few_blocks: int = 2
    """Of each text, where there are many."""
    reversed_blocks: int = 1
    """Of each text, for rankings turned round, which are far from everything else."""
    random_seeds: int = 5
    aggregations: tuple[str, ...] = ("l2", "mean", "var")
    rounds: tuple[int, ...] = (1, 2, 4)
    removed: tuple[int, ...] = (3, 6, 10)
    """Layers to remove: 10, 20 and 33 % of 30."""

    def data(self, domain: str) -> DataSpec:
        """Calibration and held-out text of one domain."""
        other = next(name for name in DOMAINS if name != domain)
        return DataSpec(
            text=TextSpec(source=domain),
            elsewhere=(TextSpec(source=other),),
            seq_len=self.seq_len,
            calibration_blocks=self.calibration_blocks,
        )

    @property
    def width(self) -> ScoreSpec:
        """What the comparison of texts needs."""
        # The study's tables were measured with attention across the documents of a block.
        return ScoreSpec(shards=self.shards, ppl_blocks=0, gradient_blocks=self.gradient_blocks, isolate_documents=False)

    @property
    def activations(self) -> ScoreSpec:
        """What rounds need: activations and block importance."""
        return replace(self.width, gradient_blocks=0)

    @property
    def every_width(self) -> ScoreSpec:
        """What all criteria of width need, and the loss without each layer."""
        return replace(self.width, ppl_blocks=self.ppl_blocks, covariances=True, pre_activation=True)

    @property
    def everything(self) -> ScoreSpec:
        """All passes."""
        return replace(self.every_width, windows=self.removed, greedy=max(self.removed))


FULL = Settings()
QUICK = Settings(
    name="quick", seq_len=96, calibration_blocks=4, gradient_blocks=2, ppl_blocks=1, shards=2, heldout_blocks=1, few_blocks=1,
    random_seeds=2, aggregations=("l2", "mean"), rounds=(1, 2), removed=(3,),
)  # fmt: skip
