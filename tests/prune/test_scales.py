"""Laws of learnt scales: they leave no trace but weights, bring predictions nearer, and where they do not, change no bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.model.checkpoint import load_model
from core.model.families import FAMILIES
from core.model.head import head_weight, hidden_states
from core.progress import Silent, Stopped
from core.prune.repair.repair import repair_checkpoint, repair_model
from core.prune.repair.scales import Comparison, Scales, fold, held_back, learn_scales
from core.specs import RepairSpec
from tests.prune.test_prune import AXES, logits, plan_for
from tests.prune.test_repair import BLOCKS, MANY, cut_model, state
from tests.tiny import save_tiny, tiny_model

pytestmark = pytest.mark.usefixtures("workspace")

SPEC = RepairSpec(method="scaled", passes=2, scale_rate=2e-3)


def without_held_back(blocks_NT: np.ndarray) -> np.ndarray:
    return np.delete(blocks_NT, held_back(len(blocks_NT)), axis=0)


def divergence(uncut: torch.nn.Module, cut: torch.nn.Module, blocks: list[int]) -> float:
    ids = torch.from_numpy(MANY[blocks]).long()
    with torch.no_grad():
        aim, found = (model(ids, use_cache=False).logits.double().log_softmax(-1) for model in (uncut, cut))
    return float((aim.exp() * (aim - found)).sum(-1).mean())


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_folded_scales_are_the_scales(kind: str) -> None:
    model = tiny_model(kind)
    scales = Scales(model)
    torch.manual_seed(0)
    values = [0.5 + torch.rand_like(value) for value in scales.values]
    scales.values = values
    with scales, torch.no_grad():
        scaled = logits(model)
    assert not torch.equal(logits(model), scaled), "outside its context nothing is scaled"
    fold(scales, values)
    torch.testing.assert_close(logits(model), scaled, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_the_divergence() -> None:
    teacher = tiny_model()
    student = cut_model(teacher, plan_for(teacher, AXES["channels"]))
    compare = Comparison(student, teacher, torch.from_numpy(BLOCKS).long())
    hidden_TD = hidden_states(student, compare.ids_NT[3][None])[0].detach()
    value, grad_TD = compare._divergence(hidden_TD, 3)
    hidden_TD = hidden_TD.double().requires_grad_()
    aim_TV = (hidden_states(teacher, compare.ids_NT[3][None])[0] @ head_weight(teacher).T).detach().double().log_softmax(-1)
    found_TV = (hidden_TD @ head_weight(student).detach().double().T).log_softmax(-1)
    loss = (aim_TV.exp() * (aim_TV - found_TV)).sum(-1).mean()
    loss.backward()
    assert value == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(grad_TD.double(), hidden_TD.grad, rtol=1e-4, atol=1e-7)


def test_scales_bring_predictions_nearer_by_what_is_told() -> None:
    teacher = tiny_model()
    plan = plan_for(teacher, AXES["neurons"])
    closed, _ = repair_model(teacher, plan, without_held_back(MANY), RepairSpec())
    (first, done), (second, _) = (repair_model(teacher, plan, MANY, SPEC) for _ in range(2))
    told = next(place["gain"] for place in done["places"] if place["place"] == "scales")
    held = held_back(len(MANY))
    assert 0 < told == pytest.approx(1 - divergence(teacher, first, held) / divergence(teacher, closed, held), abs=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert {name: weight.shape for name, weight in state(first).items()} == {name: weight.shape for name, weight in state(closed).items()}


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("axis", ["neurons", "channels", "kv groups"])
def test_as_they_are_by_default_scales_mend_a_cut_that_nothing_was_fitted_to(kind: str, axis: str) -> None:
    teacher = tiny_model(kind)
    student = cut_model(teacher, plan_for(teacher, AXES[axis]))
    before = divergence(teacher, student, held_back(len(MANY)))
    told = learn_scales(student, teacher, MANY, RepairSpec())
    assert 0.2 < told == pytest.approx(1 - divergence(teacher, student, held_back(len(MANY))) / before, abs=1e-4)


@pytest.mark.parametrize(("blocks", "count"), [(1, 0), (2, 1), (3, 1), (15, 1), (16, 1), (33, 2), (64, 4), (128, 8)])
def test_one_block_in_sixteen_is_chosen_by_and_never_the_only_one(blocks: int, count: int) -> None:
    held = held_back(blocks)
    assert len(set(held)) == len(held) == count
    assert set(held) < set(range(blocks))


def test_scales_that_help_nothing_change_nothing() -> None:
    teacher = tiny_model()
    plan = plan_for(teacher, AXES["neurons"])
    closed, _ = repair_model(teacher, plan, without_held_back(BLOCKS), RepairSpec())
    wild, done = repair_model(teacher, plan, BLOCKS, RepairSpec(method="scaled", passes=1, scale_rate=1e3))
    assert done["places"][-1] == {"place": "scales", "ridge": None, "gain": 0.0, "short": False}
    assert all(torch.equal(a, b) for a, b in zip(wild.parameters(), closed.parameters(), strict=True))
    assert learn_scales(closed, teacher, BLOCKS[:1], SPEC) == 0.0, "one block leaves none to choose by"


def test_thorough_ends_with_scales_unless_there_are_no_passes() -> None:
    teacher = tiny_model()
    plan = plan_for(teacher, AXES["neurons"])
    for passes in (1, 0):
        _, done = repair_model(teacher, plan, BLOCKS, RepairSpec(method="thorough", steps=1, passes=passes))
        assert [place["place"] for place in done["places"]].count("scales") == passes


def test_a_scaled_checkpoint_is_the_scaled_model(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source")
    teacher = load_model(source)
    plan = plan_for(teacher, AXES["kv groups"])
    student, told = repair_model(teacher, plan, BLOCKS, SPEC)
    assert repair_checkpoint(source, plan, BLOCKS, SPEC, tmp_path / "repaired", {}, Silent()) == told
    assert [file.name for file in (tmp_path / "repaired").glob("*.safetensors*")] == ["model.safetensors"]
    assert torch.equal(logits(load_model(tmp_path / "repaired")), logits(student))


@pytest.mark.parametrize("blocks", [1, 2, 5, 20])
def test_every_block_that_is_gone_over_is_counted_once(blocks: int) -> None:
    heard: list[tuple[int, int]] = []

    class Heard(Silent):
        def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
            heard.append((done, total))

    teacher = tiny_model()
    plan = plan_for(teacher, AXES["neurons"])
    repair_model(teacher, plan, MANY[:blocks], SPEC, Heard())
    assert heard == [(done, len(heard)) for done in range(1, len(heard) + 1)]
    assert (len(heard) > len(plan.layers)) == (blocks > 1)


def test_a_repair_that_is_stopped_in_a_pass_leaves_nothing(tmp_path: Path) -> None:
    class StopsInThePass(Silent):
        def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
            if done == total - 1:
                raise Stopped

    source = save_tiny(tmp_path / "source")
    teacher = load_model(source)
    plan = plan_for(teacher, AXES["kv groups"])
    with pytest.raises(Stopped):
        repair_checkpoint(source, plan, BLOCKS, SPEC, tmp_path / "repaired", {}, StopsInThePass())
    assert not (tmp_path / "repaired").exists()


def test_what_scales_are_chosen_by_is_not_fitted_on() -> None:
    teacher = tiny_model()
    plan = plan_for(teacher, AXES["neurons"])
    held = held_back(len(MANY))
    other = MANY.copy()
    other[held] = MANY[held][::-1]
    wild = RepairSpec(method="scaled", passes=1, scale_rate=1e3)  # learns nothing of use, so that only the fit is left
    first, second = (repair_model(teacher, plan, blocks_NT, wild)[0] for blocks_NT in (MANY, other))
    without, _ = repair_model(teacher, plan, without_held_back(MANY), RepairSpec())
    assert all(
        torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*(state(one).values() for one in (first, second, without)), strict=True)
    )
