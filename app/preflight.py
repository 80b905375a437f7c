"""Before a run starts: how it will be distilled, what stands in its way, what it will take."""

import statistics
from dataclasses import dataclass, replace

import streamlit as st

from app import cached, checks, distill_form, estimate, family_form, repair_form
from app.state import Draft
from core.distill.matching import conflicts, member_conflicts
from core.distill.trackers import tracker_problems
from core.errors import UserError
from core.model.card import Card
from core.plan.plan import plan_problems
from core.plan.stages import targets_of
from core.report import format as fmt
from core.report.curves import Curves
from core.runs.machine import cpu_model
from core.score.criteria import missing
from core.score.criteria.registry import wanted
from core.score.passes import PASSES
from core.specs import DistillSpec, RunSpec, Targets

KINDS = {"distill": "Prune and distill", "prune": "Prune only", "family": "Family, step by step"}

FORWARDS = 4
"""Forward passes that a distilled token costs at most: the teacher's, the student's, and backwards through it, which is two more."""

ONE_PROCESS = (
    "Several processes: this page starts one. Give the command below to a launcher (accelerate launch -m core distill …), or share nothing."
)


@dataclass(frozen=True)
class Rate:
    """How fast earlier runs of the same model were on this machine."""

    tokens_per_second: float
    runs: int


def settings(draft: Draft, card: Card) -> RunSpec:
    """Draw the form; return the run that it describes, right or wrong (see ``complaints``)."""
    kind = st.segmented_control("What to do", list(KINDS), format_func=KINDS.__getitem__, default="distill", required=True, key="w_kind")
    family = family_form.settings(draft, card) if kind == "family" else {}
    repair = repair_form.settings()
    distill = distill_form.settings(draft, card) if kind != "prune" else DistillSpec()
    left, right = st.columns(2)
    with left:
        name = _name()
    with right:
        device = _device()
    return replace(draft.run_spec(kind=kind, repair=repair, distill=distill, name=name, device=device), **family)


def _name() -> str:
    return st.text_input("Name", key="w_name", persist_state="session", placeholder="optional", help="A title for the list of runs.") or ""


def _device() -> str:
    return st.text_input(
        "Device", value="auto", key="w_device", persist_state="session", help="auto, cpu, mps, cuda, or cuda:1 for the second card."
    )


def complaints(spec: RunSpec, card: Card) -> list[str]:
    """Everything that keeps the run from starting, a sentence each."""
    own = spec.problems()
    if spec.kind == "family" and not own:
        own = family_form.complaints(spec.stages, card)
    plan = [problem for problem in plan_problems(card.config, spec.targets, spec.rank, spec.pins) if problem not in own]
    found = _readable(own) + plan + unmeasured(spec)
    if spec.kind == "distill" and not spec.distill.problems():
        found += _readable(conflicts(spec.distill, spec.targets.num_hidden_layers or card.dims.layers, card.dims.layers))
    if spec.kind == "family" and not found and not spec.distill.problems():
        found += member_conflicts(spec, card.config)
    if spec.kind in ("distill", "family") and not spec.distill.problems():
        found += _readable(tracker_problems(spec.distill.report_to))
    if spec.kind == "distill" and spec.distill.sharding != "none":
        found.append(ONE_PROCESS)
    return found or checks.wrong(spec, card)


def unmeasured(spec: RunSpec) -> list[str]:
    """Criteria of the ranking that the scoring of this run will not be able to answer, a sentence each."""
    try:
        return [missing(found) for found in wanted(spec.rank).values() if not PASSES[found.needs].wanted(spec.score)]
    except UserError as error:
        return [str(error)]


def _readable(found: list[str]) -> list[str]:
    """Problems under the labels of this form instead of the fields' names."""
    parts = (line.partition(":") for line in found)
    return [distill_form.LABELS.get(name, name) + colon + rest for name, colon, rest in parts]


def cuts(spec: RunSpec, card: Card) -> list[str]:
    """What is cut, an item a dimension: ``layers 30 → 24``."""
    return [
        f"{row.what if row.what[:2].isupper() else row.what.lower()} {row.size} → {wanted}"
        for row in card.cuttable
        if (wanted := getattr(spec.targets, row.key)) is not None and wanted != row.size
    ]


def final_targets(spec: RunSpec, card: Card) -> Targets:
    """Sizes of the model that the run ends with; of a family, those of its last member."""
    return targets_of(card.config, spec.stages) if spec.kind == "family" else spec.targets


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


def _time_said(tokens: int, rate: Rate | None, timed: float | None) -> str:
    """How long the training takes, as earlier runs went, else as the timed teacher reads; or that nobody knows."""
    if rate:
        return f"{fmt.duration(tokens / rate.tokens_per_second, estimated=True)}, as {fmt.plural(rate.runs, 'earlier run')} went"
    return (
        f"{fmt.duration(FORWARDS * tokens / timed, estimated=True)}, by one timed forward pass"
        if timed
        else "not measured yet on this machine"
    )


def facts(spec: RunSpec, card: Card) -> dict[str, str]:
    """What the run will do and take, for the card beside the form."""
    rows = {
        "Cut": fmt.listed(cuts(replace(spec, targets=final_targets(spec, card)), card)),
        "Model": card.name,
        "Text": f"{spec.data.text.source}, blocks of {spec.data.seq_len} tokens",
    }
    if spec.kind == "family":
        rows["Members"] = f"{len(spec.stages)}, each scored, cut, repaired and distilled from the one before"
    if spec.kind != "prune":
        tokens = max(len(spec.stages), 1) * spec.distill.steps * spec.distill.batch_blocks * spec.distill.accumulation * spec.data.seq_len
        rows["Training"] = f"{fmt.count(tokens)} tokens"
        if stored := checks.stored_bytes(spec, card):
            rows["Teacher's states"] = f"{fmt.size(stored)} at most, kept for later runs"
        rows["Time to distill"] = _time_said(tokens, measured_rate(spec), estimate.tokens_per_second(spec))
    return rows
