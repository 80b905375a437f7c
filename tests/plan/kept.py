"""What a plan keeps, reckoned from its masks: the oracle of ``core.plan.outlook``."""

import dataclasses

import numpy as np

from core.plan.plan import Importance, Plan, keep_masks
from core.score.criteria.registry import AXES


def kept_share(plan: Plan, scores: Importance) -> dict[str, float]:
    """Part of the summed importance that the plan keeps, by axis, in [0, 1]."""
    masks, removed = keep_masks(plan), plan.source.layers - len(plan.layers)
    bare = dataclasses.replace(plan.rank, protect_first=0, protect_last=0)
    totals = {axis: np.clip(scores.importance(axis, bare, removed), 0, None) for axis in AXES}
    return {axis: float(values[masks[axis]].sum() / values.sum()) if values.sum() else 1.0 for axis, values in totals.items()}
