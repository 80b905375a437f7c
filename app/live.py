"""Following a run while it works: reading only what is new, drawing only what changed, and never losing the viewer's zoom."""

import functools
from collections.abc import Callable

import streamlit as st

from app import charts
from app.tail import follow
from core.report.curves import Curves
from core.report.picture import Picture
from core.report.run_figures import DARK, LIGHT, Palette
from core.runs.folder import Run, RunGone
from core.runs.status import Status

PACE_SECONDS = {"running": 2.0, "stopping": 2.0, "queued": 10.0}
"""State -> how often a run in it is looked at; all other states are final and are not."""

PAUSED = "live_paused"


def pace(status: Status) -> float | None:
    """Seconds between two looks at a run; None once it can change no more."""
    return PACE_SECONDS.get(status.state)


def watch(draw: Callable[[str, float | None], None], run: Run) -> None:
    """Draw ``draw(run_id, pace)`` now, and again at the run's pace as long as it lives; the whole page anew once the run is gone."""
    seconds = pace(run.status())

    @functools.wraps(draw)
    def drawn(run_id: str, seconds: float | None) -> None:
        try:
            run.require()
            draw(run_id, seconds)
        except RunGone:
            st.rerun()

    st.fragment(drawn, run_every=seconds)(run.id, seconds)


def settled(status: Status, seconds: float | None) -> None:
    """Draw the whole page once more if the run changed its pace: it began, ended, or was resumed."""
    if pace(status) != seconds:
        st.rerun()


def held_still(run: Run, *, live: bool, paused: bool) -> Curves:
    """The run's curves, or while ``paused`` those of the moment at which it was paused."""
    if not paused:
        st.session_state.pop(PAUSED, None)
        return follow(run, live=live)
    name, curves = st.session_state.get(PAUSED, (None, None))
    if name != run.id:
        curves = follow(run, live=live)
        st.session_state[PAUSED] = (run.id, curves)
    return curves


def palette() -> Palette:
    """Colours of the scheme that the viewer sees."""
    return DARK if st.context.theme.type == "dark" else LIGHT


def live_chart(picture: Picture, name: str) -> None:
    """Draw a picture that may change every few seconds; ``charts.show`` keeps its zoom."""
    charts.show(picture, name)
