"""Importance by a draft's ranking, how sure it is, and how far criteria agree; computed once for all who ask."""

import contextlib
import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import streamlit as st

from core.errors import UserError
from core.model.dims import Dims
from core.score import confidence as confidences
from core.score.agreement import ranks
from core.score.confidence import Agreement, Confidence, rows
from core.score.criteria.registry import find as find_criterion
from core.score.store import Scores
from core.specs import RankSpec


def _essence(axis: str, rank: RankSpec, removed: int, name: str | None = None) -> tuple[RankSpec, int]:
    """What of a ranking the importance of an axis depends on, so that equal questions find the same answer in a cache.

    Args:
        name: the criterion; None for all of them.
    """
    bare = dataclasses.replace(RankSpec(), batch=rank.batch, sequence=rank.sequence)
    if axis == "layers":
        bare = dataclasses.replace(RankSpec(), protect_first=rank.protect_first, protect_last=rank.protect_last)
    elif name is not None and not find_criterion(axis, name).aggregated:
        bare = RankSpec()
    return bare if name is None else bare.by(axis, name), removed if axis == "layers" else 1


@dataclass(frozen=True)
class Remembered:
    """Scores whose importance is computed once for all the plans that are made of it. Their key stands for all that is in them."""

    key: str
    scores: Scores = field(compare=False)

    @property
    def dims(self) -> Dims:
        """Dimensions of the scored model."""
        return self.scores.dims

    def importance(self, axis: str, rank: RankSpec, removed: int = 1) -> np.ndarray:
        """See ``importance``."""
        return importance(self.scores, axis, rank, removed)


def importance(scores: Scores, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    """Importance of an axis' units; see ``Scores.importance``. All who ask get the same array, and nobody can write to it.

    Raises:
        UserError: the criterion does not exist, or was not measured.
    """
    return _importance(Remembered(scores.key, scores), axis, *_essence(axis, rank, removed, rank.criterion(axis)))


# Not Streamlit's cache, here and for plans: its keys and copies would take a slider's move longer than the answer itself.
@lru_cache(maxsize=16)
def _importance(known: Remembered, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    return read_only(known.scores.importance(axis, rank, removed))


def read_only(array: np.ndarray) -> np.ndarray:
    """The same numbers, which nobody can write to."""
    array = array.view()
    array.flags.writeable = False
    return array


def confidence(scores: Scores, axis: str, rank: RankSpec, removed: int) -> Confidence | None:
    """How sure a criterion is, or None where that cannot be told."""
    try:
        return _confidence(scores, scores.key, axis, *_essence(axis, rank, removed, rank.criterion(axis)))
    except UserError:
        return None


@st.cache_data(max_entries=32, show_spinner=False)
def _confidence(_scores: Scores, key: str, axis: str, rank: RankSpec, removed: int) -> Confidence:
    return confidences.confidence(_scores, axis, rank, removed)


def undecided_heads(scores: Scores, rank: RankSpec, groups: int, kept_groups: int, kept_of_group: int) -> np.ndarray | None:
    """See ``core.score.confidence.undecided_heads``; None where that cannot be told."""
    try:
        return _undecided_heads(scores, scores.key, _essence("heads", rank, 1, rank.heads)[0], groups, kept_groups, kept_of_group)
    except UserError:
        return None


@st.cache_data(max_entries=32, show_spinner=False)
def _undecided_heads(_scores: Scores, key: str, rank: RankSpec, groups: int, kept_groups: int, kept_of_group: int) -> np.ndarray:
    return confidences.undecided_heads(_scores, rank, groups, kept_groups, kept_of_group)


def agreement(scores: Scores, axis: str, rank: RankSpec, kept_count: int, removed: int) -> Agreement:
    """How alike all criteria of an axis are; see ``core.score.confidence.agreement``."""
    return _agreement(scores, scores.key, axis, *_essence(axis, rank, removed), kept_count)


@st.cache_data(max_entries=32, show_spinner="Comparing the criteria")
def _agreement(_scores: Scores, key: str, axis: str, rank: RankSpec, removed: int, kept_count: int) -> Agreement:
    return confidences.agreement(_scores, axis, rank, kept_count, removed)


def all_ranks(scores: Scores, axis: str, rank: RankSpec, removed: int) -> dict[str, np.ndarray]:
    """Ranks ``[rows, units]`` of an axis under every criterion that can be answered; see ``core.score.agreement.ranks``."""
    return _all_ranks(scores, scores.key, axis, *_essence(axis, rank, removed))


@st.cache_data(max_entries=8, show_spinner=False)
def _all_ranks(_scores: Scores, key: str, axis: str, rank: RankSpec, removed: int) -> dict[str, np.ndarray]:
    found = {}
    for name in _scores.offered(axis):
        with contextlib.suppress(UserError):
            found[name] = ranks(rows(_scores.importance(axis, rank.by(axis, name), removed))).astype(np.int32)
    return found
