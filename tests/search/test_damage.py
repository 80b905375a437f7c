"""Laws of the estimate: it learns what it is shown, never says that cutting helps, and stands on the prior before that."""

from pathlib import Path

import numpy as np
import pytest

from core.model.dims import dims_of
from core.plan.plan import make_plan
from core.search.damage import AXES, PRIOR_2A, Damage, Remembered, learn, losses_of, nonnegative_least_squares
from core.specs import RankSpec, ScoreSpec, Targets
from tests.synthetic_scores import synthetic_scores
from tests.tiny import tiny_config

RNG = np.random.default_rng(3)


def test_it_finds_the_weights_that_made_the_numbers() -> None:
    lost_NA = RNG.random((300, len(AXES)))
    truth = Damage(weights_2A=PRIOR_2A * RNG.uniform(0.3, 3, PRIOR_2A.shape))
    learnt = learn(lost_NA, truth.total(lost_NA).tolist())
    fresh_NA = RNG.random((50, len(AXES)))
    np.testing.assert_allclose(learnt.total(fresh_NA), truth.total(fresh_NA), rtol=0.1)


def test_losing_more_is_never_estimated_to_hurt_less() -> None:
    lost_NA = RNG.random((12, len(AXES)))
    learnt = learn(lost_NA, RNG.random(12).tolist())
    assert (learnt.weights_2A >= 0).all()
    assert (learnt.total(lost_NA + 0.1) >= learnt.total(lost_NA)).all()


def test_the_parts_add_up_to_the_whole_and_nothing_lost_is_nothing() -> None:
    learnt = learn(RNG.random((5, len(AXES))), RNG.random(5).tolist())
    lost_NA = RNG.random((7, len(AXES)))
    np.testing.assert_allclose(learnt.parts(lost_NA).sum(1), learnt.total(lost_NA))
    assert learnt.total(np.zeros((1, len(AXES)))) == 0


def test_the_scale_is_the_measured_ones_own_not_the_prior_s() -> None:
    lost_NA = RNG.random((8, len(AXES)))
    kl_N = Damage(weights_2A=50 * PRIOR_2A).total(lost_NA)
    np.testing.assert_allclose(learn(lost_NA, kl_N.tolist()).total(lost_NA), kl_N, rtol=0.02)
    assert learn(lost_NA, []).weights_2A is PRIOR_2A


def test_least_squares_without_negative_weights_is_no_worse_than_any_of_many_others() -> None:
    matrix, wanted = RNG.normal(size=(20, 5)), RNG.normal(size=20)
    found = nonnegative_least_squares(matrix, wanted)
    assert (found >= 0).all()
    error = np.linalg.norm(matrix @ found - wanted)
    for _ in range(500):
        other = np.maximum(found + RNG.normal(scale=0.3, size=5), 0)
        assert error <= np.linalg.norm(matrix @ other - wanted) + 1e-9


def test_heads_that_go_with_their_group_and_queries_of_groups_that_stay_are_told_apart(workspace: Path) -> None:
    config = tiny_config(num_attention_heads=6, num_key_value_heads=3).to_dict()
    scores = Remembered(synthetic_scores("b2-damage", dims_of(config), ScoreSpec()))
    cuts = {
        "groups": Targets(num_attention_heads=4, num_key_value_heads=2),
        "queries": Targets(num_attention_heads=3),
        "neurons": Targets(intermediate_size=10),
    }
    for axis, targets in cuts.items():
        lost_A = losses_of(make_plan(scores, config, targets, RankSpec()), scores)
        assert [name for name, value in zip(AXES, lost_A, strict=True) if value > 0] == [axis]
    heads = np.clip(scores.importance("heads", RankSpec()), 0, None)
    both = make_plan(scores, config, Targets(num_attention_heads=2, num_key_value_heads=2), RankSpec())
    gone = 1 - sum(heads[layer][kept].sum() for layer, kept in enumerate(both.heads)) / heads.sum()
    assert losses_of(both, scores)[1:3].sum() == pytest.approx(gone), "together they are all heads that go"
