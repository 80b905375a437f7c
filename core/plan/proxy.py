"""How much a plan is likely to hurt, from importance alone: one number, comparable across axes and across plans. No model, no torch.

    damage = Σ_axis w_axis · x_axis

where ``x`` is, of the layers, the summed block importance of those that go, and of heads, neurons and channels the share of the squared
activation importance that goes: the mean over the layers that stay, since every layer's output is lost by itself. Squares, because
what a unit adds to the residual stream counts by its energy. The weights are a fit (least squares on relative errors, none
negative) to the divergence from the teacher of random plans of the embedded model, which docs/LOG.md describes; they make the number
nats a token there, and elsewhere an order.
"""

import numpy as np

from core.plan.plan import Importance, Plan, keep_masks
from core.specs import RankSpec

MEASURE = RankSpec()
"""Importance that the estimate looks at, whatever a plan was ranked by: the activation pass, which scores always have."""

WEIGHTS = {"layers": 3.7, "heads": 6.3, "neurons": 8.6, "channels": 32.0}
"""Nats a token for each unit of ``lost``."""


def estimated_damage(importance: Importance, plan: Plan) -> float:
    """Divergence from the teacher that a plan may be expected to cause before any repair, nats a token; 0 if all is kept."""
    return sum(WEIGHTS[axis] * value for axis, value in lost(importance, plan).items())


def lost(importance: Importance, plan: Plan) -> dict[str, float]:
    """What a plan takes away on each axis; see above."""
    masks = keep_masks(plan)
    worth_L = np.clip(importance.importance("layers", MEASURE), 0, None)
    found = {"layers": float(worth_L[~masks["layers"]].sum())}
    for axis in ("heads", "neurons"):
        squared = importance.importance(axis, MEASURE)[plan.layers] ** 2
        found[axis] = _gone(squared, masks[axis][plan.layers])
    return found | {"channels": _gone(importance.importance("channels", MEASURE) ** 2, masks["channels"])}


def _gone(worth: np.ndarray, kept: np.ndarray) -> float:
    """Share of the worth that is not kept, along the last axis; the mean over the others. Rows without any worth lose nothing."""
    total = worth.sum(-1)
    return float(np.mean(np.where(kept, 0.0, worth).sum(-1) / np.where(total > 0, total, 1.0)))
