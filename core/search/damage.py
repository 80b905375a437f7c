"""How much a plan will hurt, estimated from stored scores, and learnt better with every candidate that is measured.

The estimate of the divergence from the teacher is a sum over the axes, ``KL ~ sum_a w_a x_a + v_a x_a^2`` with no negative
weight, where ``x_a`` is what a plan loses: of the layers the summed rise of the loss when each was left out alone, of groups,
queries, neurons and channels the share of the importance in the layers that stay. The weights are least squares on relative errors,
drawn towards a prior whose proportions are a fit to 40 plans of the embedded model (docs/LOG.md; those of groups are guessed) and whose scale
is the measured candidates' own.
"""

import dataclasses
from collections.abc import Sequence
from functools import cache

import numpy as np

from core.model.dims import Dims
from core.plan.plan import Importance, Plan, keep_masks
from core.score.store import Scores
from core.specs import RankSpec

AXES = ("layers", "groups", "queries", "neurons", "channels")
"""Heads that go with their whole key-value group, and queries of groups that stay, are two axes: they hurt very differently (docs/LOG.md)."""
PRIOR_2A = np.array([[0.87, 2.2, 8.2, 5.7, 13.5], [0.05, 1.0, 2.2, 3.3, 1.8]])
"""Weights of what is lost and of its square, nats a token."""
TRUST = 0.1
"""What the prior counts, in measured candidates, for each weight."""
SWEEPS = 400


class Remembered:
    """Scores that compute each importance once."""

    def __init__(self, scores: Scores) -> None:
        """Wrap scores; see ``core.plan.plan.Importance``."""
        self.scores = scores
        self._once = cache(scores.importance)

    @property
    def dims(self) -> Dims:
        """Dimensions of the scored model."""
        return self.scores.dims

    def importance(self, axis: str, rank: RankSpec, removed: int = 1) -> np.ndarray:
        """Importance of an axis' units."""
        return self._once(axis, rank, removed if axis == "layers" else 1)


def losses_of(plan: Plan, scores: Remembered) -> np.ndarray:
    """What a plan loses by axis, ``[5]``: nats for the layers, else a share in [0, 1]."""
    masks, bare = keep_masks(plan), dataclasses.replace(plan.rank, protect_first=0, protect_last=0)
    stay_L = masks["layers"]
    in_group_LH = np.zeros_like(masks["heads"])
    for layer, groups in zip(plan.layers, plan.kv_heads, strict=True):
        in_group_LH[layer] = np.isin(np.arange(plan.source.heads) // plan.source.group, groups)

    def lost(axis: str, gone: np.ndarray) -> float:
        worth = np.clip(scores.importance(axis, bare), 0, None)
        worth, gone = (worth[stay_L], gone[stay_L]) if worth.ndim == 2 else (worth, gone)
        return float(worth[gone].sum() / worth.sum()) if worth.sum() else 0.0

    return np.array([
        float(_depth_worth(scores, bare)[~stay_L].sum()), lost("heads", ~in_group_LH), lost("heads", in_group_LH & ~masks["heads"]),
        lost("neurons", ~masks["neurons"]), lost("channels", ~masks["channels"]),
    ])  # fmt: skip


def _depth_worth(scores: Importance, rank: RankSpec) -> np.ndarray:
    """What each layer is worth, ``[L]``: the divergence when it alone is left out if that was measured, else block importance."""
    measured = isinstance(scores, Remembered) and scores.scores.has("removal")
    return np.clip(scores.importance("layers", rank.by("layers", "kl" if measured else "bi")), 0, None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Damage:
    """The estimate with its weights ``[2, 4]``."""

    weights_2A: np.ndarray

    def parts(self, lost_NA: np.ndarray) -> np.ndarray:
        """Estimated divergence by axis, ``[N, 4]``, nats a token."""
        return lost_NA * self.weights_2A[0] + lost_NA**2 * self.weights_2A[1]

    def total(self, lost_NA: np.ndarray) -> np.ndarray:
        """Estimated divergence, ``[N]``, nats a token."""
        return self.parts(lost_NA).sum(-1)


def learn(lost_NA: np.ndarray, kl_N: Sequence[float]) -> Damage:
    """Fit the estimate to measured candidates; without any it is the prior."""
    if not len(kl_N):
        return Damage(weights_2A=PRIOR_2A)
    kl = np.maximum(np.array(kl_N, dtype=float), 1e-6)
    guess = np.maximum(Damage(weights_2A=PRIOR_2A).total(lost_NA), 1e-9)
    prior = (PRIOR_2A * np.median(kl / guess)).ravel()
    rows = np.concatenate([lost_NA, lost_NA**2], axis=1) / kl[:, None]
    pulled = np.concatenate([rows * prior, np.sqrt(TRUST) * np.eye(len(prior))])
    wanted = np.concatenate([np.ones(len(kl)), np.full(len(prior), np.sqrt(TRUST))])
    return Damage(weights_2A=(nonnegative_least_squares(pulled, wanted) * prior).reshape(2, -1))


def nonnegative_least_squares(matrix: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Minimise ``|matrix x - wanted|`` over ``x >= 0``, coordinate by coordinate; every column must hold something."""
    gram, right, x = matrix.T @ matrix, matrix.T @ wanted, np.ones(matrix.shape[1])
    for _ in range(SWEEPS):
        for i in range(len(x)):
            x[i] = max(0.0, x[i] + (right[i] - gram[i] @ x) / gram[i, i])
    return x
