"""What one of several processes does while it works for another: see whether that one still leads."""

import time
from typing import Any

from core.errors import UserError
from core.progress import Silent
from core.runs.folder import Run

LOOK_SECONDS = 1.0
"""How often the run's lock is looked at."""


class Following(Silent):
    """Progress of a process that follows the first of a run: nobody watches it, but it hears that the first has ended.

    Without this a follower would work at its share for hours before it meets nobody. Launchers that end all processes when one
    ends (torchrun, accelerate) do the same sooner; not every one does.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seen_leading, self._next_look = False, 0.0

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        """Look at the leader.

        Raises:
            UserError: it led the run, and does no more. One that has not begun yet is waited for.
        """
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        leading = self._run.held()
        if self._seen_leading and not leading:
            raise UserError(
                "The first process of this run was stopped or has ended. What was computed is kept; start all processes again to go on."
            )
        self._seen_leading = leading
