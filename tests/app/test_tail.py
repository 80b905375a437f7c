"""All tabs of a server share one reading of a run's diary."""

import pytest

from app import tail
from app.tail import Tail
from core.runs.folder import Run
from tests.synthetic_runs import make_run, step_event, write_events


@pytest.fixture
def run() -> Run:
    return make_run("interrupted", steps=5)


def test_what_one_tab_holds_does_not_change_when_another_reads_on(run: Run) -> None:
    shared = Tail()
    first = shared.read(run, live=False)
    write_events(run, [step_event(1000.0 + step, step) for step in (6, 7)])
    assert shared.read(run, live=False).steps == list(range(1, 8))
    assert first.steps == list(range(1, 6))


def test_nothing_is_read_again_while_all_is_known(run: Run) -> None:
    shared = Tail()
    first = shared.read(run, live=False)
    assert shared.read(run, live=False) is first


def test_a_living_run_is_read_at_most_once_a_moment_and_a_finished_one_always(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(tail.time, "monotonic", lambda: now[0])
    shared = Tail()
    shared.read(run, live=True)
    write_events(run, [step_event(1000.0, 6)])
    assert shared.read(run, live=True).steps[-1] == 5
    now[0] += tail.FRESH_SECONDS
    assert shared.read(run, live=True).steps[-1] == 6
    write_events(run, [step_event(1001.0, 7)])
    assert shared.read(run, live=False).steps[-1] == 7, "the end of a run is never held back"


def test_another_diary_in_the_place_of_the_one_read_is_begun_anew(run: Run) -> None:
    shared = Tail()
    shared.read(run, live=False)
    (run.path / "events.jsonl").write_bytes(b"")
    assert shared.read(run, live=False).steps == []
    write_events(run, [step_event(1.0, 1)])
    assert shared.read(run, live=False).steps == [1]
