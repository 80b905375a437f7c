"""The draft as it does, not as it is estimated: measured by masks on held-out text, beside the numbers that are arithmetic."""

import time
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from app import cached
from app.cached import KnownRun
from app.forms import TEXT_NAMES
from app.state import Draft
from app.subject import Subject
from app.ui import user_errors
from core.report import format as fmt
from core.report.tables import title_of
from core.runs import control
from core.specs import RunSpec, Targets

WATCH_SECONDS = 1.0


def panel(draft: Draft, subject: Subject) -> None:
    """Show what was measured of this draft; offer to measure it, and show how far that is, if nothing was yet."""
    if draft.targets == Targets():
        return
    st.markdown("**Measured, without retraining**")
    spec = draft.run_spec(kind="preview")
    mine, others = _runs_of(spec)  # before the figures are looked for: a run that ends in between must not be overlooked
    if found := cached.measured(draft, subject.masks):
        _table(found["teacher"], found["draft"])
        return
    if mine is not None and mine.status.live:
        st.fragment(_watch, run_every=WATCH_SECONDS)(mine.run.id)
        return
    said = "Perplexity and divergence from the teacher on held-out text, by masks: nothing is cut. The answer is kept."
    if st.button("Measure this draft", key="measure_draft", icon=":material/speed:", shortcut="Ctrl+M", help=said):
        with user_errors():
            control.start(spec)
        st.rerun()
    if mine is not None and (error := mine.status.error):
        st.error(f"{error['message']} {error.get('hint', '')}", title="The last measurement did not finish", icon=":material/error:")
    _earlier(others)


def _runs_of(spec: RunSpec) -> tuple[KnownRun | None, list[KnownRun]]:
    """The newest measurement of this draft, and the finished ones of other drafts of the same model and text."""
    known = [
        one for one in cached.known_runs() if one.spec.kind == "preview" and (one.spec.model, one.spec.data) == (spec.model, spec.data)
    ]
    mine = next((one for one in known if one.spec.identity() == spec.identity()), None)
    return mine, [one for one in known if one.spec.identity() != spec.identity() and one.status.state == "done"]


def _earlier(others: list[KnownRun]) -> None:
    """What was last measured, marked as no longer this draft's."""
    results = others[0].run.results() if others else {}
    if "draft" in results and "teacher" in results:
        size = fmt.count(results["draft"]["parameters"])
        st.caption(
            f":orange[:material/history: Stale.] The draft has changed since; this is of “{title_of(others[0].spec)}”, {size} parameters:"
        )
        _table(results["teacher"]["heldout"], results["draft"]["heldout"])


def _table(teacher: Mapping[str, Any], draft: Mapping[str, Any]) -> None:
    """A row a held-out text."""
    rows = [
        {
            "Held-out text": TEXT_NAMES.get(name, name),
            "Perplexity": fmt.number(found["perplexity"]),
            "Teacher": fmt.number(teacher[name]["perplexity"]),
            "Above the teacher": fmt.nats(found["loss_nats"] - teacher[name]["loss_nats"]),
            "KL to the teacher": fmt.nats(found["kl_nats"]),
            "Same next token": fmt.percent(found["top1_agreement"]),
            "Tokens": fmt.count(found["tokens"]),
        }
        for name, found in draft.items()
    ]
    st.table(pd.DataFrame(rows), border="horizontal", hide_index=True, alt="What the draft would do on held-out text before any retraining")


def _watch(run_id: str) -> None:
    """Draw the progress; draw the page anew when it ends."""
    known = next((one for one in cached.known_runs() if one.run.id == run_id), None)
    if known is None or not known.status.live:
        st.rerun()
    status = known.status
    phase = {"data": "Reading the text", "score": "Scoring", "plan": "Planning", "measure": "Measuring"}.get(status.phase, "Starting")
    said = f"{phase}: {fmt.percent(status.done / status.total)}" if status.total else phase
    said = {"queued": "Waiting: another run is using the device", "stopping": "Stopping"}.get(status.state, said)
    so_far = f", {fmt.duration(time.time() - status.started)} so far" if status.started else ""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(min(status.done / status.total, 1.0) if status.total else 0.0, text=said + so_far)
        if st.button("Cancel", key="cancel_measuring", icon=":material/close:", disabled=status.state == "stopping"):
            control.cancel(known.run)
            st.rerun(scope="fragment")
