"""A model's layers before and after the cut, as numbers to draw: what each keeps of its neurons and heads."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.model.dims import Dims


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One column a layer. Whoever draws it needs no more arithmetic than where a mark lies."""

    layers: list[bool]
    """Whether each layer stays."""
    heads: list[str]
    """A character for each head of each layer: 1 if it stays, 0 if it goes."""
    ffn: tuple[int, int]
    """Neurons of a layer that stays, and of one before the cut."""
    hidden: tuple[int, int]
    """The same of channels."""
    alt: str
    """What it shows and what follows from it, for a screen reader."""

    @property
    def table(self) -> pd.DataFrame:
        """A row a layer."""
        kept = [", ".join(str(head) for head, mark in enumerate(row) if mark == "1") for row in self.heads]
        ffn = [self.ffn[0] if stays else 0 for stays in self.layers]
        return pd.DataFrame({"layer": range(len(self.layers)), "kept": self.layers, "FFN neurons": ffn, "heads kept": kept})


def architecture_strip(before: Dims, after: Dims, kept_L: np.ndarray | None = None, heads_LH: np.ndarray | None = None) -> Strip:
    """The strip of a cut.

    Args:
        before: dimensions of the uncut model.
        after: dimensions after the cut.
        kept_L: which layers stay; None if that is not known yet, then the first ones stand for any.
        heads_LH: which heads stay; None for the first ones.
    """
    kept_L = np.arange(before.layers) < after.layers if kept_L is None else kept_L
    if heads_LH is None:
        heads_LH = kept_L[:, None] & (np.arange(before.heads) < after.heads)[None]
    return Strip(
        layers=kept_L.tolist(), heads=["".join(map(str, row)) for row in heads_LH.astype(int)], ffn=(after.ffn, before.ffn),
        hidden=(after.hidden, before.hidden),
        alt=_said(before, after, kept_L),
    )  # fmt: skip


def _said(before: Dims, after: Dims, kept_L: np.ndarray) -> str:
    gone = ", ".join(map(str, np.flatnonzero(~kept_L))) or "none"
    return (
        f"{after.layers} of {before.layers} layers stay (removed: {gone}), each with {after.ffn} of {before.ffn} neurons and "
        f"{after.heads} of {before.heads} heads, at hidden size {after.hidden} of {before.hidden}."
    )
