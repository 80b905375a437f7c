import dataclasses
import json
import shutil
import time
from pathlib import Path

import pytest

from core.errors import UserError
from core.runs.folder import Run, RunGone, all_runs, create, find
from core.runs.machine import memory_bytes
from core.specs import DistillSpec, RunSpec
from core.workspace import room


def test_a_new_run_is_named_by_time_kind_and_spec_and_twins_are_told_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "strftime", lambda *_: "20250131-235959")
    spec = RunSpec(kind="prune")
    first, second = create(spec), create(spec)
    assert first.id == f"20250131-235959-prune-{spec.identity().split('-')[1][:6]}"
    assert second.id == f"{first.id}-2"
    assert first.spec == spec
    assert first.status().state == "queued"


def test_a_spec_with_problems_makes_no_folder():
    with pytest.raises(UserError, match="steps"):
        create(RunSpec(distill=DistillSpec(steps=-1)))
    assert all_runs() == []


def test_an_unknown_field_in_spec_json_is_named():
    run = create(RunSpec())
    (run.path / "spec.json").write_text(json.dumps({"kind": "prune", "colour": "green"}))
    with pytest.raises(UserError, match="'colour'"):
        _ = Run(run.path).spec


def test_a_spec_json_that_is_no_spec_is_refused_with_its_path():
    run = create(RunSpec())
    for text in ("{", "[1]"):
        (run.path / "spec.json").write_text(text)
        with pytest.raises(UserError, match=str(run.path)):
            _ = Run(run.path).spec


def test_all_runs_lists_the_newest_first_and_passes_over_foreign_folders():
    runs = [create(RunSpec(name=name)) for name in ("z", "a", "m")]
    (room("runs") / "notes").mkdir()
    (room("runs") / "file.txt").touch()
    shutil.copytree(runs[0].path, room("runs") / ".deleted-x")
    assert all_runs() == runs[::-1]


def test_a_run_is_found_by_its_id_and_by_its_folder():
    run = create(RunSpec())
    assert find(run.id) == run
    assert find(str(run.path)) == run
    with pytest.raises(UserError, match="no run 'elsewhere'"):
        find("elsewhere")


def test_a_run_without_results_has_none_and_an_empty_log():
    run = create(RunSpec())
    assert (run.results(), run.generations(), run.events(), run.log_tail()) == ({}, {}, ([], 0), "")


def test_the_log_tail_starts_with_a_whole_line():
    run = create(RunSpec())
    run.write_log("first line\nsecond line\nthird line")
    assert run.log_tail(26) == "second line\nthird line\n"
    assert run.log_tail(15) == "third line\n"


def test_reading_a_deleted_run_says_that_it_is_gone():
    run = create(RunSpec())
    shutil.rmtree(run.path)
    for read in (run.status, run.results, run.generations, lambda: run.spec):
        with pytest.raises(RunGone, match=run.id):
            read()


def test_a_status_with_fields_of_a_later_version_is_still_read():
    run = create(RunSpec())
    data = dataclasses.asdict(run.last_word()) | {"temperature_of_the_room": 21}
    (run.path / "status.json").write_text(json.dumps(data))
    assert run.status().state == "queued"


def test_a_worker_that_held_nearly_all_memory_is_said_to_have_run_out_of_it():
    run = create(RunSpec())
    with run.hold():
        run.write_status(dataclasses.replace(run.last_word(), state="running", phase="distill", memory_bytes=int(memory_bytes() * 0.95)))
    error = run.status().error
    assert "ran out of memory" in error["message"]
    assert "smaller batch" in error["hint"]


def test_a_cancel_file_made_by_hand_means_stop_and_keep():
    run = create(RunSpec())
    assert run.cancel_request() is None
    for text in ("", "1"):
        Path(run.path / "cancel").write_text(text)
        assert run.cancel_request()["keep"] is True
