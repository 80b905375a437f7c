"""How long work tells of itself, and how it is told to stop."""

from typing import Any, Protocol


class Stopped(Exception):
    """Raised at a safe point of long work after the user asked it to stop. Not an error: what is saved stays valid."""


class Progress(Protocol):
    """What long work reports to. The worker writes it to disk, the command line draws it, a notebook may ignore it."""

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        """Say that ``done`` of ``total`` units of ``phase`` are finished, with any figures worth keeping.

        Raises:
            Stopped: the user asked for it; raised here, between units, so that no unit is ever torn.
        """

    def note(self, message: str) -> None:
        """Say one sentence that a user should see."""


class Silent:
    """Progress that nobody watches."""

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        """Do nothing."""

    def note(self, message: str) -> None:
        """Do nothing."""


class Coarse:
    """Progress of which only some phases are told. A step of any other repeats the last of these, so that a wish to stop is heard."""

    def __init__(self, progress: Progress, *phases: str) -> None:
        self._progress, self._phases = progress, phases
        self._last = (phases[0], 0, 1)

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        """Pass a step on, or the last one again."""
        if phase in self._phases:
            self._last = (phase, done, total)
            self._progress.step(phase, done, total, **metrics)
        else:
            self._progress.step(*self._last)

    def note(self, message: str) -> None:
        """Pass a sentence on."""
        self._progress.note(message)


class Joint:
    """Progress of several jobs one after the other, told as one: each counts its own units, ``turn`` hands over to the next."""

    def __init__(self, progress: Progress, phase: str, total: int) -> None:
        self._progress, self._phase, self._total = progress, phase, total
        self._before = self._latest = 0

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        """Pass a job's step on, counted from the start of all."""
        self._latest = min(self._before + done, self._total)
        self._progress.step(self._phase, self._latest, self._total, **metrics)

    def note(self, message: str) -> None:
        """Pass a sentence on."""
        self._progress.note(message)

    def turn(self) -> None:
        """A job is finished."""
        self._before = self._latest
