"""Laws of the estimate: it learns what it is shown, never says that cutting helps, and stands on the prior before that."""

import numpy as np

from core.search.damage import PRIOR_2A, Damage, learn, nonnegative_least_squares

RNG = np.random.default_rng(3)


def test_it_finds_the_weights_that_made_the_numbers() -> None:
    lost_NA = RNG.random((60, 4))
    truth = Damage(weights_2A=PRIOR_2A * RNG.uniform(0.3, 3, PRIOR_2A.shape))
    learnt = learn(lost_NA, truth.total(lost_NA).tolist())
    fresh_NA = RNG.random((50, 4))
    np.testing.assert_allclose(learnt.total(fresh_NA), truth.total(fresh_NA), rtol=0.1)


def test_losing_more_is_never_estimated_to_hurt_less() -> None:
    lost_NA = RNG.random((12, 4))
    learnt = learn(lost_NA, RNG.random(12).tolist())
    assert (learnt.weights_2A >= 0).all()
    assert (learnt.total(lost_NA + 0.1) >= learnt.total(lost_NA)).all()


def test_the_parts_add_up_to_the_whole_and_nothing_lost_is_nothing() -> None:
    learnt = learn(RNG.random((5, 4)), RNG.random(5).tolist())
    lost_NA = RNG.random((7, 4))
    np.testing.assert_allclose(learnt.parts(lost_NA).sum(1), learnt.total(lost_NA))
    assert learnt.total(np.zeros((1, 4))) == 0


def test_the_scale_is_the_measured_ones_own_not_the_prior_s() -> None:
    lost_NA = RNG.random((8, 4))
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
