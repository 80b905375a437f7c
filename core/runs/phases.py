"""A step of a run as one of its phases: what it reports goes under one name, and the time that it takes is kept."""

import gc
import time
from collections.abc import Callable
from typing import Any

from core.progress import Progress
from core.runs.findings import update_results
from core.runs.folder import Run

Step = Callable[[Run, Progress], None]


class Within:
    """Progress of a step whose parts report under names of their own: all of it is the step's phase."""

    PARTS = ("measure", "speed", "generate")

    def __init__(self, progress: Progress, phase: str) -> None:
        self._progress, self._phase = progress, phase

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        """Pass a step on."""
        self._progress.step(self._phase if phase in self.PARTS else phase, done, total, **metrics)

    def note(self, message: str) -> None:
        """Pass a sentence on."""
        self._progress.note(message)


def phase(name: str, step: Step) -> Step:
    """The step as a phase of a run, with the time it takes added to the run's results."""

    def run_step(run: Run, progress: Progress) -> None:
        began = time.monotonic()
        try:
            step(run, Within(progress, name))
        finally:
            gc.collect()
            if run.path.exists():
                seconds = run.results().get("seconds", {})
                update_results(run, seconds=seconds | {name: seconds.get(name, 0.0) + time.monotonic() - began})

    return run_step
