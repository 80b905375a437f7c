"""Coppice's own recipes, as the bench sets them against other tools: select, cut, repair."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from bench.peers.ground import Cut, Ground
from core.plan.plan import Plan
from core.prune.repair.repair import repair_model
from core.specs import RankSpec, RepairSpec

BY_RMS = RankSpec(heads="wanda", neurons="activation", batch="l2", sequence="l2")
"""Neurons by the root mean square of their activation."""
DROPPED_LAYERS = 4


def ffn(ground: Ground, share: float, *, neurons: str = "activation", method: str = "closed") -> Cut:
    """Neurons only."""
    scores = ground.scores(covariances=neurons in ("obs", "leverage"))
    plan = ground.keep(ground.ffn_for(share), scores, dataclasses.replace(BY_RMS, neurons=neurons))
    return repaired(ground, plan, method)


def ffn_and_groups(ground: Ground, share: float, *, method: str = "closed") -> Cut:
    """One key-value group less, the rest from neurons."""
    sizes = {"num_key_value_heads": ground.dims.kv_heads - 1, "num_attention_heads": ground.dims.heads - ground.dims.group}
    return repaired(ground, ground.keep(ground.ffn_for(share, **sizes), ground.scores(), BY_RMS), method)


def ffn_and_depth(ground: Ground, share: float, *, method: str = "closed") -> Cut:
    """Four layers less, by the loss without them, the rest from neurons."""
    targets = ground.ffn_for(share, num_hidden_layers=ground.dims.layers - DROPPED_LAYERS)
    return repaired(ground, ground.keep(targets, ground.scores(ppl_blocks=4), dataclasses.replace(BY_RMS, depth="ppl")), method)


RECIPES = {
    "FFN by RMS, closed form": ffn,
    "FFN by RMS, closed form and scales": functools.partial(ffn, method="scaled"),
    "FFN by RMS, thorough": functools.partial(ffn, method="thorough"),
    "FFN by RMS, no repair": functools.partial(ffn, method="none"),
    "FFN by Wanda, closed form": functools.partial(ffn, neurons="wanda"),
    "FFN by OBS, closed form": functools.partial(ffn, neurons="obs"),
    "FFN by leverage, closed form": functools.partial(ffn, neurons="leverage"),
    "FFN and KV groups, closed form": ffn_and_groups,
    "FFN and four layers, closed form": ffn_and_depth,
}
"""Name -> recipe. The first is the default, the next two add to it."""


def repaired(ground: Ground, plan: Plan, method: str) -> Cut:
    """A plan carried out and repaired on the calibration blocks; ``none`` carries it out."""
    if method == "none":
        return ground.selection(plan)
    student, told = repair_model(ground.model, plan, ground.blocks.calibration_NT, RepairSpec(method=method))

    @contextlib.contextmanager
    def apply() -> Iterator[Any]:
        yield student

    return Cut(parameters=student.num_parameters(), apply=apply, note=f"{told['fitted']} of {told['fitted'] + told['left']} fits used")
