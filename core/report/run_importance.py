"""The importance that a run's plan was made from, in pictures, with what the plan kept."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.plan.pins import NOUNS, pin_map
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
        masks, dims, rank, pinned = keep_masks(kept), kept.dims, kept.rank, {axis: pin_map(kept.pins, kept.source, axis) for axis in NOUNS}
        shown = dict.fromkeys(("bi", "ppl" if scores.has("removal") else "bi", rank.depth))
        depths = {name: scores.importance("layers", replace(rank, depth=name), len(masks["layers"]) - dims.layers) for name in shown}
        return [
            importance_figures.layer_bars(depths, masks["layers"], pinned_L=pinned["layers"]),
            importance_figures.head_map(
                scores.importance("heads", rank), masks["heads"], group=scores.dims.group, pinned_LH=pinned["heads"]
            ),
            width_figures.neuron_map(scores.importance("neurons", rank), dims.ffn, masks["layers"], pinned_LF=pinned["neurons"]),
            width_figures.cut_curve(scores.importance("channels", rank), dims.hidden, "embedding channels", pinned_N=pinned["channels"]),
        ]
    except UserError:
        return []
