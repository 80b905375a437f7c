"""Laws of the estimate: nothing cut is no damage, more cut is more, and what matters more costs more."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from core.model.dims import dims_of
from core.plan.plan import keep_best, make_plan
from core.plan.proxy import WEIGHTS, estimated_damage, lost
from core.score.store import Scores
from core.specs import RankSpec, ScoreSpec, Targets
from tests.synthetic_scores import synthetic_scores
from tests.tiny import tiny_config

CONFIG = tiny_config().to_dict()
DIMS = dims_of(CONFIG)
STEPS = {
    "layers": [Targets(num_hidden_layers=n) for n in (5, 4, 3, 1)],
    "heads": [Targets(num_key_value_heads=kv, num_attention_heads=kv * group) for kv, group in ((3, 2), (2, 2), (1, 2), (1, 1))],
    "neurons": [Targets(intermediate_size=n) for n in (40, 39, 21, 3)],
    "channels": [Targets(hidden_size=n) for n in (24, 18, 12, 6)],
}


@pytest.fixture
def scores(workspace: Path) -> Scores:
    return synthetic_scores("b2-test", DIMS, ScoreSpec(ppl_blocks=0))


@pytest.mark.parametrize("axis", STEPS)
def test_the_more_goes_the_more_it_hurts_and_nothing_gone_is_nothing(axis: str, scores: Scores) -> None:
    values = [estimated_damage(scores, make_plan(scores, CONFIG, targets, RankSpec())) for targets in STEPS[axis]]
    assert values[0] == 0
    assert (np.diff(values) > 0).all()


@pytest.mark.parametrize("axis", STEPS)
def test_an_axis_that_is_cut_alone_loses_alone(axis: str, scores: Scores) -> None:
    found = lost(scores, make_plan(scores, CONFIG, STEPS[axis][2], RankSpec()))
    assert {name for name, value in found.items() if value} == {axis}
    assert found[axis] <= 1 or axis == "layers"
    assert estimated_damage(scores, make_plan(scores, CONFIG, STEPS[axis][2], RankSpec())) == pytest.approx(WEIGHTS[axis] * found[axis])


@pytest.mark.parametrize("axis", STEPS)
def test_keeping_the_best_hurts_less_than_keeping_the_worst(axis: str, scores: Scores) -> None:
    worst = dataclasses.make_dataclass("Worst", ["dims"], namespace={"importance": lambda self, *given: -scores.importance(*given)})(DIMS)
    best, reverse = (keep_best(source, DIMS, STEPS[axis][2], RankSpec()) for source in (scores, worst))
    assert estimated_damage(scores, best) < estimated_damage(scores, reverse)


def test_the_scale_of_a_layer_s_activations_does_not_matter(scores: Scores) -> None:
    scaled = dataclasses.make_dataclass(
        "Scaled",
        ["dims"],
        namespace={"importance": lambda self, axis, *given: scores.importance(axis, *given) * (1 if axis == "layers" else 7)},
    )(DIMS)
    plan = make_plan(scores, CONFIG, Targets(num_hidden_layers=4, intermediate_size=21, hidden_size=12), RankSpec())
    assert estimated_damage(scaled, plan) == pytest.approx(estimated_damage(scores, plan))


def test_the_plan_s_own_ranking_does_not_change_what_it_loses(scores: Scores) -> None:
    plan = make_plan(scores, CONFIG, Targets(intermediate_size=21), RankSpec())
    assert estimated_damage(scores, plan) == estimated_damage(
        scores, dataclasses.replace(plan, rank=RankSpec(neurons="wanda", depth="ppl"))
    )
