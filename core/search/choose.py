"""Which candidates to measure next, told from those that were measured already: a pure function, so that a resumed search goes the same way."""

from collections.abc import Mapping

import numpy as np

from core.search.damage import Damage, learn
from core.specs import SearchSpec

BATCH = 4
"""Candidates that are chosen at once; the estimate learns after each batch."""
CURIOUS = 1
"""Of these, how many are measured for the sake of learning."""


def next_batch(lost_NA: np.ndarray, measured: Mapping[int, float], spec: SearchSpec) -> list[int]:
    """Places in the pool of the candidates to measure next; empty once the budget is spent or nothing is left.

    Args:
        lost_NA: what each candidate of the pool loses, see ``core.search.damage.losses_of``.
        measured: place -> divergence from the teacher, of those that were measured.
        spec: how many are to be measured in all, and the seed.
    """
    left = np.array([i for i in range(len(lost_NA)) if i not in measured], dtype=int)
    count = min(BATCH, spec.sized - len(measured), len(left))
    if count <= 0:
        return []
    estimate_N = estimator(lost_NA, measured).total(lost_NA)
    order = left[np.argsort(estimate_N[left], kind="stable")]
    last = len(measured) + count == spec.sized  # no size is chosen after it, so nothing is to be learnt
    if not measured and not last:
        return _spread(lost_NA, order[: max(len(order) // 2, count)], count)
    sure = order[: count if last else max(count - CURIOUS, 1)].tolist()
    return sure + _curious(order[len(sure) :], count - len(sure), np.random.default_rng([spec.seed, len(measured)]))


def estimator(lost_NA: np.ndarray, measured: Mapping[int, float]) -> Damage:
    """The estimate as the measured candidates taught it."""
    return learn(lost_NA[list(measured)], list(measured.values()))


def _spread(lost_NA: np.ndarray, order: np.ndarray, count: int) -> list[int]:
    """The best, then each time the one that is least like those before it."""
    scale_A = np.maximum(lost_NA[order].max(0), 1e-12)
    chosen = [int(order[0])]
    while len(chosen) < count:
        distance_ON = np.linalg.norm((lost_NA[order][:, None] - lost_NA[chosen][None]) / scale_A, axis=-1).min(1)
        chosen.append(int(order[int(distance_ON.argmax())]))
    return chosen


def _curious(order: np.ndarray, count: int, chance: np.random.Generator) -> list[int]:
    """Some of the better quarter of those that are left, by chance."""
    among = order[: max(len(order) // 4, count)]
    return chance.choice(among, count, replace=False).tolist() if count else []
