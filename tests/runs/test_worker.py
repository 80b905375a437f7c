import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from core.errors import UserError
from core.progress import Progress, Silent
from core.runs import control, reporter
from core.runs.folder import Run, RunGone, create
from core.runs.worker import DONE, FAILED, STOPPED, USER_ERROR, work
from core.workspace import ROOT
from tests.runs.counting import BEHAVIOURS, COMMAND, begin, count, counted, go_on, launch_again, spec, wait_for, wait_until_counting


class Heard(Silent):
    """A mirror that remembers."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int, dict[str, Any]]] = []
        self.notes: list[str] = []

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        self.steps.append((phase, done, total, metrics))

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_started_run_gets_done_and_tells_of_each_step():
    before = time.time()
    run = begin("5")
    wait_for(run, "done")
    status, (events, _) = run.status(), run.events()
    assert (status.phase, status.done, status.total, status.error) == ("distill", 5, 5, None)
    assert before <= status.created <= status.started <= status.finished <= time.time()
    assert status.memory_bytes > 1_000_000
    assert events[0]["segment"] == 1
    assert counted(run) == [1, 2, 3, 4, 5]
    assert events[-1] == {"time": events[-1]["time"], "phase": "distill", "done": 5, "total": 5, "loss": 0.2}


def test_kill_minus_9_leaves_an_interrupted_run_that_resumes_where_it_was():
    run = begin("60")
    wait_until_counting(run)
    os.kill(run.status().pid, signal.SIGKILL)
    wait_for(run, "interrupted")
    assert "killed" in run.status().error["message"]
    assert run.last_word().state == "running"
    assert counted(run)[-1] < 60
    go_on(run)
    wait_for(run, "done")
    # Killed between its counting and its telling, the worker may have left one number out.
    steps = counted(run)
    assert steps == sorted(set(steps))
    assert len(steps) >= 59
    assert [event["segment"] for event in run.events()[0] if "segment" in event] == [1, 2]
    assert run.status().error is None


def test_sigterm_stops_at_the_next_safe_point_and_keeps_what_was_made():
    run = begin("500")
    wait_until_counting(run)
    os.kill(run.status().pid, signal.SIGTERM)
    wait_for(run, "stopped")
    assert (run.path / "checkpoints" / "reached").read_text() == str(counted(run)[-1])
    assert str(run.path) in run.status().message


@pytest.mark.parametrize(("keep", "state"), [(True, "stopped"), (False, "cancelled")])
def test_cancel_keeps_or_discards_the_checkpoints_and_always_keeps_the_events(keep: bool, state: str):
    run = begin("500")
    wait_until_counting(run)
    control.cancel(run, keep=keep)
    assert run.status().state in ("stopping", state)
    wait_for(run, state)
    assert (run.path / "checkpoints").exists() == keep
    assert counted(run)
    assert control.reconcile(run).state == state


def test_a_failing_step_leaves_its_cause_a_hint_and_the_log():
    run = begin("exhaust")
    wait_for(run, "failed")
    error = run.status().error
    assert error["type"] == "RuntimeError"
    assert "can't allocate memory" in error["message"]
    assert "smaller batch" in error["hint"]
    assert "the worker's own words" in run.log_tail()
    assert "Traceback" in run.log_tail()
    assert run.log_tail(200).rstrip().endswith("99 bytes")


def test_a_users_mistake_is_told_in_its_own_words_without_a_traceback():
    run = create(spec("refuse"))
    assert work(run, [BEHAVIOURS["refuse"]]) == USER_ERROR
    assert run.status().error == {"type": "UserError", "message": "The text is shorter than one block. Name a longer one.", "hint": ""}
    assert "Traceback" not in run.log_tail()


def test_a_failed_run_can_be_carried_on():
    run = create(spec("3"))
    assert work(run, [BEHAVIOURS["exhaust"]]) == FAILED
    assert work(run, [count]) == DONE
    assert run.status().state == "done"


def test_a_second_worker_on_the_same_folder_is_refused_and_harms_nothing():
    run = begin("500")
    wait_until_counting(run)
    second = subprocess.run([*COMMAND, str(run.path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode == USER_ERROR
    assert "has a worker already" in second.stdout
    assert run.status().state == "running"
    assert [event["segment"] for event in run.events()[0] if "segment" in event] == [1]


def test_readers_that_probe_without_pause_never_keep_a_worker_out():
    run = create(spec("20"))
    ended = threading.Event()

    def probe() -> None:
        while not ended.is_set():
            run.held()

    readers = [threading.Thread(target=probe) for _ in range(2)]
    for reader in readers:
        reader.start()
    launch_again(run)
    wait_for(run, "done")
    ended.set()
    for reader in readers:
        reader.join()


def test_work_in_the_foreground_is_mirrored():
    run, heard = create(spec("3")), Heard()
    assert work(run, [count], heard) == DONE
    assert heard.steps == [("distill", n, 3, {"loss": 1 / n}) for n in (1, 2, 3)]


def test_ctrl_c_in_the_foreground_stops_keeps_and_says_how_to_go_on():
    run, heard, before = create(spec("500")), Heard(), signal.getsignal(signal.SIGINT)

    def press_ctrl_c(run: Run, progress: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    assert work(run, [press_ctrl_c, count], heard) == STOPPED
    assert run.status().state == "stopped"
    assert f"python -m core run {run.path}" in heard.notes[-1]
    # The handlers are gone with the work.
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_in_the_middle_of_a_unit():
    run = create(spec("500"))

    def deaf_until_pressed_twice(run: Run, progress: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    assert work(run, [deaf_until_pressed_twice]) == STOPPED
    assert run.status().state == "stopped"


def test_a_done_run_is_not_done_again():
    run = create(spec("2"))
    work(run, [count])
    with pytest.raises(UserError, match="done already"):
        work(run, [count])


def test_a_run_taken_up_by_hand_forgets_the_wish_that_stopped_it():
    run = begin("30")
    wait_until_counting(run)
    control.cancel(run)
    wait_for(run, "stopped")
    assert work(run, [count]) == DONE
    assert counted(run) == list(range(1, 31))


def test_a_folder_deleted_under_the_worker_ends_it_and_is_not_made_anew():
    run = create(spec("500"))

    def lose(run: Run, progress: Progress) -> None:
        shutil.rmtree(run.path)
        progress.step("distill", 1, 1)

    with pytest.raises(RunGone):
        work(run, [lose])
    assert not run.path.exists()


def test_a_long_unit_shows_signs_of_life_and_tells_that_a_stop_was_heard(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reporter, "BEAT_SECONDS", 0.02)
    run, heard = create(spec("500")), Heard()

    def long_unit(run: Run, progress: Progress) -> None:
        first = run.status().updated
        time.sleep(0.2)
        assert run.status().updated > first
        control.cancel(run)
        time.sleep(0.2)
        assert heard.notes == ["Stopping at the next safe point."]
        progress.step("score", 1, 2)

    assert work(run, [long_unit], heard) == STOPPED


def test_steps_without_figures_are_thinned_out_but_the_last_is_kept():
    run = create(spec("3"))

    def hurry(run: Run, progress: Progress) -> None:
        for done in range(1, 1001):
            progress.step("score", done, 1000)

    assert work(run, [hurry]) == DONE
    steps = [event["done"] for event in run.events()[0] if "phase" in event]
    assert steps[0] == 1
    assert steps[-1] == 1000
    assert len(steps) < 100


def test_a_bad_spec_on_disk_fails_the_run_with_a_sentence():
    run = create(spec("2"))
    (run.path / "spec.json").write_text('{"kind": "distil"}')
    assert work(Run(run.path), [count]) == USER_ERROR
    assert "must be one of" in run.status().error["message"]


def test_nothing_here_imports_torch():
    code = "import sys, core.runs.control, core.runs.worker, core.runs.machine; assert not {'torch','transformers','datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
