"""The strip beside every page says how far a draft is, and why a step is blocked."""

import dataclasses
from pathlib import Path

import pytest

from app.cached import KnownRun
from app.sidebar import BLOCKED, BROKEN, DONE, READY, active_run, steps
from app.state import Draft
from core.runs.status import Status
from core.specs import RunSpec, Targets
from tests.app.ready import make_model, make_scores
from tests.synthetic_runs import held, make_run

CUT = Targets(num_hidden_layers=3)


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    return Draft(model=str(make_model(tmp_path / "small")))


def known(spec: RunSpec, state: str) -> KnownRun:
    """A run in some state, as a page knows it."""
    run = make_run(state, spec=spec)
    return KnownRun(run, run.spec, run.status())


def marks(draft: Draft, runs: list[KnownRun] | None = None) -> list[str]:
    return [step.mark for step in steps(draft, runs or [])]


def test_a_model_that_cannot_be_read_blocks_all_that_follows() -> None:
    assert marks(Draft(model="/nowhere")) == [BROKEN, BLOCKED, BLOCKED, BLOCKED, BLOCKED]


def test_runs_can_be_compared_though_the_drafts_model_is_gone() -> None:
    assert marks(Draft(model="/nowhere"), [known(RunSpec(kind="prune"), "done")])[-1] == DONE


def test_a_model_that_is_only_not_fetched_yet_is_not_called_broken(workspace: Path) -> None:
    assert marks(Draft()) == [READY, BLOCKED, BLOCKED, BLOCKED, BLOCKED]
    assert steps(Draft(), [])[0].said == "fetch the model first"


def test_a_fresh_draft_can_be_scored_and_cut_but_not_run(draft: Draft) -> None:
    assert marks(draft) == [DONE, READY, READY, BLOCKED, BLOCKED]
    assert steps(draft, [])[3].said == "set a target first"


def test_a_scored_and_cut_draft_is_ready_to_run(draft: Draft) -> None:
    make_scores(Path(draft.model), draft)
    cut = dataclasses.replace(draft, targets=CUT)
    assert marks(cut) == [DONE, DONE, DONE, READY, BLOCKED]
    assert steps(cut, [])[2].said == "sizes are set"


def test_impossible_targets_are_marked_and_block_the_run(draft: Draft) -> None:
    wrong = dataclasses.replace(draft, targets=Targets(hidden_size=23))
    assert marks(wrong)[2:4] == [BROKEN, BLOCKED]


def test_a_finished_run_of_the_draft_is_done_and_can_be_compared(draft: Draft) -> None:
    cut = dataclasses.replace(draft, targets=CUT)
    assert marks(cut, [known(cut.run_spec(), "done")])[3:] == [DONE, DONE]
    assert marks(cut, [known(dataclasses.replace(cut, targets=Targets(num_hidden_layers=2)).run_spec(), "done")])[3:] == [READY, DONE]


def test_the_run_at_work_comes_before_those_that_wait(draft: Draft) -> None:
    spec = draft.run_spec(kind="score")
    waiting, working = make_run("queued", spec=spec), make_run("running", spec=dataclasses.replace(spec, name="second"))
    with held(working):
        runs = [KnownRun(run, run.spec, run.status()) for run in (waiting, working)]
        active = active_run(runs)
    assert active is not None
    assert active.run == working
    assert active_run([KnownRun(waiting, spec, Status(state="done"))]) is None
