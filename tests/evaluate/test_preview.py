"""Laws of the preview: it tells what the cut would give, it is measured once, and its progress only goes forward."""

from pathlib import Path
from typing import Any

import pytest

from core.evaluate import preview, store
from core.evaluate.measure import measure, reference
from core.evaluate.preview import Previewer
from core.model.checkpoint import full_config, load_model, load_tokenizer
from core.plan.plan import Plan, make_plan
from core.progress import Silent, Stopped
from core.prune.export import prune_checkpoint
from core.score.scoring import score_model
from core.specs import RankSpec, ScoreSpec, Targets
from tests.tiny import random_blocks, save_tiny

TEXTS = {"here": random_blocks(5, 19, seed=1), "elsewhere": random_blocks(3, 19, seed=2)}
CUTS = {
    "layers": Targets(num_hidden_layers=3),
    "neurons": Targets(intermediate_size=13),
    "channels": Targets(hidden_size=18),
    "all": Targets(num_hidden_layers=4, num_key_value_heads=2, num_attention_heads=2, intermediate_size=17, hidden_size=12),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model")


def plan_of(folder: Path, targets: Targets) -> Plan:
    scores = score_model(load_model(folder), random_blocks(2, 16), ScoreSpec(ppl_blocks=0, shards=1))
    return make_plan(scores, full_config(folder), targets, RankSpec())


@pytest.mark.parametrize("axis", CUTS)
def test_what_is_measured_by_masks_is_what_the_cut_model_measures(folder: Path, axis: str, tmp_path: Path) -> None:
    plan = plan_of(folder, CUTS[axis])
    told = Previewer(folder, TEXTS, device="cpu").plan(plan)
    prune_checkpoint(folder, plan, tmp_path / "pruned", {}, Silent())
    pruned, teacher = load_model(tmp_path / "pruned"), load_model(folder)
    for name, blocks_NT in TEXTS.items():
        found = measure(pruned, blocks_NT, load_tokenizer(folder), teacher=reference(teacher, blocks_NT))
        assert found["kl_nats"] > 0.01, "the cut changes something"
        for figure in ("loss_nats", "kl_nats", "top1_agreement"):
            assert told[name][figure] == pytest.approx(found[figure], rel=1e-3, abs=1e-4), figure


def test_the_teacher_does_not_differ_from_itself_and_is_left_as_it_was(folder: Path) -> None:
    previewer = Previewer(folder, TEXTS, device="cpu")
    before = previewer.teacher()
    previewer.plan(plan_of(folder, CUTS["all"]))
    again = measure(previewer.model, TEXTS["here"], load_tokenizer(folder))
    assert all(found["kl_nats"] == pytest.approx(0, abs=1e-6) and found["top1_agreement"] == 1 for found in before.values())
    assert again["loss_nats"] == before["here"]["loss_nats"]


def test_what_was_measured_is_answered_without_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(folder, CUTS["neurons"])
    first = Previewer(folder, TEXTS, device="cpu").plan(plan)
    monkeypatch.setattr(preview, "load_model", lambda *_: pytest.fail("the model was loaded"))
    assert Previewer(folder, TEXTS, device="cpu").plan(plan) == first


def test_a_text_more_measures_only_that_text_and_the_teacher_is_asked_once_for_each(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = preview.final_states
    monkeypatch.setattr(
        preview, "final_states", lambda model, blocks_NT, **more: asked.append(len(blocks_NT)) or real(model, blocks_NT, **more)
    )
    Previewer(folder, {"here": TEXTS["here"]}, device="cpu").plan(plan_of(folder, CUTS["neurons"]))
    Previewer(folder, TEXTS, device="cpu").plan(plan_of(folder, CUTS["neurons"]))
    Previewer(folder, TEXTS, device="cpu").plan(plan_of(folder, CUTS["layers"]))
    assert asked == [5, 3]


def test_two_plans_that_keep_the_same_are_one(folder: Path) -> None:
    one, other = (plan_of(folder, targets) for targets in (CUTS["neurons"], Targets(intermediate_size=13, hidden_size=24)))
    assert one.targets != other.targets
    first = Previewer(folder, TEXTS, device="cpu").plan(one)
    assert Previewer(folder, TEXTS, device="cpu").plan(other) is not first
    assert len(list(store.room("measured").iterdir())) == len(TEXTS)


def test_a_damaged_file_is_measured_anew(folder: Path) -> None:
    plan = plan_of(folder, CUTS["neurons"])
    first = Previewer(folder, TEXTS, device="cpu").plan(plan)
    for path in store.room("measured").iterdir():
        path.write_text('{"loss_nats": 1')
    assert Previewer(folder, TEXTS, device="cpu").plan(plan) == first


class Watching(Silent):
    """Keeps what it is told, and may ask to stop."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.told: list[tuple[int, int]] = []
        self.stop_at = stop_at

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        self.told.append((done, total))
        if len(self.told) == self.stop_at:
            raise Stopped


def test_progress_only_goes_forward_and_ends_at_its_total_whatever_is_stored(folder: Path) -> None:
    plan, left = plan_of(folder, CUTS["neurons"]), []
    for _ in range(3):
        watching = Watching(stop_at=5 if not left else None)
        try:
            Previewer(folder, TEXTS, device="cpu", batch_size=2, progress=watching).plan(plan)
        except Stopped:
            left.append("stopped")
            assert watching.told[-1][0] < watching.told[-1][1]
            continue
        left.append("done")
        assert watching.told == sorted(watching.told)
        assert not watching.told or watching.told[-1][0] == watching.told[-1][1]
    assert left == ["stopped", "done", "done"]
