"""Several regrowths in one picture: each begins at its pruned model and is measured against its own teacher."""

import pytest

from core.report.curves import Curves
from core.report.regrowth_figures import Regrowth, regrowth_picture
from core.specs import DataSpec, DistillSpec, RunSpec
from tests.synthetic_runs import PRUNED_LOSS, TEACHER_LOSS, loss_at, results, step_event

SPEC = RunSpec(kind="distill", data=DataSpec(seq_len=64), distill=DistillSpec(batch_blocks=2, accumulation=3))


def regrowth(name: str, steps: int = 60, spec: RunSpec = SPEC) -> Regrowth:
    return Regrowth(
        name, spec, Curves().extend(step_event(120.0 * step, step) for step in range(1, steps + 1)), results(("teacher", "pruned"))
    )


def test_a_line_begins_at_the_pruned_model_and_is_counted_from_its_own_teacher() -> None:
    picture = regrowth_picture([regrowth("A")], "sotu")
    line = picture.figure.data[0]
    assert list(line.x) == [0, 1, 10, 20, 30, 40, 50, 60]
    assert line.y[0] == pytest.approx(PRUNED_LOSS["sotu"] - TEACHER_LOSS["sotu"])
    assert line.y[-1] == pytest.approx(loss_at("sotu", 60) - TEACHER_LOSS["sotu"])
    assert "A from 2.10 nats to" in picture.alt
    assert len(picture.table) == 8


@pytest.mark.parametrize(("along", "last"), [("steps", 60.0), ("tokens", 60 * 2 * 3 * 64.0), ("minutes", 2.0 * 59)])
def test_runs_are_aligned_by_what_is_asked_for(along: str, last: float) -> None:
    assert regrowth_picture([regrowth("A")], "sotu", along=along).figure.data[0].x[-1] == pytest.approx(last)


def test_the_time_between_a_stop_and_its_resume_does_not_count() -> None:
    events = [step_event(120.0 * step, step) for step in range(1, 31)] + [{"time": 90_000.0, "segment": 2}]
    events += [step_event(90_000.0 + 120.0 * step, 30 + step) for step in range(1, 31)]
    run = Regrowth("A", SPEC, Curves().extend(events), results(("teacher", "pruned")))
    assert regrowth_picture([run], "sotu", along="minutes").figure.data[0].x[-1] == pytest.approx(2.0 * 59)


def test_runs_are_told_apart_by_more_than_colour() -> None:
    lines = regrowth_picture([regrowth(name) for name in "ABCD"], "sotu").figure.data
    assert len({(line.line.dash, line.marker.symbol) for line in lines}) == 4


def test_a_run_that_was_not_measured_on_the_way_has_no_points_and_without_any_it_is_said() -> None:
    bare = Regrowth("B", SPEC, Curves(), results(("teacher", "pruned")))
    assert regrowth_picture([regrowth("A"), bare], "sotu").table["run"].unique().tolist() == ["A"]
    empty = regrowth_picture([bare], "sotu")
    assert empty.table.empty
    assert "No run was measured" in empty.alt
