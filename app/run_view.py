"""The parts that show one run: how it stands, its curves, its buttons, and why it died if it did.

Those that take ``(run_id, seconds)`` are fragments: they draw themselves anew while the run lives (see ``live.watch``).
"""

import time
from typing import Any

import streamlit as st

from app import live, samples
from app.tail import follow
from core.errors import UserError
from core.report import format as fmt
from core.report.alerts import alerts
from core.report.curves import Curves
from core.report.picture import Picture
from core.report.run_figures import Palette, References, heldout_picture, recovered_by, references_of, terms_picture, training_picture
from core.runs import control
from core.runs.folder import Run, find
from core.runs.remarks import title
from core.runs.slots import queue_position
from core.runs.status import Status

PHASES = {
    "probe": ("speed",),
    "score": ("score",),
    "preview": ("score", "plan", "measure"),
    "search": ("score", "search", "finals"),
    "prune": ("score", "plan", "prune", "repair", "measure", "evaluate", "save"),
    "distill": ("score", "plan", "prune", "repair", "measure", "distill", "evaluate", "save"),
    "family": ("family", "save"),
    "evaluate": ("measure",),
    "generate": ("generate",),
}
"""Kind of run -> the phases that people see, in order."""

STATES = {
    "queued": ("hourglass_empty", "gray"), "running": ("play_circle", "green"), "stopping": ("pause_circle", "orange"),
    "done": ("check_circle", "green"), "stopped": ("stop_circle", "orange"), "failed": ("error", "red"),
    "interrupted": ("heart_broken", "red"), "cancelled": ("cancel", "gray"),
}  # fmt: skip
"""State -> icon and colour."""

QUIET_SECONDS = 15.0
"""After this long without a sign of life the page says so."""

NEWS_SECONDS = 30.0
"""How long the worker's latest sentence is shown."""

ETA_STEPS, ETA_PART = 20, 0.05
"""An estimate of the time left is shown after so many units, or that part of the phase."""

Version = tuple[str, int, float]
"""Of a run's curves: the run, how many events they hold, and the time of the last."""
KEEP_PICTURES = 16

PAUSE = "w_paused"
WINDOWS = {"All steps": None, "Last 500": 500, "Last 100": 100, "Last 20": 20}


def label(run: Run) -> str:
    """A run in a list: when, what, and the end of its id, so that no two read alike.

    Not how it stands: a select box loses its choice when the choice's label changes.
    """
    when = time.strftime("%d %b %H:%M", time.localtime(run.last_word().created))
    return f"{when} · {title(run)} · {run.id.split('-', 3)[-1]}"


def header(run_id: str, seconds: float | None) -> None:
    """State, phases, progress, speed and buttons."""
    run = find(run_id)
    status = control.reconcile(run)
    live.settled(status, seconds)
    curves = follow(run, live=status.live)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            icon, colour = STATES[status.state]
            st.badge(status.state, icon=f":material/{icon}:", color=colour)  # type: ignore[arg-type]
            st.caption(_news(run, status, curves))
            st.space("stretch")
            _buttons(run, status)
        _stepper(run, status, curves)
        if status.live and status.state != "queued":
            part = min(1.0, status.done / status.total) if status.total else 0.0
            st.progress(part, text=f"{status.phase or 'starting'}: {status.done} of {status.total}" if status.total else "starting")
        with st.grid(5, min_column_width=120):
            for name, value, help_ in _figures(status, curves)[
                0 if run.spec.kind in ("distill", "family") else 2 :
            ]:  # others have no steps
                st.metric(name, value, help=help_)
        with st.container():
            for said in alerts_of((run_id, curves.events, curves.last_time or 0.0), curves).values() if status.state == "running" else ():
                st.warning(said, icon=":material/warning:")


@st.cache_resource(max_entries=KEEP_PICTURES, show_spinner=False)
def alerts_of(version: Version, _series: Curves) -> dict[str, str]:
    """What is wrong with a version of the curves, looked for once for all tabs."""
    return alerts(_series)


