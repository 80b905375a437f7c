import itertools

import pytest

from core.runs import control
from core.runs.slots import queue_position, slot_name
from tests.runs.counting import begin, counted, spec, wait_for, wait_until_counting


def test_runs_on_one_device_go_one_after_another_in_the_order_in_which_they_were_made():
    runs = [begin(f"40 {name}") for name in ("a", "b", "c")]
    wait_until_counting(runs[0])
    assert [queue_position(run) for run in runs] == [0, 1, 2]
    for run in runs:
        wait_for(run, "done")
    spans = [(run.status().started, run.status().finished) for run in runs]
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))
    assert any(f"Waiting for run {runs[0].id}" in event.get("note", "") for event in runs[1].events()[0])


def test_a_cancelled_run_leaves_the_queue_at_once_without_having_worked():
    first = begin("500 first")
    wait_until_counting(first)
    second = begin("500 second")
    wait_for(second, "queued")
    control.cancel(second)
    wait_for(second, "stopped", seconds=10)
    assert counted(second) == []
    assert first.status().state == "running"


def test_another_device_is_another_queue():
    first, second = begin("500"), begin("5", device="cuda:1")
    wait_for(second, "done")
    assert first.status().live


@pytest.mark.parametrize(
    ("device", "slot"),
    [("auto", "default"), ("cpu", "default"), ("mps", "default"), ("cuda", "default"), ("cuda:0", "default"), ("cuda:1", "cuda-1")],
)
def test_names_of_one_device_share_one_slot(device: str, slot: str):
    assert slot_name(device) == slot
    assert spec("1", device=device).check()
