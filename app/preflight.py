"""Before a run starts: how it will be distilled, what stands in its way, what it will take."""

import shutil
import statistics
from dataclasses import dataclass
from typing import Any

import streamlit as st

from app import cached
from app.state import Draft
from core.errors import UserError
from core.model.card import Card
from core.plan.plan import plan_problems
from core.report import format as fmt
from core.report.curves import Curves
from core.runs.machine import cpu_model
from core.score.criteria import missing
from core.score.criteria.registry import wanted
from core.score.passes import PASSES
from core.specs import DistillSpec, RunSpec
from core.workspace import room

KINDS = {"distill": "Prune and distill", "prune": "Prune only"}

BYTES_A_PARAMETER = {"prune": 4, "distill": 4 + 4 + 2 * 12}
"""What a run leaves on disk: the pruned model, and for distillation also the finished one and, while one checkpoint
replaces the other, two of them with weights and Adam's two moments. All float32."""

MAIN: dict[str, tuple[str, str]] = {
    "steps": ("Steps", "Optimiser steps. 60 give a first impression on a laptop; thousands give a good model."),
    "batch_blocks": ("Blocks a step", "Text blocks in one forward pass. More steadies the gradient and takes more memory."),
    "learning_rate": ("Learning rate", "Peak of the cosine schedule. 1e-4 to 1e-3 suit most pruned models."),
    "temperature": ("Temperature", "Softens teacher and student before they are compared. 1 compares them as they are."),
    "ce_weight": ("CE weight", "Weight of the true next token beside the teacher's distribution. The Minitron paper found 0 best."),
}
MORE: dict[str, tuple[str, str]] = {
    "accumulation": ("Accumulation", "Forward passes whose gradients are added up before a step: a larger batch in the same memory."),
    "kl_weight": ("KL weight", "Weight of the divergence from the teacher."),
    "warmup_frac": ("Warm-up part", "Part of the steps in which the learning rate rises from 0."),
    "weight_decay": ("Weight decay", "Pulls weights towards 0. Usually 0 for a short distillation."),
    "max_grad_norm": ("Gradient clip", "Longer gradients are cut to this norm."),
    "checkpoint_every": ("Checkpoint every", "Steps between two states from which the run can resume."),
    "evaluate_every": ("Measure every", "Steps between two measurements on held-out text."),
    "seed": ("Seed", "The same seed gives the same run."),
}
FORMATS = {"learning_rate": "%.0e", "seed": "%d"}
INCREMENTS = {
    "steps": 20,
    "learning_rate": 1e-4,
    "temperature": 0.5,
    "ce_weight": 0.1,
    "kl_weight": 0.1,
    "warmup_frac": 0.05,
    "weight_decay": 0.01,
}


@dataclass(frozen=True)
class Rate:
    """How fast earlier runs of the same model were on this machine."""

    tokens_per_second: float
    runs: int


def settings(draft: Draft) -> RunSpec:
    """Draw the form; return the run that it describes, right or wrong (see ``complaints``)."""
    kind = st.segmented_control("What to do", list(KINDS), format_func=KINDS.__getitem__, default="distill", required=True, key="w_kind")
    if kind == "prune":
        return draft.run_spec(kind="prune", name=_name(), device=_device())
    values = _fields(MAIN)
    with st.expander("More settings", icon=":material/tune:"):
        values |= _fields(MORE)
        values["dtype"] = st.selectbox(
            "Precision", ["auto", "float32", "bfloat16"], key="w_dtype", persist_state="session",
            help="auto takes bfloat16 where the device is made for it, else float32.",
        )  # fmt: skip
        name, device = _name(), _device()
    return draft.run_spec(kind="distill", distill=DistillSpec(**values), name=name, device=device)


