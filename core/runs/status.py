"""How a run stands, as the worker writes it to ``status.json`` and readers see it."""

from dataclasses import dataclass

from core.runs.failures import Failure

LIVE = frozenset({"queued", "running", "stopping"})
"""States in which a worker is at it, or about to be."""

RESUMABLE = frozenset({"stopped", "interrupted", "failed"})
"""States from which a run can go on."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """How a run stands."""

    state: str = "queued"
    """queued, running, stopping, done, stopped (resumable), failed, cancelled (discarded); or interrupted, which is never
    written but concluded: a live state without a worker."""
    phase: str = ""
    """score, plan, prune, measure, distill, evaluate or save."""
    done: int = 0
    """Finished units of the phase."""
    total: int = 0
    message: str = ""
    """The latest sentence meant for people."""
    pid: int | None = None
    """Process of the latest worker. Says nothing about whether it lives: the lock does."""
    created: float = 0.0
    """Seconds since 1970, like all times here."""
    started: float | None = None
    """When the latest segment left the queue."""
    updated: float | None = None
    """The worker's last sign of life."""
    finished: float | None = None
    device: str = "auto"
    memory_bytes: int | None = None
    """Resident memory of the worker."""
    error: Failure | None = None
    """``type``, ``message`` and ``hint`` of a failed or interrupted run."""

    @property
    def live(self) -> bool:
        """Whether a worker is at it, or about to be."""
        return self.state in LIVE

    @property
    def resumable(self) -> bool:
        """Whether the run can go on from where it ended."""
        return self.state in RESUMABLE
