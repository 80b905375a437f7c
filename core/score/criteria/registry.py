"""The list of criteria, and what a criterion may ask of stored scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from core.errors import UserError
from core.model.dims import Dims
from core.score.passes import PASSES
from core.specs import RankSpec, ScoreSpec

AXES = ("heads", "neurons", "channels", "layers")


class Measured(Protocol):
    """What the passes found, perhaps on some shards only."""

    @property
    def dims(self) -> Dims: ...

    def moments(self, site: str, pass_name: str = "activations") -> tuple[np.ndarray, int]:
        """Moments ``[4, 2, places, units]`` (see ``core.score.aggregate``) and the number of blocks behind them."""

    def mean(self, pass_name: str, name: str) -> np.ndarray:
        """An array that is a mean over blocks."""

    def array(self, pass_name: str, name: str) -> np.ndarray:
        """An array as it is stored, whatever the shards."""


@dataclass(frozen=True, kw_only=True)
class Depth:
    """The circumstances in which layers are ranked: a run of layers can only be chosen when its length is known."""

    removed: int
    """Layers that will go."""
    free_L: np.ndarray
    """False for layers that must not go."""


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One way to say what units are worth."""

    name: str
    axis: str
    title: str
    paper: str
    """Where it comes from."""
    says: str
    """The formula in words, a sentence."""
    needs: str
    """The pass that it reads."""
    unit: str
    """Of its values; empty for none."""
    aggregated: bool
    """Whether the (batch, sequence) aggregation changes it."""
    sharded: bool
    """Whether it can be computed from some shards alone, so that its confidence is known."""
    compute: Callable[..., np.ndarray]
    """Of width: (measured, rank) -> ``[L, H]``, ``[L, F]`` or ``[D]``. Of depth: (measured, depth) -> ``[L]``, such that the ``removed`` lowest go."""


CRITERIA: dict[tuple[str, str], Criterion] = {}
"""(axis, name) -> criterion, in the order in which they are shown."""


def criterion(
    axes: str | Sequence[str],
    name: str,
    title: str,
    *,
    paper: str,
    needs: str,
    unit: str = "",
    aggregated: bool = False,
    sharded: bool = True,
) -> Callable[[Callable[..., np.ndarray]], Callable[..., np.ndarray]]:
    """Enter a function into the list; its docstring's first paragraph says what it measures.

    For several axes the function takes the axis as its first argument.
    """

    def enter(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        says = " ".join((function.__doc__ or "").split("\n\n")[0].split())
        for axis in [axes] if isinstance(axes, str) else axes:
            compute = function if isinstance(axes, str) else _on(axis, function)
            CRITERIA[axis, name] = Criterion(
                name=name, axis=axis, title=title, paper=paper, says=says, needs=needs, unit=unit, aggregated=aggregated, sharded=sharded,
                compute=compute,
            )  # fmt: skip
        return function

    return enter


def _on(axis: str, function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda *arguments: function(axis, *arguments)


def criteria_of(axis: str) -> dict[str, Criterion]:
    """The criteria of one axis by name."""
    return {name: found for (of, name), found in CRITERIA.items() if of == axis}


def find(axis: str, name: str) -> Criterion:
    """Look up a criterion.

    Raises:
        UserError: there is none of this name; the message lists those that there are.
    """
    if (axis, name) not in CRITERIA:
        raise UserError(f"There is no criterion {name!r} for {axis}. There are: {', '.join(criteria_of(axis))}.")
    return CRITERIA[axis, name]


def wanted(rank: RankSpec) -> dict[str, Criterion]:
    """The criterion of every axis that a ranking asks for.

    Raises:
        UserError: one does not exist.
    """
    return {axis: find(axis, rank.criterion(axis)) for axis in AXES}


def problems(rank: RankSpec, asked: ScoreSpec, removed: int) -> list[str]:
    """What of a ranking scores of that spec could not answer, a sentence each: known before anything is measured.

    Args:
        removed: layers that will go. Greedy removal knows of no protected layers, so it has to remove as many more.
    """
    try:
        chosen = wanted(rank)
    except UserError as error:
        return [str(error)]
    lacking = [missing(found) for found in chosen.values() if not PASSES[found.needs].wanted(asked)]
    if not lacking and rank.depth == "window" and removed and removed not in asked.windows:
        lacking = [
            f"The targets remove {removed} layers, but runs of that length are not among the windows. Score again with {removed} among them."
        ]
    protected = rank.protect_first + rank.protect_last
    if not lacking and rank.depth == "greedy" and removed and removed + protected > asked.greedy:
        besides = f", and the {protected} protected ones may be among the first to go" if protected else ""
        lacking = [
            f"The targets remove {removed} layers, but greedy removes only {asked.greedy}{besides}. Score again with greedy of at least {removed + protected}."
        ]
    return lacking


def missing(found: Criterion) -> str:
    """What to tell whoever asks for a criterion whose pass was not made."""
    item = PASSES[found.needs]
    return f"The criterion {found.name!r} for {found.axis} needs a pass that these scores lack ({item.title.lower()}). Score again {item.advice}."
