"""The worker: does the steps of one run, in a process of its own or in the foreground of a terminal.

This is the one boundary of all long work. Whatever happens inside becomes the run's last word: done, stopped, cancelled or
failed with its cause. What cannot speak any more (a killed process) is concluded by readers from the lock, which lives as
long as the worker. torch is imported only with the steps, after the device is free, so a queue costs next to nothing.
"""

import contextlib
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import filelock

from core.errors import UserError
from core.progress import Progress, Stopped
from core.runs.events import EventLog
from core.runs.failures import explain
from core.runs.folder import Run
from core.runs.reporter import Reporter
from core.runs.slots import device_slot

Step = Callable[[Run, Progress], None]

DONE, FAILED, USER_ERROR, STOPPED = 0, 1, 2, 130
"""Exit codes. Stopped and cancelled share one, which shells also use for Ctrl+C."""

LOCK_PATIENCE_SECONDS = 2.0
"""Readers hold a run's lock for an instant now and then; another worker holds it for longer than this."""


def work(run: Run, steps: Sequence[Step] | None = None, mirror: Progress | None = None, *, has_device: bool = False) -> int:
    """Carry a new, stopped, interrupted or failed run on to its end; return the exit code that tells how it ended.

    ``steps`` stand in for those of the run's kind; ``mirror`` hears of all progress, for bars in a terminal; ``has_device`` says
    that the caller holds the device already, as a family does for its members. Ctrl+C or
    SIGTERM stop at the next safe point and keep what was made; a second Ctrl+C stops at once. The cause of a failure is
    left in the run's status, its traceback in out.log.

    Raises:
        UserError: the run has a worker already, is done or was discarded, is gone, or its folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(run.hold(LOCK_PATIENCE_SECONDS))
        except filelock.Timeout:
            raise UserError(f"Run {run.id} has a worker already. Watch that one, or stop it first.") from None
        _make_ready(run)
        log = stack.enter_context(EventLog(run.path / "events.jsonl"))
        report = Reporter(run, log, mirror)
        stack.enter_context(report.beating())
        stack.enter_context(_heeding_signals(report))
        slot = contextlib.nullcontext() if has_device else device_slot(run, _Waiting(report))
        return _attend(run, steps, report, slot)


def _make_ready(run: Run) -> None:
    """Clear away what an earlier worker left, or refuse a run with nothing left to do."""
    state = run.last_word().state
    if state == "done":
        raise UserError(f"Run {run.id} is done already; its results are in {run.path}. Start a new run to do it again.")
    if state == "cancelled":
        raise UserError(f"Run {run.id} was cancelled and its checkpoints were discarded. Start a new run.")
    if state != "queued":
        # This wish was for the worker before. One that came while this worker was starting finds the state "queued".
        (run.path / "cancel").unlink(missing_ok=True)
    (run.path / "saving").unlink(missing_ok=True)


def _attend(run: Run, steps: Sequence[Step] | None, report: Reporter, slot: contextlib.AbstractContextManager[None]) -> int:
    """Do the work and write down how it ended."""
    try:
        report.begin()
        report.heed()
        run.spec.check()
        with slot:
            report.start()
            for step in _steps_of(run) if steps is None else steps:
                step(run, report)
            report.end("done")
        return DONE
    except (Stopped, KeyboardInterrupt):
        return _stop(run, report)
    except UserError as error:
        return _fail(run, report, error, str(error), USER_ERROR)
    except BaseException as error:
        _fail(run, report, error, traceback.format_exc(), FAILED)
        if isinstance(error, SystemExit):
            raise
        return FAILED


def _steps_of(run: Run) -> Sequence[Step]:
    from core.runs.steps import STEPS  # here, because it brings torch

    return STEPS[run.spec.kind]


def _stop(run: Run, report: Reporter) -> int:
    """End a run at the user's wish, keeping what was made unless the wish was to discard it."""
    request = run.cancel_request()
    if request is None or request["keep"]:
        message = f"Stopped; what was saved is kept. To go on: Resume, or python -m core run {run.path}"
        report.note(message)
        report.end("stopped", message=message)
    else:
        run.discard_weights()
        report.end("cancelled", message="Cancelled; checkpoints and model were discarded.")
    return STOPPED


def _fail(run: Run, report: Reporter, error: BaseException, log: str, code: int) -> int:
    """End a run with the cause of its failure.

    Raises:
        RunGone: the folder was deleted, so there is nowhere to write it.
    """
    run.require()
    run.write_log(log)
    failure = explain(error)
    report.end("failed", message=failure["message"], error=failure)
    return code


class _Waiting:
    """What a worker does while others have the device: say for whom it waits, and hear a wish to stop."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._told = ""

    def __call__(self, ahead: list[Run]) -> None:
        self._report.heed()
        what = f"run {ahead[0].id}" if ahead else "other work"
        told = f"Waiting for {what} to leave the device" + (f" ({len(ahead)} runs ahead)." if len(ahead) > 1 else ".")
        if told != self._told:
            self._told = told
            self._report.note(told)


@contextlib.contextmanager
def _heeding_signals(report: Reporter) -> Iterator[None]:
    """Let SIGTERM and the first Ctrl+C ask for a stop instead of tearing a unit of work in two."""

    def ask(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and report.stop_asked:
            raise KeyboardInterrupt
        report.stop_asked = True

    if threading.current_thread() is not threading.main_thread():
        # Python lets only the main thread set handlers; elsewhere the cancel file is the way to stop.
        yield
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
