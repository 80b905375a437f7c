"""What a repair takes: plan, repair and surgery, in bare forward passes of the uncut body over the tokens that it fits on.

``python -m bench.repair closed scaled`` leaves out the thorough way, which takes a quarter of an hour.
"""

import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from bench.coppice import BY_RMS
from bench.harness import Bar, Outcome, interleaved, ratio, show, timing_rows
from bench.peers.ground import BATCH, Ground
from core.data.blocks import build
from core.model.checkpoint import load_model
from core.model.head import hidden_states
from core.model.source import resolve
from core.prune.repair.repair import repair_model
from core.specs import EMBEDDED_MODEL, MIX, DataSpec, RepairSpec, TextSpec

BARE, CLOSED, SCALED, THOROUGH = "bare", "closed", "scaled", "thorough"
SHARE = 0.20
"""Part of all parameters that goes, neurons only."""
LIMITS = {CLOSED: 6, SCALED: 60, THOROUGH: 60}


def measure(*, quick: bool, ways: Sequence[str] = (CLOSED, SCALED, THOROUGH)) -> Outcome:
    """Time ways to repair on the calibration blocks of the mix: processor time, because it is long and other work may run beside it."""
    data = DataSpec(text=TextSpec(source=MIX), elsewhere=(), seq_len=64 if quick else 512, calibration_blocks=4 if quick else 16)
    folder = resolve(EMBEDDED_MODEL)
    ground = Ground(folder, load_model(folder), build(data, folder))
    ground.scores()  # what is ranked by is paid once, whatever is cut
    actions: dict[str, Callable[[], Any]] = {BARE: lambda: bare(ground)}
    seconds = interleaved(actions | {way: functools.partial(repaired, ground, way) for way in ways}, 1, time.process_time, warm=False)
    return Outcome(
        settings={"model": "SmolLM2-135M", "removed": f"{SHARE:.0%}", "tokens": ground.calibration_NT.numel(), "threads": torch.get_num_threads(),
                  "clock": "processor time"},
        bars=[Bar(name=f"{way}, in forward passes", value=ratio(seconds, way, BARE), limit=f"<= {LIMITS[way]}") for way in ways],
        rows=timing_rows(seconds),
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


if __name__ == "__main__":
    show("repair", measure(quick=False, ways=sys.argv[1:] or (CLOSED, SCALED, THOROUGH)), as_json=False, quick=False)
