"""Why a run ended badly: cause, remedy, last words, and everything that helps somebody else to help."""

from typing import Any

import streamlit as st

from app.ui import folded
from core.runs.folder import Run
from core.runs.status import Status


def card(run: Run, status: Status) -> None:
    """What ended a run that did not end well, what to do, and everything that helps to find out more."""
    if not status.error:
        return
    with st.container(border=True):
        icon, title = ("error", "The run failed") if status.state == "failed" else ("heart_broken", "The worker died")
        st.markdown(f"#### :red[:material/{icon}:] {title}")
        st.markdown(status.error["message"])
        if status.error.get("hint"):
            st.markdown(f":material/lightbulb: {status.error['hint']}")
        st.caption("Last lines of the log")
        log(run)
        if fold := folded("Diagnostics to copy", "content_copy", "diagnostics"):
            fold.code(diagnostics(run, status), language=None, height=220)


def log(run: Run) -> None:
    """The last lines that the worker printed."""
    text = run.log_tail(3000).strip() or "The log is empty."
    st.code(text, language=None, height=min(260, 24 * (text.count("\n") + 1) + 40))


def diagnostics(run: Run, status: Status) -> str:
    """Everything that somebody who helps will ask for, as text."""
    machine: dict[str, Any] = run.results().get("machine") or {}
    facts = {
        "run": run.id,
        "state": status.state,
        "phase": f"{status.phase} {status.done}/{status.total}",
        "device": status.device,
        "error": status.error,
    }
    lines = [f"{name}: {value}" for name, value in (facts | machine).items()]
    return "\n".join([*lines, f"spec: {run.spec.to_dict()}", "", run.log_tail(3000)])
