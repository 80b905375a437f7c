"""Rank agreement: its ends, its oracle with ties, and what it does not depend on."""

import numpy as np
import pytest

from core.score.agreement import overlap, spearman

SCORES = np.random.default_rng(2).lognormal(size=(4, 30))


def test_a_ranking_agrees_with_itself_and_with_any_rising_function_of_it() -> None:
    assert spearman(SCORES, np.log(SCORES)) == pytest.approx(1)
    assert spearman(SCORES, -SCORES) == pytest.approx(-1)
    assert overlap(SCORES, SCORES**3, 10) == 1


def test_ties_share_their_places() -> None:
    # Places 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    assert spearman(np.array([[1.0, 2.0, 2.0, 3.0]]), np.array([[1.0, 2.0, 3.0, 4.0]])) == pytest.approx(4.5 / np.sqrt(4.5 * 5))


def test_opposite_rankings_keep_nothing_in_common() -> None:
    assert overlap(SCORES, -SCORES, 15) == 0


def test_a_constant_ranking_agrees_with_nothing() -> None:
    assert spearman(np.ones((2, 5)), SCORES[:2, :5]) == 0
