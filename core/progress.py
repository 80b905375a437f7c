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
