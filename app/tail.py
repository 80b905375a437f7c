"""The end of a run's diary as this server has read it: one for all tabs, so that five viewers cost one reading and one memory."""

import threading
import time

import streamlit as st

from core.report.curves import Curves
from core.runs.folder import Run

FRESH_SECONDS = 1.0
"""A living run's diary is read no sooner than this after the last time: tabs that look in between see the same, drawn once for all."""

KEEP = 8
"""Runs whose curves the server remembers."""


class Tail:
    """Curves of one run, and up to where its diary was read for them."""

    def __init__(self) -> None:
        self._lock, self._offset, self._curves = threading.Lock(), 0, Curves()
        self._shown, self._when = Curves(), -FRESH_SECONDS

    def read(self, run: Run, *, live: bool) -> Curves:
        """Take in what is new; return the curves up to now, or of a moment ago if the run is ``live``. No later reading changes them."""
        with self._lock:
            if not live or time.monotonic() - self._when >= FRESH_SECONDS:
                self._take_in(run)
            return self._shown

    def _take_in(self, run: Run) -> None:
        events, end = run.events(self._offset)
        if end < self._offset:  # another diary has taken the place of the one that was read
            self._curves, self._shown, (events, end) = Curves(), Curves(), run.events(0)
        if events:
            self._shown = self._curves.extend(events).snapshot()
        self._offset, self._when = end, time.monotonic()


def follow(run: Run, *, live: bool) -> Curves:
    """The run's curves; only what was written since the last call, by whichever tab, is read.

    Args:
        live: it may be looked at again soon, so curves of a moment ago will do; else they are all that was written.
    """
    return _tail(str(run.path)).read(run, live=live)


@st.cache_resource(max_entries=KEEP, show_spinner=False)
def _tail(path: str) -> Tail:
    return Tail()
