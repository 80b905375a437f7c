"""Laws of the fleet: on a real Ray cluster of two workers the figures are those of one process, in their order, and are kept here."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import UserError
from core.evaluate import store
from core.evaluate.preview import Previewer
from core.model.checkpoint import full_config, load_model
from core.plan.plan import Plan, keep_masks, make_plan
from core.progress import Silent, Stopped
from core.score.scoring import score_model
from core.search import finals, fleet
from core.search.checkpoints import Checkpoints
from core.search.ledger import Row
from core.search.lesson import Lessons, same_for_all
from core.search.retrain import Halving
from core.specs import DistillSpec, RankSpec, RepairSpec, ScoreSpec, Targets
from tests.tiny import random_blocks, save_tiny

TEXTS = {"compared": random_blocks(5, 19, seed=1)}


@pytest.fixture
def folder(workspace: Path, tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model")


def plans_of(folder: Path) -> list[Plan]:
    scores = score_model(load_model(folder), random_blocks(2, 16), ScoreSpec(ppl_blocks=0, shards=1))
    return [make_plan(scores, full_config(folder), Targets(intermediate_size=size), RankSpec()) for size in (9, 13, 17, 21)]


def name_of(plan: Plan) -> str:
    return store.kept(keep_masks(plan))


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_two_workers_measure_what_one_process_does_and_it_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    previewer, plans = Previewer(folder, TEXTS, device="cpu"), plans_of(folder)
    alone = [previewer.plan(plan) for plan in plans]
    monkeypatch.setenv("COPPICE_WORKSPACE", str(tmp_path / "another"))
    assert not any(previewer.stored(name_of(plan)) for plan in plans)
    with fleet.doing(previewer, 2) as each:
        assert list(fleet.measured(plans, previewer, each)) == alone, "in the order of the plans"
        assert all(previewer.stored(name_of(plan)) == figures for plan, figures in zip(plans, alone, strict=True))
        assert list(fleet.measured(plans, previewer, lambda tasks: iter(list(map(pytest.fail, tasks))))) == alone, "nobody is asked twice"


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_a_worker_that_cannot_measure_says_why(folder: Path, tmp_path: Path) -> None:
    previewer, plans = Previewer(folder, TEXTS, device="cpu"), plans_of(folder)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with (
        fleet.doing(previewer, 2) as each,
        pytest.raises(UserError, match=r"could not finish a candidate: .*model.safetensors.*resume"),
    ):
        list(fleet.measured(plans, previewer, each))


def trained(previewer: Previewer, plans: list[Plan], place: Path, workers: int) -> list[Row]:
    """The finalists after repair and halving."""
    rows: list[Row] = [{"number": i + 1, "targets": plan.targets.to_dict()} for i, plan in enumerate(plans)]
    made = Checkpoints(place=place, blocks_NT=random_blocks(8, 32, seed=5), spec=RepairSpec(method="closed"))
    learning = same_for_all(DistillSpec(learning_rate=1e-3, checkpoint_every=50, evaluate_every=50), steps=2)
    lessons = Lessons(train_NT=random_blocks(6, 16, seed=3), spec=learning, checkpoints=made)
    numbered = dict(enumerate(plans, 1))
    with fleet.doing(previewer, workers) as each:
        finals.repair(rows, numbered, made, previewer, previewer, lambda: None, Silent(), each)
        Halving(lessons, each, Silent()).run(rows, numbered, lambda: None)
    return rows


@pytest.mark.whole
@pytest.mark.timeout(600)
def test_two_workers_repair_and_retrain_finalists_as_one_process_does(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = plans_of(folder)
    alone = trained(Previewer(folder, TEXTS, device="cpu"), plans, tmp_path / "alone", 1)
    monkeypatch.setenv("COPPICE_WORKSPACE", str(tmp_path / "another"))  # nothing is known there, so everything is done again
    together = trained(Previewer(folder, TEXTS, device="cpu"), plans, tmp_path / "together", 2)
    assert together == alone
    assert [len(row["retrained"]) for row in alone].count(2) == 2, "halving went on after the first round"


class Impatient(Silent):
    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        raise Stopped


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_a_wish_to_stop_is_heard_while_workers_work(folder: Path) -> None:
    previewer = Previewer(folder, TEXTS, device="cpu", progress=Impatient())
    with pytest.raises(Stopped), fleet.doing(previewer, 2) as each:
        next(each([sleep_long]))


def sleep_long(previewer: Previewer) -> None:
    time.sleep(200)


def test_a_task_that_ran_out_of_time_is_no_reason_to_wait_for_ever(folder: Path) -> None:
    class RayError(Exception): ...

    class Both(RayError, TimeoutError): ...

    def fails(timeout: float) -> None:
        raise Both("the disk did not answer")

    ray = SimpleNamespace(exceptions=SimpleNamespace(RayError=RayError))
    with pytest.raises(UserError, match="the disk did not answer"):
        fleet.Fleet(ray, [], Previewer(folder, TEXTS))._next(SimpleNamespace(get_next=fails))


def test_one_worker_is_this_process_and_more_without_ray_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    previewer, plans = Previewer(folder, TEXTS, device="cpu"), plans_of(folder)
    with fleet.doing(previewer, 1) as each:
        assert list(fleet.measured(plans, previewer, each)) == [previewer.plan(plan) for plan in plans]
    with pytest.raises(UserError, match="pip install ray=="), fleet.doing(previewer, 2):
        pass


def test_a_cluster_that_does_not_answer_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"No Ray cluster answers at RAY_ADDRESS=127\.0\.0\.1:1"), fleet.fleet(Previewer(folder, TEXTS), 2):
        pass
