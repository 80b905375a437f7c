"""What the head residual that Minitron prints does to a cut, with and without repair: ``python -m bench.residual``.

A query head of every group goes (9 heads become 6), nothing else; heads are ranked as the paper does. No bar: the option is there because the paper
has it, and off because of these figures.
"""

import dataclasses
from typing import Any

import numpy as np
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from bench.harness import Outcome, show
from bench.peers.ground import Ground
from bench.quality import ELSEWHERE, FULL, MIXED_TEXTS, Lab
from core.plan.plan import Plan
from core.prune.repair.repair import repair_model
from core.prune.surgery import cut
from core.specs import MIX, RankSpec, RepairSpec, Targets

BLOCKS = 16


def measure(*, quick: bool) -> Outcome:
    """Nats above the uncut model, in the calibration's domains and out of them, of the four combinations."""
    lab = Lab(dataclasses.replace(FULL, calibration_blocks=4 if quick else BLOCKS))
    rows = [row(lab, residual=residual, method=method) for method in ("none", "closed") for residual in (False, True)]
    return Outcome(settings={"model": "SmolLM2-135M", "cut": "heads 9 → 6", "blocks": lab.settings.calibration_blocks}, bars=[], rows=rows)


def row(lab: Lab, *, residual: bool, method: str) -> dict[str, Any]:
    """One combination."""
    ground, uncut = lab.ground(MIX), lab.uncut()
    targets = Targets(num_attention_heads=ground.dims.heads - ground.dims.kv_heads)
    plan = ground.keep(targets, ground.scores(), RankSpec(head_residual=residual))
    student = bare(ground, plan) if method == "none" else repair_model(ground.model, plan, ground.blocks.calibration_NT, RepairSpec())[0]
    gaps = {text: float(np.mean(lab.losses(student, text)) - np.mean(uncut[text])) for text in (*MIXED_TEXTS, ELSEWHERE)}
    inside = float(np.mean([gaps[text] for text in MIXED_TEXTS]))
    return {"head residual": residual, "repair": method, "gap, nats": inside, f"gap on {ELSEWHERE}, nats": gaps[ELSEWHERE]}


def bare(ground: Ground, plan: Plan) -> PreTrainedModel:
    """The cut model as the cut leaves it."""
    tensors, config = cut(dict(ground.model.named_parameters()), ground.config, plan)
    student = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).eval()
    student.load_state_dict(tensors, strict=False)
    student.tie_weights()
    return student


if __name__ == "__main__":
    show("residual", measure(quick=False), as_json=False, quick=False)
