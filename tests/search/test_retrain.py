"""Laws of halving: the worse half goes, those that stay learn twice as long, and a resumed one ends like an undisturbed one."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from core.distill import teacher
from core.evaluate import store
from core.evaluate.preview import Previewer
from core.model.checkpoint import full_config, load_model
from core.plan.plan import Plan, make_plan
from core.progress import Silent, Stopped
from core.score.scoring import score_model
from core.search import finals
from core.search.checkpoints import Checkpoints
from core.search.fleet import Each
from core.search.ledger import Row, best, standing
from core.search.lesson import Lessons, same_for_all
from core.search.retrain import Halving, trainings
from core.specs import DistillSpec, RankSpec, RepairSpec, ScoreSpec, Targets
from tests.tiny import random_blocks, save_tiny

CUTS = (Targets(intermediate_size=20), Targets(num_hidden_layers=2), Targets(hidden_size=18), Targets(num_key_value_heads=2))
SPEC = DistillSpec(steps=2, learning_rate=1e-3, checkpoint_every=50, evaluate_every=50)


class Watching(Silent):
    def __init__(self, stop_at: int | None = None) -> None:
        self.told: list[tuple[str, int, int]] = []
        self.stop_at = stop_at

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        if phase == "retrain":
            self.told.append((phase, done, total))
            if done == self.stop_at:
                raise Stopped


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model", num_hidden_layers=3)


def finalists(folder: Path) -> tuple[list[Row], dict[int, Plan], Previewer]:
    scores = score_model(load_model(folder), random_blocks(2, 16), ScoreSpec(ppl_blocks=0, shards=1))
    plans = {i: make_plan(scores, full_config(folder), targets, RankSpec()) for i, targets in enumerate(CUTS, 1)}
    previewer = Previewer(folder, {"compared": random_blocks(3, 16, seed=9)}, device="cpu")
    rows = [{"number": i, "targets": plan.targets.to_dict(), **previewer.plan(plan)["compared"]} for i, plan in plans.items()]
    return sorted(rows, key=standing), plans, previewer


def checkpoints(place: Path, method: str = "none") -> Checkpoints:
    blocks_NT, spec = random_blocks(8, 32, seed=5), RepairSpec(method=method)
    return Checkpoints(place=place, blocks_NT=blocks_NT, spec=spec)


def alone(previewer: Previewer) -> Each:
    return lambda tasks: (task(previewer) for task in tasks)


def lessons(made: Checkpoints, **changed: Any) -> Lessons:
    train_NT = changed.pop("train_NT", random_blocks(6, 16, seed=3))
    return Lessons(train_NT=train_NT, spec=dataclasses.replace(SPEC, **changed), checkpoints=made)


def halve(place: Path, rows: list[Row], plans: dict[int, Plan], previewer: Previewer, watching: Watching) -> None:
    Halving(lessons(checkpoints(place)), alone(previewer), watching).run(rows, plans, lambda: None)


def test_the_worse_half_goes_and_the_rest_learns_twice_as_long(folder: Path, tmp_path: Path) -> None:
    rows, plans, previewer = finalists(folder)
    watching = Watching()
    halve(tmp_path / "place", rows, plans, previewer, watching)
    rounds = [[one["steps"] for one in row["retrained"]] for row in rows]
    assert sorted(map(len, rounds)) == [1, 1, 2, 2]
    assert all(steps == [2, 6][: len(steps)] for steps in rounds)
    stayed = {row["number"] for row in rows if len(row["retrained"]) == 2}
    assert stayed == {row["number"] for row in sorted(rows, key=lambda row: row["retrained"][0]["kl_nats"])[:2]}
    winner = best(rows)
    assert winner is not None
    assert winner["retrained"][-1]["kl_nats"] == min(row["retrained"][-1]["kl_nats"] for row in rows if row["number"] in stayed)
    assert watching.told[-1][1:] == (6, 6) == (trainings(4), trainings(4))
    assert not (tmp_path / "place").exists()


def test_learning_brings_every_candidate_nearer_to_the_teacher(folder: Path, tmp_path: Path) -> None:
    rows, plans, previewer = finalists(folder)
    text_NT = previewer.texts["compared"]
    learning = lessons(checkpoints(tmp_path / "place"), steps=12, train_NT=text_NT)
    Halving(learning, alone(previewer), Silent()).run(rows, plans, lambda: None)
    assert all(row["retrained"][0]["kl_nats"] < row["kl_nats"] for row in rows)


@pytest.mark.parametrize("stopped_at", [1, 4, 5])
def test_stopped_and_resumed_it_ends_like_an_undisturbed_one(folder: Path, tmp_path: Path, stopped_at: int) -> None:
    rows, plans, previewer = finalists(folder)
    disturbed = copy.deepcopy(rows)
    halve(tmp_path / "undisturbed", rows, plans, previewer, Watching())
    for path in store.room("measured").iterdir():
        path.unlink()
    with pytest.raises(Stopped):
        halve(tmp_path / "disturbed", disturbed, plans, previewer, Watching(stopped_at))
    halve(tmp_path / "disturbed", disturbed, plans, previewer, Watching())
    assert disturbed == rows


def test_one_finalist_needs_no_training(folder: Path, tmp_path: Path) -> None:
    rows, plans, previewer = finalists(folder)
    halve(tmp_path / "place", rows[:1], plans, previewer, Watching())
    assert "retrained" not in rows[0]


def test_repaired_finalists_are_compared_as_what_they_became_and_learn_on_from_there(folder: Path, tmp_path: Path) -> None:
    rows, plans, previewer = finalists(folder)
    heldout, made = (
        Previewer(folder, {"unseen": random_blocks(3, 16, seed=7)}, device="cpu"),
        checkpoints(tmp_path / "place", "closed"),
    )
    finals.repair(rows, plans, made, previewer, heldout, lambda: None, Silent(), alone(previewer))
    for row in rows:
        model = load_model(made.cut(row["number"], plans[row["number"]], previewer))
        text = Previewer(folder, {"again": previewer.texts["compared"]}, device="cpu").of(model, f"by hand {row['number']}")["again"]
        assert row["repaired"]["kl_nats"] == pytest.approx(text["kl_nats"]), "the figures are those of the model that lies there"
        assert set(row["heldout"]) == {"unseen"}
    winner = min(rows, key=lambda row: row["repaired"]["kl_nats"])
    assert best(rows) is winner
    known = copy.deepcopy(rows)
    finals.repair(rows, plans, made, previewer, heldout, lambda: pytest.fail("nothing is done twice"), Silent(), alone(previewer))
    assert rows == known
    Halving(lessons(made), alone(previewer), Silent()).run(rows, plans, lambda: None)
    assert not made.place.exists()
    bare, plain, _ = finalists(folder)
    halve(tmp_path / "bare", bare, plain, previewer, Watching())
    first = {row["number"]: row["retrained"][0]["kl_nats"] for row in bare}
    assert all(row["retrained"][0]["kl_nats"] != first[row["number"]] for row in rows), "retraining begins with the repaired model"


def test_another_search_does_not_repair_what_was_measured_before(folder: Path, tmp_path: Path) -> None:
    rows, plans, previewer = finalists(folder)
    heldout = Previewer(folder, {"unseen": random_blocks(3, 16, seed=7)}, device="cpu")
    again = copy.deepcopy(rows)
    finals.repair(rows, plans, checkpoints(tmp_path / "one", "closed"), previewer, heldout, lambda: None, Silent(), alone(previewer))
    other = checkpoints(tmp_path / "another", "closed")
    finals.repair(again, plans, other, previewer, heldout, lambda: None, Silent(), alone(previewer))
    assert again == rows
    assert not other.place.exists(), "nothing was cut"


def test_the_teacher_is_asked_once_for_each_block_by_all_candidates_together(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = teacher.Teacher._ask
    monkeypatch.setattr(teacher.Teacher, "_ask", lambda self, tokens_BT: (asked.append(len(tokens_BT)), ask(self, tokens_BT))[1])
    rows, plans, previewer = finalists(folder)
    spec = same_for_all(SPEC, steps=4)
    assert (spec.steps, spec.intermediate, spec.teacher_cache) == (4, (), "float32")
    assert same_for_all(dataclasses.replace(SPEC, teacher_cache="bfloat16"), 4).teacher_cache == "bfloat16"
    Halving(lessons(checkpoints(tmp_path / "place"), **vars(spec)), alone(previewer), Silent()).run(rows, plans, lambda: None)
    assert sum(asked) == 6, "six blocks, four candidates, six trainings of four and eight steps"
    bare, _, _ = finalists(folder)
    uncached = lessons(checkpoints(tmp_path / "bare"), **vars(dataclasses.replace(spec, teacher_cache="off")))
    Halving(uncached, alone(previewer), Silent()).run(bare, plans, lambda: None)
    assert [row["retrained"] for row in bare] == [row["retrained"] for row in rows], "and nothing else changes"
