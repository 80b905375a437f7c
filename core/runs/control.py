"""What people do with runs: start, stop, resume and delete them, from any tab and any process.

Nothing here remembers anything: the folder and its lock say it all. Only the worker writes a live run's status; this side
leaves wishes (``cancel``), starts workers, and puts down what became of those that can no longer speak.
"""

import contextlib
import dataclasses
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import psutil

from core.errors import UserError
from core.files import tree_bytes, write_json, writing_to
from core.runs.folder import Run, all_runs, create
from core.runs.machine import cores
from core.runs.status import Status
from core.specs import RunSpec
from core.workspace import ROOT, room

WORKER_COMMAND = (sys.executable, "-m", "core", "run")
"""Starts a worker when the run's folder is added; the same command that a user types."""

CONTROL_SECONDS = 30.0
"""How long two starts wait for each other; each takes milliseconds."""

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Workers that this process started, kept only so that they can be reaped: a zombie would otherwise stay for each."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long after a cancel force is used, in seconds."""

    terminate: float = 15.0
    """Then SIGTERM."""
    kill: float = 45.0
    """Then SIGKILL."""
    saving: float = 600.0
    """Added to both while a model or checkpoint is being written."""


def start(spec: RunSpec, *, command: Sequence[str] = WORKER_COMMAND) -> Run:
    """Make and launch a run, or return the one that already does the same: a double click starts one run.

    Raises:
        UserError: the spec has problems, or the workspace cannot be written.
    """
    identity = spec.identity()
    with _one_at_a_time():
        for run in all_runs():
            # A run that was deleted meanwhile, or whose spec cannot be read, is not the same run.
            with contextlib.suppress(UserError):
                if run.last_word().live and run.status().state in ("queued", "running") and run.spec.identity() == identity:
                    return run
        run = create(spec)
        launch(run, command=command)
        return run


