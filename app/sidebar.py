"""The strip beside every page: the way from model to comparison, how far one is, and what is running."""

from dataclasses import dataclass

import streamlit as st

from app import cached, draft_menu, state
from app.cached import KnownRun
from app.cut import cut_line
from app.scoring import score_run
from app.state import Draft
from app.ui import plain
from core.data.corpus import domain
from core.errors import UserError
from core.model.embedded import MODEL_NAME
from core.plan.plan import plan_problems
from core.plan.sizes import problems
from core.report.format import count, percent, plural
from core.specs import Targets

DONE, READY, BLOCKED, BROKEN = "check_circle", "radio_button_unchecked", "lock", "error"
STATES = {DONE: "Done", READY: "Open", BLOCKED: "Blocked", BROKEN: "Wrong"}
COLOURS = {DONE: "green", READY: "gray", BLOCKED: "gray", BROKEN: "red"}
KINDS = {
    "probe": "Timing",
    "score": "Scoring",
    "preview": "Measuring",
    "search": "Searching",
    "prune": "Pruning",
    "distill": "Distilling",
    "family": "Making a family",
    "evaluate": "Measuring",
    "generate": "Answering",
}
PAGES = (
    ("model", "Model & data"), ("importance", "Importance"), ("targets", "Targets"), ("distill", "Prune & distill"), ("compare", "Compare"),
)  # fmt: skip
BUSY_SECONDS, IDLE_SECONDS = 3, 15
"""How often the strip looks for a run: a shell or another tab may start one too."""


@dataclass(frozen=True)
class Step:
    """One station of the way."""

    page: str
    title: str
    mark: str
    said: str
    """How it stands there, or why it cannot be entered yet."""


def show(here: str) -> None:
    """Draw the strip.

    Args:
        here: the page that is open, by its short name.
    """
    with st.sidebar:
        st.markdown("## :green[:material/park:] Coppice")
        state.draft()
        if lost := state.lost_draft():
            st.warning(plain(lost), icon=":material/link_off:")
        _context()
        draft_menu.show()
        st.divider()
        model, importance, *_, compare = steps(state.draft(), cached.known_runs())
        _station(model, here)
        _station(importance, here)
        _after_targets(here)
        _station(compare, here)
        st.divider()
        active = active_run(cached.known_runs())
        st.fragment(_watch, run_every=BUSY_SECONDS if active else IDLE_SECONDS)(active.run.id if active else None)


@st.fragment(key=state.STRIP)
def _context() -> None:
    """What one works at: the model, the text, and what the draft makes of it."""
    draft = state.draft()
    try:
        card = cached.card(draft.model)
    except UserError:
        fetched = not cached.must_fetch(draft.model)
        st.markdown(
            f":red[:material/error:] {plain(draft.model)} cannot be read"
            if fetched
            else f":gray[:material/download:] {MODEL_NAME} is not here yet"
        )
        return
    tokens = count(draft.data.calibration_blocks * draft.data.seq_len)
    st.markdown(
        f":gray[:material/database:] {card.name}  \n:gray[:material/article:] {domain(draft.data.text)}, {tokens} tokens{_pinned_said(draft)}"
    )
    cut_line(draft, card)


def _pinned_said(draft: Draft) -> str:
    """How much is pinned, in ranges as they are written; empty if nothing is."""
    pins = sum(len(items) for items in draft.pins.to_dict().values())
    return f"  \n:gray[:material/push_pin:] {plural(pins, 'pin')}" if pins else ""


@st.fragment(key=state.STATIONS)
def _after_targets(here: str) -> None:
    """The stations that depend on the targets: these alone are drawn anew when a slider moves."""
    for step in steps(state.draft(), cached.known_runs())[2:4]:
        _station(step, here)


def _station(step: Step, here: str) -> None:
    """One station of the way: its state, a way there, and how it stands."""
    number = [page for page, _ in PAGES].index(step.page) + 1
    with st.container(gap=None):
        title = f"**{step.title}**" if step.page == here else step.title
        if st.button(
            f":{COLOURS[step.mark]}[:material/{step.mark}:] {title}", key=f"step_{step.page}", type="tertiary", shortcut=f"Alt+{number}",
            help=f"{STATES[step.mark]}: {step.said}",
        ):  # fmt: skip
            state.go(step.page)
        st.caption(step.said)


