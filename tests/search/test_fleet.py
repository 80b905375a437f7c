"""Laws of the fleet: on a real Ray cluster of two workers the figures are those of one process, in their order, and are kept here."""

import sys
from pathlib import Path

import pytest

from core.errors import UserError
from core.evaluate import store
from core.evaluate.preview import Previewer
from core.model.checkpoint import full_config, load_model
from core.plan.plan import Plan, keep_masks, make_plan
from core.score.scoring import score_model
from core.search import fleet
from core.specs import RankSpec, ScoreSpec, Targets
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
    with fleet.fleet(previewer, 2) as many:
        assert list(many.plans(plans)) == alone, "in the order of the plans"
        assert all(previewer.stored(name_of(plan)) == figures for plan, figures in zip(plans, alone, strict=True))
        many.actors = []  # nobody is left to ask
        assert list(many.plans(plans)) == alone


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_a_worker_that_cannot_measure_says_why(folder: Path, tmp_path: Path) -> None:
    previewer, plans = Previewer(folder, TEXTS, device="cpu"), plans_of(folder)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with fleet.fleet(previewer, 2) as many, pytest.raises(UserError, match=r"could not measure a candidate: .*model.safetensors.*resume"):
        list(many.plans(plans))


def test_one_worker_is_this_process_and_more_without_ray_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    previewer, plans = Previewer(folder, TEXTS, device="cpu"), plans_of(folder)
    with fleet.measuring(previewer, 1) as measure:
        assert list(measure(plans)) == [previewer.plan(plan) for plan in plans]
    with pytest.raises(UserError, match="pip install ray=="), fleet.measuring(previewer, 2):
        pass


def test_a_cluster_that_does_not_answer_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"No Ray cluster answers at RAY_ADDRESS=127\.0\.0\.1:1"), fleet.fleet(Previewer(folder, TEXTS), 2):
        pass
