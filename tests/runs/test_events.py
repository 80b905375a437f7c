from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from core.runs.events import EventLog, read_events


def test_events_are_read_on_from_where_the_last_reading_ended(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append(phase="score", done=1, total=2)
        first, offset = read_events(path)
        log.append(note="ein Gruß")
        second, end = read_events(path, offset)
    assert [event["done"] for event in first] == [1]
    assert [event["note"] for event in second] == ["ein Gruß"]
    assert read_events(path, end) == ([], end)


def test_half_a_line_waits_for_its_end(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"done": 1}\n{"do')
    events, offset = read_events(path)
    assert events == [{"done": 1}]
    path.write_bytes(b'{"done": 1}\n{"done": 2}\n')
    assert read_events(path, offset)[0] == [{"done": 2}]


def test_a_line_torn_by_a_crash_is_closed_by_the_next_writer_and_passed_over_by_readers(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"done": 1}\n{"note": "\xc3')
    with EventLog(path) as log:
        log.append(segment=2)
    events, _ = read_events(path)
    assert [event.get("done", event.get("segment")) for event in events] == [1, 2]


def test_a_file_that_became_shorter_is_read_from_its_start(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"done": 1}\n')
    assert read_events(path, 999) == ([{"done": 1}], 12)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_is_told_in_a_sentence(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.symlink_to("/dev/full")
    with EventLog(path) as log, pytest.raises(UserError, match="is full"):
        log.append(segment=1)


def test_numbers_of_arrays_become_plain_and_what_is_not_finite_becomes_null(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append(loss=np.float32(0.5), kl=float("nan"), heldout={"sotu": {"loss": np.array([1.0, np.inf])}})
    event = read_events(path)[0][0]
    assert (event["loss"], event["kl"], event["heldout"]) == (0.5, None, {"sotu": {"loss": [1.0, None]}})
