"""Where text comes from, and the blocks that are made of it."""

from dataclasses import dataclass

from core.specs.spec import Spec, positive

EMBEDDED_TEXTS = ("wikipedia", "sotu", "commons", "tales", "manual", "code")
"""The texts that come with Coppice: encyclopaedia articles, State of the Union addresses since 1961, speeches in the House of Commons,
fairy tales, a mathematical program's documentation, and Python source code."""

MIX = "mix"
"""The name of a text that is several embedded ones in turn, in equal parts: a broad one to calibrate and train on."""

MIXED_TEXTS = ("wikipedia", "commons", "tales", "manual", "code")
"""The texts of the mix. ``sotu`` is left out so that a text remains that the mix has never seen."""


@dataclass(frozen=True, kw_only=True)
class TextSpec(Spec):
    """Where text comes from."""

    source: str = "wikipedia"
    """An embedded text's name, ``mix`` for several of them in equal parts, the path of a .txt, .md, .jsonl, .json or .parquet file, or a
    datasets id of the hub."""
    config: str | None = None
    """Configuration name of a hub data set; None takes its default."""
    split: str = "train"
    """Split of a hub data set."""
    column: str = "text"
    """Column (JSONL, Parquet, hub) that holds the text."""
    max_documents: int = 2000
    """Read no more documents than this (of each text of a mix); bounds what is streamed from a hub."""

    def own_problems(self) -> list[tuple[str, str]]:
        return positive(max_documents=self.max_documents)


@dataclass(frozen=True, kw_only=True)
class DataSpec(Spec):
    """The three sets of token blocks, none of which overlaps another."""

    text: TextSpec = TextSpec()
    """Calibration, training and in-domain held-out text; its documents are dealt to the three."""
    elsewhere: tuple[TextSpec, ...] = (TextSpec(source="sotu"),)
    """Further held-out texts of other domains, which neither calibration nor training ever sees."""
    seq_len: int = 512
    """Tokens a block."""
    calibration_blocks: int = 16
    """Blocks on which importance is computed."""
    train_blocks: int = 128
    """Blocks to learn from; training that needs more begins again from the first."""
    heldout_blocks: int = 8
    """Blocks of each held-out text."""
    seed: int = 0
    """Decides which documents become calibration, training and held-out text."""

    def own_problems(self) -> list[tuple[str, str]]:
        counts = positive(calibration_blocks=self.calibration_blocks, train_blocks=self.train_blocks, heldout_blocks=self.heldout_blocks)
        return counts + ([("seq_len", f"must be at least 8 tokens, got {self.seq_len}.")] if self.seq_len < 8 else [])
