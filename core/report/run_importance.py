"""The importance that a run's plan was made from, in pictures, with what the plan kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.plan.plan import Plan, keep_masks
from core.report import importance_figures, width_figures
from core.report.picture import Picture
from core.score import store


def importance_pictures(results: Mapping[str, Any], plan: Path) -> list[Picture]:
    """Layers, heads, neurons and channels of the scores that results.json names; none if scores or plan are gone.

    Args:
        results: results.json's data; ``scores`` is the key in the store.
        plan: the run's plan.npz.
    """
    try:
        scores, kept = store.load(results.get("scores") or ""), Plan.load(plan)
        depths = {"bi": scores.layers("bi")} | ({"ppl": scores.layers("ppl")} if scores.has_losses else {})
        masks, dims, rank = keep_masks(kept), kept.dims, kept.rank
        return [
            importance_figures.layer_bars(depths, masks["layers"]),
            importance_figures.head_map(scores.heads(rank), masks["heads"], group=scores.dims.group),
            width_figures.neuron_map(scores.neurons(rank), dims.ffn, masks["layers"]),
            width_figures.cut_curve(scores.channels(rank), dims.hidden, "embedding channels"),
        ]
    except UserError:
        return []
