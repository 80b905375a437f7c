"""Laws of rounds: one is a plain plan, none brings back what is gone, and each scores the model that is really cut."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.errors import UserError
from core.model.checkpoint import load_model
from core.model.dims import dims_of
from core.model.families import FAMILIES
from core.plan.plan import INDICES, Plan, keep_masks, make_plan
from core.progress import Stopped
from core.prune.mask import masked
from core.prune.rounds import aims, as_cut, plan_in_rounds, plans_of_rounds
from core.prune.surgery import cut
from core.runs.findings import blocks_of
from core.runs.folder import create
from core.runs.steps import plan_step
from core.score.criteria import criteria_of
from core.score.scoring import score_model
from core.score.store import Scores
from core.specs import DataSpec, Pins, RankSpec, RunSpec, ScoreSpec, Targets, TextSpec
from tests.tiny import random_blocks, save_tiny, tiny_config, tiny_model
from tests.whole.conftest import write_text

BLOCKS_NT = random_blocks(4, 16, seed=3)
SPEC = ScoreSpec(shards=2, ppl_blocks=2, gradient_blocks=2, covariances=True, pre_activation=True, windows=(1, 2, 3), greedy=3)
ALL = Targets(num_hidden_layers=2, num_key_value_heads=2, num_attention_heads=2, intermediate_size=13, hidden_size=12)
INEXACT = ("leverage", "obs")
"""Criteria whose ridge is a share of a mean over all units."""


def same(first: Plan, second: Plan) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in INDICES)


@pytest.mark.parametrize("depth", sorted(criteria_of("layers")))
def test_one_round_is_the_plan_of_the_scores(depth: str) -> None:
    model, rank = tiny_model(), RankSpec(depth=depth)
    config = model.config.to_dict()
    plan = plan_in_rounds(model, config, BLOCKS_NT, SPEC, ALL, rank)
    expected = make_plan(score_model(model, BLOCKS_NT, SPEC), config, ALL, rank)
    assert same(plan, expected)
    assert (plan.targets, plan.rank, plan.source) == (expected.targets, expected.rank, expected.source)


@pytest.mark.parametrize("depth", sorted(criteria_of("layers")))
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_what_is_gone_stays_away_and_the_last_plan_meets_the_targets(kind: str, depth: str) -> None:
    model = tiny_model(kind)
    rank = RankSpec(depth=depth, rounds=4, protect_first=1)
    plans = list(plans_of_rounds(model, model.config.to_dict(), BLOCKS_NT, SPEC, ALL, rank))
    assert len(plans) == 4
    for before, after in itertools.pairwise(plans):
        for name, mask in keep_masks(after).items():
            assert (mask <= keep_masks(before)[name]).all(), name
    for plan in plans:
        assert plan.heads.shape == (plan.dims.layers, plan.dims.heads)
        assert plan.dims.heads % plan.dims.kv_heads == 0
        assert 0 in plan.layers
    last = plans[-1]
    assert (len(last.layers), last.kv_heads.shape[1], last.heads.shape[1], last.neurons.shape[1], len(last.channels)) == (2, 2, 2, 13, 12)


def test_pins_hold_in_every_round_and_what_must_go_goes_as_soon_as_it_may() -> None:
    model, pins = tiny_model(), Pins(keep_heads=("4.5",), keep_neurons=("4.7",), prune_layers=("0-2",), prune_channels=("3-9",))
    plans = list(plans_of_rounds(model, model.config.to_dict(), BLOCKS_NT, SPEC, ALL, RankSpec(rounds=3), pins))
    for before, after in itertools.pairwise(plans):
        for name, mask in keep_masks(after).items():
            assert (mask <= keep_masks(before)[name]).all(), name
    for plan in plans:
        masks = keep_masks(plan)
        assert masks["heads"][4, 5]
        assert masks["neurons"][4, 7]
        assert set(plan.layers) >= {3, 4}, "of the others, one goes in every round"
        assert masks["channels"][3:10].sum() == max(7 - (24 - len(plan.channels)), 0)
    last = plans[-1]
    assert last.layers.tolist() == [3, 4]
    assert (last.kv_heads.shape[1], last.heads.shape[1], last.neurons.shape[1], len(last.channels)) == (2, 2, 13, 12)


def test_sizes_lie_on_a_straight_line() -> None:
    source = dims_of(tiny_config(num_attention_heads=9, hidden_size=36).to_dict())
    found = aims(source, Targets(num_attention_heads=3, intermediate_size=30, num_hidden_layers=3), 4)
    assert [aim.intermediate_size for aim in found] == [38, 35, 33, 30]
    assert [aim.num_hidden_layers for aim in found] == [5, 4, 4, 3]
    assert [aim.num_attention_heads for aim in found] == [9, 6, 6, 3], "a multiple of the three key-value heads"
    assert found[-1].hidden_size is None, "the last are the targets as they were given"


def build(model: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    """The model, really cut."""
    state, config = cut(dict(model.named_parameters()), model.config.to_dict(), plan)
    smaller: Any = AutoModelForCausalLM.from_config(tiny_config(**config)).eval()
    smaller.load_state_dict(state, strict=False)
    smaller.tie_weights()
    return smaller  # type: ignore[no-any-return]


def importance(scores: Scores, plan: Plan | None, axis: str, name: str) -> np.ndarray:
    """Importance of an axis; of the units that a plan keeps, where the scores are of a masked model. Of channels their share of the sum."""
    values = scores.importance(axis, RankSpec().by(axis, name), 2)
    if plan is None or axis == "layers":
        return values / values.sum() if axis == "channels" else values
    return values[plan.channels] / values.sum() if axis == "channels" else np.take_along_axis(values, getattr(plan, axis), axis=1)


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_a_round_scores_what_the_cut_model_would_give(kind: str) -> None:
    model = tiny_model(kind)
    config, spec = model.config.to_dict(), ScoreSpec(**SPEC.to_dict() | {"windows": (2,), "greedy": 2})
    plan = make_plan(score_model(model, BLOCKS_NT, SPEC), config, ALL.from_dict(ALL.to_dict() | {"num_hidden_layers": 4}), RankSpec())
    expected = score_model(build(model, plan), BLOCKS_NT, spec)
    with as_cut(model, config, plan):
        found = score_model(model, BLOCKS_NT, spec)
    for axis in ("heads", "neurons", "channels", "layers"):
        for name in set(criteria_of(axis)) - set(INEXACT):
            wanted, got = importance(expected, None, axis, name), importance(found, plan, axis, name)
            if criteria_of(axis)[name].unit == "place":
                wanted, got = wanted.argsort(), got.argsort()
            np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=1e-5, err_msg=f"{axis} {name}")


def test_two_rounds_are_scoring_cutting_scoring_and_cutting() -> None:
    model, rank = tiny_model("mistral"), RankSpec(depth="angle", heads="magnitude", neurons="wanda", channels="taylor", rounds=2)
    config = model.config.to_dict()
    spec = ScoreSpec(**SPEC.to_dict() | {"windows": (), "greedy": 0})
    first_aim, _ = aims(dims_of(config), ALL, 2)
    first = make_plan(score_model(model, BLOCKS_NT, spec), config, first_aim, rank)
    smaller = build(model, first)
    second = make_plan(score_model(smaller, BLOCKS_NT, spec), smaller.config.to_dict(), ALL, rank)
    plan = plan_in_rounds(model, config, BLOCKS_NT, spec, ALL, rank)
    assert plan.layers.tolist() == first.layers[second.layers].tolist()
    assert plan.channels.tolist() == first.channels[second.channels].tolist()
    for row, layer in enumerate(second.layers):
        assert plan.neurons[row].tolist() == first.neurons[layer][second.neurons[row]].tolist()
        assert plan.heads[row].tolist() == first.heads[layer][second.heads[row]].tolist()


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_the_model_is_afterwards_what_it_was_even_after_a_failure(kind: str) -> None:
    model = tiny_model(kind)
    config, weights = model.config.to_dict(), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plan = make_plan(score_model(model, BLOCKS_NT, SPEC), config, ALL, RankSpec())
    cutting = as_cut(model, config, plan)
    cutting.__enter__()
    assert model.config.num_hidden_layers == 2
    assert not cutting.__exit__(Stopped, Stopped(), None)
    assert model.config.to_dict() == config
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_cut_that_is_scored_behaves_as_the_masked_one() -> None:
    model, ids_BT = tiny_model(), torch.from_numpy(BLOCKS_NT[:2]).long()
    config = model.config.to_dict()
    plan = make_plan(score_model(model, BLOCKS_NT, SPEC), config, ALL, RankSpec())
    with torch.no_grad(), masked(model, config, plan):
        expected = model(ids_BT).logits
    with torch.no_grad(), as_cut(model, config, plan):
        torch.testing.assert_close(model(ids_BT).logits, expected)


class Watch:
    """Progress that remembers, and asks to stop."""

    def __init__(self, stop_at: int) -> None:
        self.steps: list[tuple[str, int, int]] = []
        self.stop_at = stop_at

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        self.steps.append((phase, done, total))
        if done == self.stop_at:
            raise Stopped

    def note(self, message: str) -> None: ...


def test_progress_counts_rounds_and_a_stop_is_heard_between_them() -> None:
    model, watch = tiny_model(), Watch(stop_at=2)
    with pytest.raises(Stopped):
        plan_in_rounds(model, model.config.to_dict(), BLOCKS_NT, SPEC, ALL, RankSpec(rounds=3), watch)
    assert watch.steps == [("plan", 0, 3), ("plan", 1, 3), ("plan", 2, 3)]


def test_impossible_rounds_and_targets_are_refused_before_anything_is_scored() -> None:
    model = tiny_model()
    for targets, rank, told in ((ALL, RankSpec(rounds=0), "rounds"), (Targets(hidden_size=20), RankSpec(rounds=2), "nearest possible")):
        with pytest.raises(UserError, match=told):
            plan_in_rounds(model, model.config.to_dict(), BLOCKS_NT, SPEC, targets, rank)
    with pytest.raises(UserError, match="needs a pass"):
        plan_in_rounds(model, model.config.to_dict(), BLOCKS_NT, ScoreSpec(shards=2), ALL, RankSpec(heads="taylor", rounds=2))


def test_a_run_cuts_in_rounds_when_asked(tmp_path: Path) -> None:
    here, elsewhere = (TextSpec(source=str(write_text(tmp_path / f"{seed}.txt", 40, seed))) for seed in (0, 1))
    spec = RunSpec(
        kind="prune", model=str(save_tiny(tmp_path / "model")), device="cpu", score=SPEC, targets=ALL, rank=RankSpec(rounds=2, depth="ppl"),
        data=DataSpec(text=here, elsewhere=(elsewhere,), seq_len=32, calibration_blocks=4, train_blocks=4, heldout_blocks=1),
    )  # fmt: skip
    run, watch = create(spec), Watch(stop_at=-1)
    plan_step(run, watch)
    model = load_model(tmp_path / "model")
    expected = plan_in_rounds(model, model.config.to_dict(), blocks_of(run, watch).calibration_NT, SPEC, ALL, spec.rank)
    assert same(Plan.load(run.path / "plan.npz"), expected)
    assert [step for step in watch.steps if step[0] == "plan"] == [("plan", 0, 2), ("plan", 1, 2), ("plan", 2, 2), ("plan", 1, 1)]
