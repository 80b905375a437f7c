"""The worker's progress on disk: every step becomes an event, the latest becomes ``status.json``, and a wish to stop is heard.

A thread renews the status every two seconds, so that a long unit of work does not look like a dead worker.
"""

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil

from core.errors import UserError
from core.progress import Progress, Silent, Stopped
from core.runs.events import EventLog
from core.runs.failures import Failure
from core.runs.folder import Run, RunGone

WRITE_SECONDS = 0.5
"""At most this often a step renews status.json, and a step without figures becomes an event."""

BEAT_SECONDS = 2.0


class Reporter:
    """Progress of one segment of a run, for whoever holds the run's lock. Everything is passed on to ``mirror`` too."""

    def __init__(self, run: Run, log: EventLog, mirror: Progress | None = None) -> None:
        self.run = run
        self.mirror: Progress = mirror or Silent()
        self.stop_asked = False
        """Set by a signal handler: stop at the next safe point and keep what was made."""
        self._log = log
        self._status = run.last_word()
        self._written = self._logged = 0.0
        self._announced = False
        self._gone: RunGone | None = None
        self._mutex = threading.RLock()
        self._process = psutil.Process()

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        """Record finished units; see ``Progress.step``.

        Raises:
            Stopped: somebody wants the run to stop.
            UserError: the disk is full, or the folder was deleted.
        """
        now = time.monotonic()
        with self._mutex:
            turn = phase != self._status.phase or done >= total
            if metrics or turn or now - self._logged >= WRITE_SECONDS:
                self._log.append(phase=phase, done=done, total=total, **metrics)
                self._logged = now
            self._status = dataclasses.replace(self._status, phase=phase, done=done, total=total)
            if turn or now - self._written >= WRITE_SECONDS:
                self._write()
        self.mirror.step(phase, done, total, **metrics)
        self.heed()

    def note(self, message: str) -> None:
        """Record a sentence for people, as an event and as the status's message."""
        with self._mutex:
            self._log.append(note=message)
            self.update(message=message)
        self.mirror.note(message)

    def heed(self) -> None:
        """Return if the work may go on.

        Raises:
            Stopped: somebody wants the run to stop.
            RunGone: the folder was deleted.
        """
        if self._gone:
            raise self._gone
        if self._unwanted():
            raise Stopped

    def begin(self) -> None:
        """Open a segment: count it, and stand in line."""
        segments = sum("segment" in event for event in self.run.events()[0])
        with self._mutex:
            self._log.append(segment=segments + 1)
            self.update(state="queued", pid=os.getpid(), message="", error=None, started=None, finished=None)

    def start(self) -> None:
        """Say that the run has its device and works now."""
        self.update(state="running", started=time.time(), message="")

    def end(self, state: str, *, message: str = "", error: Failure | None = None) -> None:
        """Write the last word of this segment."""
        self.update(state=state, message=message, error=error, finished=time.time())

    def update(self, **fields: Any) -> None:
        """Change fields of the status and write it."""
        with self._mutex:
            self._status = dataclasses.replace(self._status, **fields)
            self._write()

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Renew the status regularly while the block runs."""
        ended = threading.Event()
        thread = threading.Thread(target=self._beat, args=(ended,), name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT_SECONDS):
            try:
                self.update()
                self._announce_stop()
            except RunGone as gone:
                self._gone = gone
                return
            except (UserError, OSError):
                # A full disk is the next step's to report; a heartbeat may be missed.
                continue

    def _announce_stop(self) -> None:
        """Tell, once, that a wish to stop was heard although the unit under way has yet to end."""
        if self._status.state == "stopping" and not self._announced:
            self._announced = True
            self.note("Stopping at the next safe point.")

    def _unwanted(self) -> bool:
        return self.stop_asked or (self.run.path / "cancel").exists()

    def _write(self) -> None:
        """Write the status, with the memory and the time of now. Called with the mutex held."""
        state = "stopping" if self._status.state == "running" and self._unwanted() else self._status.state
        memory = self._process.memory_info().rss
        self._status = dataclasses.replace(self._status, state=state, updated=time.time(), memory_bytes=memory)
        self.run.write_status(self._status)
        self._written = time.monotonic()
