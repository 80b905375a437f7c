"""Goals on the targets page: what a measure assumes can be set, and a speed is called estimated until a run has measured it."""

import dataclasses
from pathlib import Path

import pytest

from app.state import Draft
from core.files import write_json
from core.runs.folder import Run
from core.specs import Goal, Targets
from tests.app.ready import draft_in, make_model, open_page, rerun, said, whole
from tests.synthetic_runs import make_run

NARROW = Targets(intermediate_size=20)


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    return Draft(model=str(make_model(tmp_path / "small")))


def measured_run(draft: Draft, targets: Targets, decode: tuple[float, float]) -> Run:
    run = make_run("done", spec=dataclasses.replace(draft, targets=targets).run_spec(kind="prune"))
    speeds = {
        role: {"tokens_per_second": {"decode": rate, "prefill": 100.0}} for role, rate in zip(("teacher", "pruned"), decode, strict=True)
    }
    write_json(run.path / "results.json", speeds)
    return run


@pytest.mark.parametrize(
    ("measure", "fields"),
    [("parameters", ()), ("weights", ("dtype",)), ("memory", ("dtype", "context", "batch")), ("flops", ("context",)), ("reading", ("context",))],
)  # fmt: skip
def test_what_a_measure_assumes_is_a_field_and_goes_into_the_draft(draft: Draft, measure: str, fields: tuple[str, ...]) -> None:
    at = open_page("targets", dataclasses.replace(draft, goal=Goal(measure=measure, at_most="80%")))
    shown = {element.key for kind in ("selectbox", "number_input") for element in at.get(kind)}
    assert {field for field in ("dtype", "context", "batch") if f"w_goal_{field}" in shown} == set(fields)
    for field, (kind, value) in {"dtype": ("selectbox", "int8"), "context": ("number_input", 100), "batch": ("number_input", 7)}.items():
        if field in fields:
            getattr(at, kind)(key=f"w_goal_{field}").set_value(value)
            rerun(at)
            assert getattr(draft_in(at).goal, field) == value


def test_a_speed_is_estimated_until_a_run_of_these_sizes_has_measured_it(draft: Draft) -> None:
    measured_run(draft, Targets(intermediate_size=24), (50.0, 99.0))
    at = open_page("targets", dataclasses.replace(draft, targets=NARROW, goal=Goal(measure="writing", at_most="1.1x")))
    assert "≈ 1." in said(at)
    assert "estimated; asked for 1.10x. Not measured yet" in said(at)
    measured_run(draft, NARROW, (50.0, 75.0))
    whole(at)
    assert "Measured: 1.50x" in said(at)


def test_sizes_are_found_for_a_speed(draft: Draft) -> None:
    at = open_page("targets", dataclasses.replace(draft, goal=Goal(context=16)))
    at.selectbox(key="w_goal_measure").set_value("reading")
    rerun(at)
    at.text_input(key="w_goal_at_most").set_value("1.2x")
    rerun(at)
    at.button(key="goal_find").click()
    rerun(at)
    assert draft_in(at).targets.intermediate_size is not None
    assert "asked for 1.20x" in said(at)
    at.text_input(key="w_goal_at_most").set_value("90x")
    rerun(at)
    at.button(key="goal_find").click()
    rerun(at)
    assert "90x as fast at reading a prompt (estimated) cannot be reached" in said(at)