def _fields(shown: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Number fields in a grid; they take any number, for what is wrong with it is said beside them."""
    values, usual = {}, DistillSpec()
    with st.grid(3, min_column_width=110):
        for name, (label, help_) in shown.items():
            default = getattr(usual, name)
            values[name] = st.number_input(
                label, value=default, step=INCREMENTS.get(name, type(default)(1)), format=FORMATS.get(name), help=help_,
                key=f"w_{name}", persist_state="session",
            )  # fmt: skip
    return values


def _name() -> str:
    return st.text_input("Name", key="w_name", persist_state="session", placeholder="optional", help="A title for the list of runs.") or ""


def _device() -> str:
    return st.text_input(
        "Device", value="auto", key="w_device", persist_state="session", help="auto, cpu, mps, cuda, or cuda:1 for the second card."
    )


def complaints(spec: RunSpec, card: Card) -> list[str]:
    """Everything that keeps the run from starting, a sentence each."""
    own = spec.problems()
    plan = [problem for problem in plan_problems(card.config, spec.targets, spec.rank, spec.pins) if problem not in own]
    found = _readable(own) + plan + unmeasured(spec)
    needed, free = disk_needed(spec, card), disk_free()
    if not found and needed > free:
        found.append(
            f"Disk: about {fmt.size(needed)} are needed, {fmt.size(free)} are free. Free some, or set COPPICE_WORKSPACE to another disk."
        )
    return found


def unmeasured(spec: RunSpec) -> list[str]:
    """Criteria of the ranking that the scoring of this run will not be able to answer, a sentence each."""
    try:
        return [missing(found) for found in wanted(spec.rank).values() if not PASSES[found.needs].wanted(spec.score)]
    except UserError as error:
        return [str(error)]


def _readable(found: list[str]) -> list[str]:
    """Problems under the labels of this form instead of the fields' names."""
    labels = {name: label for name, (label, _) in (MAIN | MORE).items()}
    parts = (line.partition(":") for line in found)
    return [labels.get(name, name) + colon + rest for name, colon, rest in parts]


def cuts(spec: RunSpec, card: Card) -> list[str]:
    """What is cut, an item a dimension: ``layers 30 → 24``."""
    return [
        f"{row.what if row.what[:2].isupper() else row.what.lower()} {row.size} → {wanted}"
        for row in card.cuttable
        if (wanted := getattr(spec.targets, row.key)) is not None and wanted != row.size
    ]


def disk_needed(spec: RunSpec, card: Card) -> int:
    """Bytes that the run will take at most, an estimate."""
    return cached.cost(card.config, spec.targets).parameters * BYTES_A_PARAMETER.get(spec.kind, 0)


def disk_free() -> int:
    """Free bytes where runs are kept."""
    return shutil.disk_usage(room("runs")).free


def measured_rate(spec: RunSpec) -> Rate | None:
    """Distillation speed of finished runs with the same teacher, block length and kind of device on this machine; None without any."""
    found = []
    for known in cached.known_runs()[:20]:
        run, earlier = known.run, known.spec
        same = (earlier.kind, earlier.model, earlier.data.seq_len, earlier.device) == (
            "distill",
            spec.model,
            spec.data.seq_len,
            spec.device,
        )
        if same and (run.results().get("machine") or {}).get("cpu") == cpu_model():
            speeds = [value for value in Curves().extend(run.events(0)[0]).series["tokens_per_second"] if value == value]
            found += [statistics.median(speeds)] if speeds else []
    return Rate(statistics.median(found), len(found)) if found else None


def facts(spec: RunSpec, card: Card) -> dict[str, str]:
    """What the run will do and take, for the card beside the form."""
    rows = {
        "Cut": fmt.listed(cuts(spec, card)),
        "Model": card.name,
        "Text": f"{spec.data.text.source}, blocks of {spec.data.seq_len} tokens",
    }
    if spec.kind == "distill":
        rate = measured_rate(spec)
        tokens = spec.distill.steps * spec.distill.batch_blocks * spec.distill.accumulation * spec.data.seq_len
        rows["Training"] = f"{fmt.count(tokens)} tokens"
        rows["Time to distill"] = "not measured yet on this machine"
        if rate:
            rows["Time to distill"] = (
                f"{fmt.duration(tokens / rate.tokens_per_second, estimated=True)}, as {fmt.plural(rate.runs, 'earlier run')} went"
            )
    rows["Disk"] = f"{fmt.size(disk_needed(spec, card), estimated=True)} at most, {fmt.size(disk_free())} free"
    return rows