def _news(run: Run, status: Status, curves: Curves) -> str:
    """One sentence on what is going on."""
    if status.state == "queued":
        place = queue_position(run)
        return f"Queued, position {place}. {status.message}" if place > 1 or status.message else "Starting a worker."
    if status.state == "stopping":
        request = run.cancel_request() or {"keep": True}
        at = f" at step {status.done}" if status.phase == "distill" else f" during {status.phase}" if status.phase else ""
        return f"Stopping{at}, then {'saving what was learnt' if request['keep'] else 'discarding it'}. It ends at its next safe point."
    if status.state == "running":
        silence = time.time() - (status.updated or status.created)
        if silence > QUIET_SECONDS:
            return f":material/warning: **No news for {fmt.duration(silence)}.** The machine may be busy; the log says more."
        return f"Last sign of life {fmt.duration(silence)} ago." + (
            f" {curves.notes[-1][1]}" if curves.notes and time.time() - curves.notes[-1][0] < NEWS_SECONDS else ""
        )
    return status.message or {"done": "Everything is finished.", "interrupted": "The worker is gone."}.get(status.state, "")


def _stepper(run: Run, status: Status, curves: Curves) -> None:
    """The phases in order: what is done and how long it took, what is under way, what is to come."""
    phases, seconds = PHASES[run.spec.kind], run.results().get("seconds") or {}
    here = {"done": len(phases), "queued": -1}.get(status.state, position(phases, status, curves))
    with st.container(horizontal=True, gap="medium"):
        for i, phase in enumerate(phases):
            took = f" :gray[:small[{fmt.duration(seconds[phase])}]]" if phase in seconds else ""
            if i < here:
                st.markdown(f":green[:material/check_circle:] {phase}{took}", width="content")
            elif i == here:
                icon = "pending" if status.live else "pause_circle" if status.state == "stopped" else "cancel"
                st.markdown(f":primary[:material/{icon}:] **{phase}**", width="content")
            else:
                st.markdown(f":gray[:material/radio_button_unchecked: {phase}]", width="content")


def position(phases: tuple[str, ...], status: Status, curves: Curves) -> int:
    """Which phase is under way. Measuring comes twice, and a resumed run passes by what it has done already: neither goes back."""
    begun = [i for i, phase in enumerate(phases) if phase in curves.phases]
    if not begun or status.phase == phases[begun[-1]]:
        return begun[-1] if begun else 0
    furthest = curves.phases[phases[begun[-1]]]
    return min(len(phases) - 1, begun[-1] + (furthest.done >= furthest.total))


def _figures(status: Status, curves: Curves) -> list[tuple[str, str, str]]:
    """Name, value and explanation of the five numbers beside the bar."""
    elapsed = (status.updated or status.created) - status.started if status.started else None
    shown = [
        ("Step", f"{curves.steps[-1]} of {curves.phases['distill'].total}" if curves.steps else fmt.MISSING, "Distillation steps"),
        ("Speed", fmt.rate(curves.latest("tokens_per_second"), "tok/s"), "Training tokens a second, last step"),
        ("Elapsed", fmt.duration(elapsed), "Since the worker last started"),
        ("Memory", fmt.size(status.memory_bytes), "Of the worker process"),
    ]
    if status.live:
        left = fmt.duration(seconds_left(status, curves), estimated=True)
        shown.append(("Phase left", left, f"From the last units; shown after {ETA_STEPS} of them or 5 %"))
    return shown


def seconds_left(status: Status, curves: Curves) -> float | None:
    """Estimated time until the present phase ends; None while too little was measured, or nothing runs."""
    if status.state != "running" or not status.total or (status.done < ETA_STEPS and status.done < ETA_PART * status.total):
        return None
    each = curves.seconds_per_unit() if curves.present == status.phase else None
    return None if each is None else each * (status.total - status.done)


def _buttons(run: Run, status: Status) -> None:
    """What can be done with the run as it stands."""
    if status.state == "queued":
        if st.button("Leave the queue", icon=":material/close:", key="leave", type="tertiary"):
            control.cancel(run, keep=False)
            st.rerun()
    elif status.live:
        stopping = status.state == "stopping"
        if st.button(
            "Stop and save",
            icon=":material/stop_circle:",
            key="stop",
            disabled=stopping,
            help="Ends at the next safe point. You can resume later.",
        ):
            control.cancel(run, keep=True)
            st.rerun()
        if st.button(
            "Cancel and discard", icon=":material/delete:", key="discard", type="tertiary", help="Ends the run and removes what it learnt."
        ):
            confirm_discard(run)
    elif status.resumable and st.button("Resume", icon=":material/play_arrow:", key="resume", type="primary"):
        try:
            control.resume(run)
        except UserError as error:
            st.error(str(error))
            return
        st.rerun()


