"""Which importance is computed, and how it becomes a ranking."""

import dataclasses
from dataclasses import dataclass

from core.specs.spec import Spec, one_of, positive

AGGREGATIONS = ("mean", "l2", "var")
"""How values are condensed, over a sequence or over the batch (papers: Minitron, section 2.2)."""


@dataclass(frozen=True, kw_only=True)
class ScoreSpec(Spec):
    """Which importance is computed. Each group of fields is one pass over the text, stored by itself (see ``core.score.passes``)."""

    isolate_documents: bool = True
    """Whether the documents that a block is packed with are kept apart: attention stays inside each, and no loss predicts one's first token from
    another's last."""
    shards: int = 4
    """Parts of the calibration set, scored each by itself and merged exactly: they tell how sure a ranking is, and processes share them."""
    ppl_blocks: int = 4
    """Calibration blocks on which the loss after removing each layer is measured; 0 leaves that out."""
    gradient_blocks: int = 0
    """Calibration blocks on which Taylor and Fisher importance are measured, by gradients; 0 leaves that out."""
    loss_tokens: float = 1.0
    """Share of the tokens on which losses without layers are judged. All is exact; less is faster, and the standard error is stored and told (not of greedy)."""
    covariances: bool = False
    """Whether the units' covariances are measured, for ridge leverage, OBS and the contribution criteria that need them."""
    covariance_tokens: float = 1.0
    """Share of the tokens that covariances are made from. All is exact; less is faster, and the standard error is stored and told."""
    ridge: float = 0.01
    """Ridge of leverage and OBS, as a share of the mean variance of a layer's units."""
    pre_activation: bool = False
    """Whether neurons are measured before their activation too, X W1, as the paper prints it."""
    windows: tuple[int, ...] = ()
    """Lengths of runs of layers whose loss after removal is measured, on ppl_blocks."""
    greedy: int = 0
    """Layers to remove one after the other, each time the one whose loss hurts least, on ppl_blocks; 0 leaves that out."""
    greedy_lazy: bool = False
    """Whether greedy removal tries again only the layers that cost least when last tried: the same order as long as no layer costs less when others are
    gone, and faster; where one does, another and sometimes worse order."""
    batch_size: int = 4
    """Blocks a forward pass. Does not change the scores."""

    def own_problems(self) -> list[tuple[str, str]]:
        names = ("ppl_blocks", "gradient_blocks", "greedy")
        found = [(name, f"must be 0 or more, got {getattr(self, name)}.") for name in names if getattr(self, name) < 0]
        if (self.windows or self.greedy) and not self.ppl_blocks:
            found.append(("ppl_blocks", "must be above 0 for windows and greedy, which measure losses on them."))
        if 0 < self.gradient_blocks < self.shards:
            found.append(("gradient_blocks", f"must be 0 or at least the {self.shards} shards, got {self.gradient_blocks}."))
        shares = ("loss_tokens", "covariance_tokens")
        found += [(name, f"must be above 0 and at most 1, got {share}.") for name in shares if not 0 < (share := getattr(self, name)) <= 1]
        found += [("windows", f"must hold lengths of 1 or more, got {length}.") for length in self.windows if length < 1]
        return found + positive(shards=self.shards, batch_size=self.batch_size, ridge=self.ridge)


@dataclass(frozen=True, kw_only=True)
class RankSpec(Spec):
    """How stored scores become a ranking. Costs no model call. ``python -m core criteria`` lists the criteria."""

    heads: str = "activation"
    """Criterion for attention heads."""
    neurons: str = "activation"
    """Criterion for FFN neurons."""
    channels: str = "activation"
    """Criterion for embedding channels."""
    depth: str = "bi"
    """Criterion for layers."""
    batch: str = "l2"
    """Aggregation over the calibration blocks, of criteria that aggregate activations."""
    sequence: str = "mean"
    """Aggregation over the tokens of a block, of criteria that aggregate activations."""
    protect_first: int = 0
    """Layers at the start that are never removed."""
    protect_last: int = 0
    """Layers at the end that are never removed."""
    rounds: int = 1
    """Rounds of scoring and cutting; 1 scores once. The paper found no gain from more."""
    head_residual: bool = False
    """Whether kept query heads take in the difference to removed ones, as Minitron prints it. It harms wherever it was measured: docs/benchmarks.md."""

    def criterion(self, axis: str) -> str:
        """Name of the criterion of an axis: ``layers``, ``heads``, ``neurons`` or ``channels``."""
        return str(getattr(self, _criterion_field(axis)))

    def by(self, axis: str, criterion: str) -> "RankSpec":
        """The same ranking with another criterion of an axis."""
        return dataclasses.replace(self, **{_criterion_field(axis): criterion})  # type: ignore[arg-type]

    def own_problems(self) -> list[tuple[str, str]]:
        names = ("protect_first", "protect_last")
        negative = [(name, f"must be 0 or more, got {getattr(self, name)}.") for name in names if getattr(self, name) < 0]
        return one_of(AGGREGATIONS, batch=self.batch, sequence=self.sequence) + negative + positive(rounds=self.rounds)


def _criterion_field(axis: str) -> str:
    """Field of ``RankSpec`` that holds an axis' criterion."""
    return "depth" if axis == "layers" else axis
