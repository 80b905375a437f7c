"""What a repair takes: plan, repair and surgery, in bare forward passes of the uncut body over the tokens that it fits on."""

import time
from collections.abc import Callable
from typing import Any

import torch

from bench.coppice import BY_RMS
from bench.harness import Bar, Outcome, interleaved, ratio, timing_rows
from bench.peers.ground import BATCH, Ground
from core.data.blocks import build
from core.model.checkpoint import load_model
from core.model.head import hidden_states
from core.model.source import resolve
from core.prune.repair.repair import repair_model
from core.specs import EMBEDDED_MODEL, MIX, DataSpec, RepairSpec, TextSpec

BARE, CLOSED, THOROUGH = "bare forward", "closed form", "thorough"
SHARE = 0.20
"""Part of all parameters that goes, neurons only."""
LIMITS = {CLOSED: 6, THOROUGH: 60}


def measure(*, quick: bool) -> Outcome:
    """Time both ways to repair on the calibration blocks of the mix: processor time, because it is long and other work may run beside it."""
    data = DataSpec(text=TextSpec(source=MIX), elsewhere=(), seq_len=64 if quick else 512, calibration_blocks=4 if quick else 16)
    folder = resolve(EMBEDDED_MODEL)
    ground = Ground(folder, load_model(folder), build(data, folder))
    ground.scores()  # what is ranked by is paid once, whatever is cut
    closed = interleaved({BARE: lambda: bare(ground), CLOSED: lambda: repaired(ground, "closed")}, 1 if quick else 3, time.process_time)
    thorough = {BARE: closed[BARE], THOROUGH: [taken(lambda: repaired(ground, "thorough"))] * len(closed[BARE])}
    return Outcome(
        settings={"model": "SmolLM2-135M", "removed": f"{SHARE:.0%}", "tokens": ground.calibration_NT.numel(), "threads": torch.get_num_threads(),
                  "clock": "processor time"},
        bars=[Bar(name=f"{way}, in forward passes", value=ratio(found, way, BARE), limit=f"<= {LIMITS[way]}")
              for way, found in ((CLOSED, closed), (THOROUGH, thorough))],
        rows=timing_rows(closed | {THOROUGH: thorough[THOROUGH][:1]}),
    )  # fmt: skip


def bare(ground: Ground) -> None:
    """The uncut body over all tokens."""
    with torch.no_grad():
        for ids_BT in ground.calibration_NT.split(BATCH):
            hidden_states(ground.model, ids_BT)


def repaired(ground: Ground, method: str) -> Any:
    """Everything from stored importance to the smaller model."""
    plan = ground.keep(ground.ffn_for(SHARE), ground.scores(), BY_RMS)
    return repair_model(ground.model, plan, ground.blocks.calibration_NT, RepairSpec(method=method))


def taken(action: Callable[[], Any]) -> float:
    """Processor time of one call, seconds."""
    began = time.process_time()
    action()
    return time.process_time() - began