def launch(run: Run, *, command: Sequence[str] = WORKER_COMMAND) -> None:
    """Start a worker process for a run. It outlives this process, and waits in line if the device is taken.

    Raises:
        RunGone: the folder is no longer there.
    """
    reap()
    run.require()
    with writing_to(run.path):
        (run.path / "launched").touch()
        with (run.path / "out.log").open("ab") as log:
            child = subprocess.Popen(
                [*command, str(run.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=_environment(),
                start_new_session=True,
            )
    _children[child.pid] = child


def cancel(run: Run, keep: bool = True) -> None:
    """Ask a run to stop at its next safe point, and keep what it made (``stopped``) or discard it (``cancelled``).

    A run without a worker is marked at once. One that is done stays done.

    Raises:
        RunGone: the folder is no longer there.
    """
    status = run.status()
    if status.live:
        earlier = run.cancel_request()
        # A second wish may change its mind, but does not give the worker more time.
        write_json(run.path / "cancel", {"keep": keep, "time": earlier["time"] if earlier else time.time()})
    elif not keep and status.state not in ("done", "cancelled"):
        _settle(run, "cancelled")
    elif status.state == "interrupted":
        _settle(run, "stopped")


def resume(run: Run, *, command: Sequence[str] = WORKER_COMMAND) -> None:
    """Let a stopped, interrupted or failed run go on. Does nothing to one that is live already.

    Raises:
        UserError: the run is done or was cancelled.
        RunGone: the folder is no longer there.
    """
    with _one_at_a_time():
        status = run.status()
        if status.live:
            return
        if not status.resumable:
            raise UserError(f"Run {run.id} is {status.state}, so there is nothing to resume. Start a new run.")
        with _without_worker(run):
            (run.path / "cancel").unlink(missing_ok=True)
            (run.path / "launched").touch()
            run.write_status(dataclasses.replace(run.last_word(), state="queued", message="", error=None, started=None, finished=None))
        launch(run, command=command)


def delete(run: Run) -> int:
    """Remove a run that is not live, with all that it made, for good; return how many bytes that frees.

    Raises:
        UserError: the run is live.
        RunGone: the folder is no longer there.
    """
    place, size = _taken_away(run)
    shutil.rmtree(place, ignore_errors=True)
    return size


def throw_away(run: Run) -> int:
    """Move a run that is not live into the trash, from which ``restore`` brings it back; return how many bytes it has.

    Raises:
        UserError: the run is live.
        RunGone: the folder is no longer there.
    """
    return _taken_away(run)[1]


def _taken_away(run: Run) -> tuple[Path, int]:
    """Move a run into the trash by one rename, so that nobody ever sees half a run; return where it is, and its bytes."""
    with _one_at_a_time():
        if run.status().live:
            raise UserError(f"Run {run.id} is still {run.status().state}. Stop it, then delete it.")
        place = _free_place(room("trash"), run.id)
        with _without_worker(run), writing_to(run.path):
            size = tree_bytes(run.path)
            run.path.rename(place)
        return place, size


def scrap(name: str) -> None:
    """Move a folder among the runs that is no whole run into the trash.

    Raises:
        UserError: a worker is at it, or it is not there.
    """
    path = room("runs") / Path(name).name
    with _one_at_a_time(), writing_to(path):
        if (path / "spec.json").exists() and Run(path).held():
            raise UserError(f"Run {name} has a worker. Stop it first.")
        if not path.exists():
            raise UserError(f"{path} is not there any more.")
        path.rename(_free_place(room("trash"), path.name))


def trash() -> list[Path]:
    """Folders of deleted runs, which still take room, the newest run first."""
    return sorted(room("trash").iterdir(), reverse=True)


def restore(name: str) -> Run:
    """Bring a deleted run back out of the trash.

    Raises:
        UserError: it is not there any more.
    """
    with _one_at_a_time():
        place = _free_place(room("runs"), name)
        try:
            (room("trash") / Path(name).name).rename(place)
        except FileNotFoundError as error:
            raise UserError(f"Run {name} is not in the trash any more: it was restored, or the trash was emptied.") from error
        return Run(place)


def empty_trash() -> int:
    """Remove the deleted runs for good; return how many bytes that frees."""
    with _one_at_a_time():
        size = tree_bytes(room("trash"))
        for folder in trash():
            shutil.rmtree(folder, ignore_errors=True)
        return size


def _free_place(folder: Path, name: str) -> Path:
    """A path in ``folder`` that nothing has, called ``name`` if that is free."""
    names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(path for one in names if not (path := folder / Path(one).name).exists())


def reconcile(run: Run, patience: Patience | None = None) -> Status:
    """Return a run's status, after pressing on a stop that is overdue and putting down a stop that was never answered.

    Raises:
        RunGone: the folder is no longer there.
    """
    reap()
    escalate(run, patience)
    status = run.status()
    if not status.live and status.state != "interrupted" and run.last_word().live:
        _settle(run, status.state)
    return status


def escalate(run: Run, patience: Patience | None = None) -> None:
    """Use force on a worker that has not heeded a cancel in time: SIGTERM, later SIGKILL, to its process group.

    Raises:
        RunGone: the folder is no longer there.
    """
    patience = patience or Patience()
    request, said = run.cancel_request(), run.last_word()
    if request is None or not said.live:
        return
    extra = patience.saving if said.phase == "save" or run.is_saving() else 0.0
    overdue = time.time() - request["time"] - extra
    if overdue < patience.terminate or not run.held():
        return
    if (pid := _worker_pid(run, said)) is not None:
        _send(pid, signal.SIGKILL if overdue >= patience.kill else signal.SIGTERM)


def reap() -> None:
    """Let the system forget the workers of this process that have ended."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)


def _settle(run: Run, state: str) -> None:
    """Write the last word of a run whose worker is gone; leave it alone if one has appeared."""
    with contextlib.suppress(filelock.Timeout), run.hold(patience=1.0):
        if state == "cancelled":
            run.discard_weights()
        said = run.last_word()
        run.write_status(dataclasses.replace(said, state=state, message="", error=None, finished=said.updated or time.time()))


@contextlib.contextmanager
def _without_worker(run: Run) -> Iterator[None]:
    """Keep workers out for the block, being patient with readers."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(run.hold(patience=1.0))
        except filelock.Timeout:
            raise UserError(f"Run {run.id} has just got a worker. Stop that first.") from None
        yield


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let one tab or process at a time start, resume or delete."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(filelock.FileLock(room("locks") / "control.lock").acquire(timeout=CONTROL_SECONDS))
        except filelock.Timeout:
            raise UserError(f"Another process has been starting or deleting runs for {CONTROL_SECONDS:.0f} s. Try again.") from None
        yield


def _environment() -> dict[str, str]:
    """The worker's environment: ours, unbuffered, with a core left to the dashboard where there are more than two."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    if cores() > 2:
        environment.setdefault("OMP_NUM_THREADS", str(cores() - 1))
    return environment


def _worker_pid(run: Run, said: Status) -> int | None:
    """Return the worker's process id if a process of that id lives, works on this run, and is not this very process."""
    if said.pid is None or said.pid == os.getpid():
        return None
    try:
        words = psutil.Process(said.pid).cmdline()
    except psutil.Error:
        return None
    return said.pid if any(Path(word).name == run.id for word in words) else None


def _send(pid: int, number: signal.Signals) -> None:
    """Send a signal to the group that ``pid`` leads; to ``pid`` alone if it leads none, as others' work may be in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