def steps(draft: Draft, runs: list[KnownRun]) -> list[Step]:
    """The five stations for a draft, in order; each says why it is blocked if it is."""
    compare = _compare_step(runs)
    try:
        card = cached.card(draft.model)
    except UserError:
        fetched = not cached.must_fetch(draft.model)
        blocked = [Step(*names, BLOCKED, "needs a model that can be read" if fetched else "needs the model") for names in PAGES[1:-1]]
        first = (BROKEN, "the model cannot be read") if fetched else (READY, "fetch the model first")
        return [Step("model", "Model & data", *first), *blocked, compare]
    scores = cached.find_scores(draft)
    cut = draft.targets != Targets()
    wrong = plan_problems(card.config, draft.targets, draft.rank, draft.pins)
    impossible = "not possible as set" if problems(card.config, draft.targets) else wrong[0] if wrong else ""
    return [
        Step("model", "Model & data", DONE, f"{card.name}, {count(card.cost.parameters)}"),
        Step(
            "importance",
            "Importance",
            *((DONE, f"scored on {count(scores.meta['tokens'])} tokens") if scores else (READY, _unscored(draft, runs))),
        ),
        Step(
            "targets", "Targets", BROKEN if wrong else DONE if cut else READY, impossible or ("sizes are set" if cut else "nothing cut yet")
        ),
        Step(
            "distill",
            "Prune & distill",
            *_run_step(draft, runs, "needs possible targets and pins" if wrong else "" if cut else "set a target first"),
        ),
        compare,
    ]


def _compare_step(runs: list[KnownRun]) -> Step:
    """The last station: it needs finished runs, and no draft."""
    finished = sum(known.spec.kind in ("distill", "prune") and known.status.state == "done" for known in runs)
    return Step("compare", "Compare", *((DONE, plural(finished, "finished run")) if finished else (BLOCKED, "needs a finished run")))


def _unscored(draft: Draft, runs: list[KnownRun]) -> str:
    run = score_run(draft, runs)
    return "being computed" if run is not None and run.status().live else "not computed yet"


def _run_step(draft: Draft, runs: list[KnownRun], blocked: str) -> tuple[str, str]:
    """How the draft's own run stands; ``blocked`` says why it cannot start, if so."""
    subject = (draft.model, draft.data, draft.rank, draft.targets, draft.pins)
    for known in runs:
        spec = known.spec
        if spec.kind in ("prune", "distill") and (spec.model, spec.data, spec.rank, spec.targets, spec.pins) == subject:
            return (DONE, "done for this draft") if known.status.state == "done" else (READY, f"{known.status.state} for this draft")
    return (BLOCKED, blocked) if blocked else (READY, "ready to start")


def active_run(runs: list[KnownRun]) -> KnownRun | None:
    """The run that a worker is at, else one that waits for its turn."""
    live = [known for known in runs if known.status.live]
    return next((known for known in live if known.status.state != "queued"), live[-1] if live else None)


def _watch(shown: str | None) -> None:
    """Draw the active run; draw the whole page anew once another one, or none, is active."""
    active = active_run(cached.known_runs())
    if (active.run.id if active else None) != shown:
        st.rerun()
    if active is None:
        st.caption("No run is active.")
        return
    status = active.status
    phase = "" if status.phase in ("", active.spec.kind) else f": {status.phase}"
    said = KINDS[active.spec.kind] + phase + (f", {percent(status.done / status.total)}" if status.total else f", {status.state}")
    st.progress(min(status.done / status.total, 1.0) if status.total else 0.0, text=said)
    if active.spec.kind not in ("score", "probe") and state.run_id() != active.run.id and st.button("Open the run", key="open_active_run"):
        state.set_run_id(active.run.id)
        state.go("candidates" if active.spec.kind == "search" else "distill")
