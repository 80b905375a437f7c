import os
import shutil
import threading
import time

import psutil
import pytest

from core.errors import UserError
from core.files import read_json, write_json
from core.runs import control
from core.runs.control import Patience
from core.runs.folder import Run, RunGone, all_runs, create
from core.runs.status import Status
from core.runs.worker import work
from core.workspace import room
from tests.runs.counting import COMMAND, begin, count, go_on, spec, wait_for, wait_until_asleep, wait_until_counting


def test_starting_the_same_spec_twice_at_once_starts_one_run():
    runs: list[Run] = []
    clicks = [threading.Thread(target=lambda: runs.append(begin("500"))) for _ in range(3)]
    for click in clicks:
        click.start()
    for click in clicks:
        click.join()
    assert len(set(runs)) == 1
    assert all_runs() == [runs[0]]
    assert begin("500 other") != runs[0]


def test_a_finished_run_does_not_stand_in_the_way_of_the_same_spec():
    first = begin("1")
    wait_for(first, "done")
    assert begin("1") != first


def test_a_worker_that_ignores_cancel_is_killed_in_the_end():
    run = begin("deaf")
    wait_until_asleep(run)
    control.cancel(run)
    assert control.reconcile(run).state == "stopping"
    short = Patience(terminate=0.0, kill=1.0, saving=0.0)
    end = time.monotonic() + 20
    while (status := control.reconcile(run, short)).live:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert status.state == "stopped"
    assert run.last_word().state == "stopped"


def test_a_worker_that_is_saving_is_given_more_time():
    run = begin("deaf-while-saving")
    wait_until_asleep(run)
    control.cancel(run)
    control.escalate(run, Patience(terminate=0.0, kill=0.0, saving=600.0))
    time.sleep(0.3)
    assert run.held()
    assert control.reconcile(run, Patience(terminate=0.0, kill=0.0, saving=600.0)).live
    control.reconcile(run, Patience(terminate=0.0, kill=0.0, saving=0.0))  # how fast a killed process is gone is the system's affair
    wait_for(run, "stopped")


def test_no_signal_goes_to_a_process_that_does_not_work_on_the_run():
    run = create(spec("500"))
    bystander = psutil.Popen(["sleep", "60"])
    with run.hold():
        run.write_status(run.last_word().__class__(state="running", pid=bystander.pid))
        write_json(run.path / "cancel", {"keep": True, "time": 0.0})
        control.escalate(run)
        time.sleep(0.1)
        assert bystander.is_running()
        assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_second_wish_changes_its_mind_but_gives_no_more_time():
    run = begin("deaf")
    wait_until_asleep(run)
    control.cancel(run, keep=True)
    first = read_json(run.path / "cancel")
    control.cancel(run, keep=False)
    assert read_json(run.path / "cancel") == {"keep": False, "time": first["time"]}


def test_discarding_a_run_whose_worker_was_killed_marks_it_at_once_and_frees_its_checkpoints():
    run = begin("500")
    wait_until_counting(run)
    psutil.Process(run.status().pid).kill()
    wait_for(run, "interrupted")
    control.cancel(run, keep=False)
    assert run.last_word().state == "cancelled"
    assert not (run.path / "checkpoints").exists()
    with pytest.raises(UserError, match="nothing to resume"):
        go_on(run)


def test_a_stop_that_a_killed_worker_never_answered_is_put_down_by_a_reader():
    run = begin("deaf")
    wait_until_asleep(run)
    control.cancel(run, keep=False)
    (run.path / "model").mkdir()
    psutil.Process(run.last_word().pid).kill()
    wait_for(run, "cancelled")
    assert run.last_word().live
    assert control.reconcile(run).state == "cancelled"
    assert run.last_word().state == "cancelled"
    assert not (run.path / "model").exists()


def test_resuming_twice_starts_one_worker():
    run = begin("60")
    wait_until_counting(run)
    control.cancel(run)
    wait_for(run, "stopped")
    go_on(run)
    go_on(run)
    wait_for(run, "done")
    assert [event["segment"] for event in run.events()[0] if "segment" in event] == [1, 2]


def test_deleting_frees_the_disk_but_never_a_live_run():
    run = begin("500")
    wait_until_counting(run)
    with pytest.raises(UserError, match="Stop it"):
        control.delete(run)
    control.cancel(run)
    wait_for(run, "stopped")
    size = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    assert control.delete(run) == size
    assert list(room("runs").iterdir()) == control.trash() == []


def test_a_deleted_run_comes_back_whole_until_the_trash_is_emptied():
    run = create(spec("3"))
    control.cancel(run, keep=False)
    run.write_status(Status(state="done"))
    (run.path / "note.txt").write_text("mine")
    control.throw_away(run)
    assert [folder.name for folder in control.trash()] == [run.id]
    assert control.restore(run.id) == run
    assert (run.path / "note.txt").read_text() == "mine"
    size = control.throw_away(run)
    assert control.empty_trash() == size
    assert control.trash() == []
    with pytest.raises(UserError, match="not in the trash any more"):
        control.restore(run.id)


def test_two_deleted_runs_of_one_name_do_not_meet():
    first = create(spec("3"))
    first.write_status(Status(state="done"))
    control.throw_away(first)
    shutil.copytree(control.trash()[0], first.path)
    control.throw_away(first)
    assert len(control.trash()) == 2


def test_every_action_on_a_deleted_run_says_that_it_is_gone():
    run = create(spec("3"))
    shutil.rmtree(run.path)
    for action in (control.reconcile, control.cancel, control.resume, control.delete, control.throw_away, control.launch, work):
        with pytest.raises(RunGone, match="deleted or moved"):
            action(run)


def test_ended_workers_do_not_stay_as_zombies():
    run = begin("1")
    child = next(iter(control._children.values()))
    wait_for(run, "done")
    child.wait()
    control.reconcile(run)
    assert control._children == {}


def test_a_worker_that_cannot_start_becomes_an_interrupted_run_with_its_last_words():
    run = create(spec("3"))
    control.launch(run, command=(COMMAND[0], "-c", "raise SystemExit('no such module')"))
    next(iter(control._children.values())).wait()
    assert run.status().state == "queued"
    os.utime(run.path / "launched", (time.time() - 60, time.time() - 60))
    assert run.status().state == "interrupted"
    assert "before it began" in run.status().error["message"]
    assert "no such module" in run.log_tail()


def test_a_wish_left_while_a_worker_starts_is_heard():
    run = create(spec("500"))
    control.cancel(run)
    assert run.status().state == "stopping"
    work(run, [count])
    assert run.status().state == "stopped"
