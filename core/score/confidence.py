"""How sure a ranking is, from the shards that the calibration set was scored in. No torch, and no model call.

Every shard is left out in turn (the jackknife: Efron, 1979): how much a unit's rank moves then tells its standard error. A unit
whose interval of two standard errors reaches over the cut might as well be on the other side of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from core.errors import UserError
from core.score.agreement import overlap_matrix, ranks, spearman_matrix
from core.score.criteria.registry import Criterion
from core.score.criteria.registry import find as find_criterion
from core.specs import RankSpec

WIDTH = 2.0
"""Standard errors on either side of a rank."""


class Sharded(Protocol):
    """Scores that can be looked at shard by shard; ``core.score.store.Scores`` is one."""

    @property
    def num_shards(self) -> int: ...

    def on(self, shards: tuple[int, ...]) -> Self: ...

    def importance(self, axis: str, rank: RankSpec, removed: int = 1) -> np.ndarray: ...

    def offered(self, axis: str) -> dict[str, Criterion]: ...


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """Ranks of units, row by row as they are ranked (1 is the most important), and how sure they are."""

    rank_RU: np.ndarray
    """Under all shards."""
    low_RU: np.ndarray
    """Best rank that is within the noise."""
    high_RU: np.ndarray
    """Worst rank that is within the noise."""
    stability: float
    """Mean Spearman correlation between the rankings of single shards, in [-1, 1]: how far another text of a shard's length agrees."""

    def may_stay(self, kept_count: int) -> np.ndarray:
        """Units whose interval reaches above the cut, ``[R, U]`` bool."""
        return self.low_RU <= kept_count

    def may_go(self, kept_count: int) -> np.ndarray:
        """Units whose interval reaches below the cut, ``[R, U]`` bool."""
        return self.high_RU >= kept_count + 1

    def undecided(self, kept_count: int) -> np.ndarray:
        """Units whose interval reaches over the cut, ``[R, U]`` bool."""
        return self.may_stay(kept_count) & self.may_go(kept_count)


def undecided_heads(scores: Sharded, rank: RankSpec, groups: int, kept_groups: int, kept_of_group: int) -> np.ndarray:
    """Heads that might as well be on the other side of a cut by groups, ``[L, H]`` bool.

    The cut takes the best heads of each key-value head's group, and the groups whose best sum highest (``core.plan.plan.top_heads``): a head stays
    if both say so. What counts is therefore its rank inside its group, and its group's among the groups.

    Raises:
        UserError: see ``confidence``.
    """

    def inside(values_LH: np.ndarray) -> np.ndarray:
        return values_LH.reshape(len(values_LH) * groups, -1)

    def strengths(values_LH: np.ndarray) -> np.ndarray:
        return np.sort(inside(values_LH), axis=1)[:, -kept_of_group:].sum(1).reshape(len(values_LH), groups)

    within, among = (confidence(scores, "heads", rank, of=of) for of in (inside, strengths))
    may_stay = within.may_stay(kept_of_group) & among.may_stay(kept_groups).reshape(-1, 1)
    may_go = within.may_go(kept_of_group) | among.may_go(kept_groups).reshape(-1, 1)
    return (may_stay & may_go).reshape(len(among.rank_RU), -1)


def confidence(
    scores: Sharded, axis: str, rank: RankSpec, removed: int = 1, of: Callable[[np.ndarray], np.ndarray] | None = None
) -> Confidence:
    """Rank intervals and stability of a criterion.

    Args:
        of: makes the rows that are ranked from an axis' importance; the importance itself by default.

    Raises:
        UserError: the criterion cannot be computed from some shards alone, or there are fewer than two shards of it.
    """
    found = find_criterion(axis, rank.criterion(axis))
    shards = range(scores.num_shards)
    if not found.sharded or len(shards) < 2:
        raise UserError(
            f"How sure {found.title.lower()} is cannot be told: it needs a criterion that is measured shard by shard, and two shards."
        )
    of = of or rows
    single = [of(_of(scores, (shard,), axis, rank, removed)) for shard in shards]
    left_out = [ranks(of(_of(scores, tuple(s for s in shards if s != shard), axis, rank, removed))) for shard in shards]
    rank_RU, moved_SRU = ranks(of(scores.importance(axis, rank, removed))), np.stack(left_out)
    error_RU = np.sqrt((len(shards) - 1) * moved_SRU.var(axis=0))
    alike_SS = spearman_matrix(single)
    units = rank_RU.shape[1]
    return Confidence(
        rank_RU=rank_RU, low_RU=np.clip(rank_RU - WIDTH * error_RU, 1, units), high_RU=np.clip(rank_RU + WIDTH * error_RU, 1, units),
        stability=float(alike_SS[np.triu_indices(len(single), 1)].mean()),
    )  # fmt: skip


def _of(scores: Sharded, shards: tuple[int, ...], axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    """Importance as some shards tell it.

    Raises:
        UserError: the criterion was measured on blocks of too few shards.
    """
    try:
        return scores.on(shards).importance(axis, rank, removed)
    except ZeroDivisionError:
        raise UserError(f"{axis}: too few blocks were measured to tell how sure this is; measure at least {scores.num_shards}.") from None


def rows(values: np.ndarray) -> np.ndarray:
    """Units as rows that are ranked each by itself: embedding channels and layers are one row."""
    return values if values.ndim == 2 else values[None]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How alike all criteria of an axis rank, pair by pair."""

    names: tuple[str, ...]
    spearman_CC: np.ndarray
    overlap_CC: np.ndarray
    """Part of the kept units that both keep."""


def agreement(scores: Sharded, axis: str, rank: RankSpec, kept_count: int, removed: int = 1) -> Agreement:
    """Compare all criteria that these scores can answer; one that cannot (runs of a length not measured) is left out."""
    found: dict[str, np.ndarray] = {}
    for name in scores.offered(axis):
        try:
            found[name] = np.nan_to_num(rows(scores.importance(axis, rank.by(axis, name), removed)), posinf=np.finfo(float).max)
        except UserError:
            continue
    values = list(found.values())
    return Agreement(names=tuple(found), spearman_CC=spearman_matrix(values), overlap_CC=overlap_matrix(values, kept_count))