@st.dialog("Discard this run?", icon=":material/delete:")
def confirm_discard(run: Run) -> None:
    """Ask before something is lost."""
    st.markdown(
        "The run ends, and its checkpoints and weights are removed. What it measured until now stays in the list. This cannot be undone."
    )
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Keep it", key="keep_run"):
            st.rerun()
        if st.button("Discard", key="discard_run", type="primary", icon=":material/delete:"):
            control.cancel(run, keep=False)
            st.rerun()


def curves(run_id: str, seconds: float | None) -> None:
    """How much came back, the held-out loss between its two lines, and the divergence at every step."""
    run = find(run_id)
    paused = bool(seconds) and bool(st.session_state.get(PAUSE))
    series, results = live.held_still(run, live=bool(seconds), paused=paused), run.results()
    if not series.steps:
        st.caption(":material/show_chart: Loss and divergence appear here with the first distillation step.")
        return
    version = (run_id, series.events, series.last_time or 0.0)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"### {headline(series, results) or 'Distillation'}")
        if seconds:
            st.toggle("Pause the charts", key=PAUSE, help="Hold them still while the run goes on.")
    st.markdown(
        "**Held-out loss** on the way, on the first blocks of each text, between the teacher's and that of the pruned model before distillation"
    )
    live.live_chart(_heldout(version, references_of(results), "glance" not in results, live.palette(), series), "heldout")
    st.markdown("**Divergence from the teacher in training**")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        window = st.segmented_control("Show", list(WINDOWS), default="All steps", required=True, key="w_window")
        log = st.toggle("Logarithmic", value=True, key="w_log")
        smoothing = st.slider("Smoothing", 0.0, 0.95, 0.6, 0.05, key="w_smoothing", width=220)
    live.live_chart(_training(version, WINDOWS[window], log, smoothing, live.palette(), series), "training")
    if len(series.terms) > 1 and st.toggle(
        "Every term of the loss", key="w_terms", help="Each part that is learnt from or looked at, smoothed."
    ):
        live.live_chart(terms_picture(series, log=log, smoothing=smoothing, palette=live.palette()), "terms")
    if series.samples:
        step, answers = series.samples
        st.markdown(f"**What the student says** at step {step}")
        for answer in answers:
            st.markdown(f"{samples.plain(answer['prompt'])} **{samples.plain(answer['text'])}**")


@st.cache_resource(max_entries=KEEP_PICTURES, show_spinner=False)
def _heldout(version: Version, references: References, estimated: bool, palette: Palette, _series: Curves) -> Picture:
    """The picture of the held-out losses, made once for all tabs that look at a version of the curves."""
    return heldout_picture(_series, references, estimated=estimated, palette=palette)


@st.cache_resource(max_entries=KEEP_PICTURES, show_spinner=False)
def _training(version: Version, window: int | None, log: bool, smoothing: float, palette: Palette, _series: Curves) -> Picture:
    """The picture of the divergence in training, likewise."""
    return training_picture(_series, window=window, log=log, smoothing=smoothing, palette=palette)


def words(run_id: str, seconds: float | None) -> None:
    """What the models make of the prompts, as soon as the first were asked."""
    if answers := find(run_id).generations():
        st.subheader("The same prompts", anchor=False)
        samples.show(answers, find(run_id).results())


def headline(series: Curves, results: dict[str, Any]) -> str:
    """How much of what pruning cost is back; empty before it was measured. ``≈`` until both ends of the gap were measured on the same blocks."""
    if final := {domain: part for domain, part in (results.get("recovered") or {}).items() if part is not None}:
        return "Gap recovered: " + fmt.listed([f"{100 * part:.0f} % on {domain}" for domain, part in final.items()])
    references, parts, sign = references_of(results), [], "" if "glance" in results else "≈ "
    for domain, points in series.heldout.items():
        part = recovered_by(references, domain, points[-1][1])
        parts += [f"{sign}{100 * part:.0f} % on {domain}"] if part is not None else []
    steps = max((points[-1][0] for points in series.heldout.values()), default=0)
    return f"Gap recovered at step {steps}: {fmt.listed(parts)}" if parts else ""
