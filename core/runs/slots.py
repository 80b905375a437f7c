"""The queue: one device carries one run at a time, the others wait in the order in which they were made.

There is no scheduler. Each waiting worker looks for itself, before it has imported anything heavy, whether it is the oldest
in line and the device's lock is free; so the queue survives whatever happens to the dashboard.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

import filelock

from core.errors import UserError
from core.runs.folder import Run, all_runs
from core.workspace import room

DEFAULT_SLOT = "default"
"""Shared by all names that may mean the machine's own or first device."""

SHARING = frozenset({"auto", "cpu", "mps", "cuda", "cuda:0"})

POLL_SECONDS = 0.5
"""How often a waiting worker looks; also how soon it hears of a cancel."""


def slot_name(device: str) -> str:
    """Name the slot of a device: ``cuda:1`` has its own, all else shares one."""
    return DEFAULT_SLOT if device in SHARING else device.replace(":", "-")


def line(run: Run) -> tuple[list[Run], list[Run]]:
    """Return the runs that have the device of ``run``, and those in line for it that are older, oldest first.

    Raises:
        RunGone: the folder of ``run`` is no longer there.
    """
    slot, mine = slot_name(run.spec.device), (run.last_word().created, run.id)
    active, waiting = [], {}
    for other in all_runs():
        # A run that was deleted meanwhile, or whose spec cannot be read, keeps nobody waiting.
        with contextlib.suppress(UserError):
            said = other.last_word()
            if not said.live or other.id == run.id or slot_name(other.spec.device) != slot:
                continue
            status = other.status()
            # "Stopping" does not tell whether the run had the device yet; what its worker wrote does.
            if said.state != "queued" and status.live:
                active.append(other)
            elif status.state == "queued" and (said.created, other.id) < mine:
                waiting[said.created, other.id] = other
    return active, [waiting[key] for key in sorted(waiting)]


def queue_position(run: Run) -> int:
    """Return a queued run's place in line, from 1; 0 for a run that is not in line."""
    return 1 + len(line(run)[1]) if run.status().state == "queued" else 0


@contextlib.contextmanager
def device_slot(run: Run, idle: Callable[[list[Run]], None]) -> Iterator[None]:
    """Hold the device's slot for the block, after waiting for it in line.

    ``idle`` is called with the runs ahead at each look in vain; it ends the wait by raising ``Stopped``.
    """
    lock = filelock.FileLock(room("locks") / f"{slot_name(run.spec.device)}.lock")
    while True:
        active, waiting = line(run)
        if not waiting and _try(lock):
            break
        idle(active + waiting)
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _try(lock: filelock.BaseFileLock) -> bool:
    """Take the lock if it is free."""
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return False
    return True
