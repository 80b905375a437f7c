"""How sure rankings are: what noise does to them, and what no noise does."""

import dataclasses
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from core.errors import UserError
from core.model.dims import dims_of
from core.score.agreement import ranks
from core.score.confidence import Confidence, agreement, confidence, undecided_heads
from core.score.criteria import criteria_of
from core.score.criteria.registry import Criterion
from core.score.scoring import score_model
from core.score.store import Scores
from core.specs import RankSpec, ScoreSpec
from tests.score.world import EVERYTHING, world
from tests.synthetic_scores import synthetic_scores
from tests.tiny import random_blocks, tiny_config, tiny_model

DIMS = dims_of(tiny_config().to_dict())
AXES = ("heads", "neurons", "channels", "layers")


@dataclasses.dataclass(frozen=True)
class Noisy:
    """Units of a known worth, of which every shard sees the worth and some noise."""

    seen_SRU: np.ndarray
    shards: tuple[int, ...] | None = None

    @property
    def num_shards(self) -> int:
        return len(self.seen_SRU)

    def on(self, shards: tuple[int, ...]) -> Self:
        return dataclasses.replace(self, shards=shards)

    def importance(self, axis: str, rank: RankSpec, removed: int = 1) -> np.ndarray:
        return self.seen_SRU[list(range(self.num_shards) if self.shards is None else self.shards)].mean(0)

    def offered(self, axis: str) -> dict[str, Criterion]:
        return criteria_of(axis)


def noisy(seed: int, noise: float, shards: int = 4, units: int = 60) -> tuple[np.ndarray, Noisy]:
    """True ranks ``[1, U]``, and what is seen."""
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=(1, units))
    return ranks(worth), Noisy(worth + noise * rng.normal(size=(shards, 1, units)))


@pytest.mark.parametrize("shards", [2, 4, 8])
@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0])
def test_intervals_mostly_hold_the_true_rank(noise: float, shards: int) -> None:
    held = []
    for seed in range(60):
        true, scores = noisy(seed, noise, shards)
        found = confidence(scores, "neurons", RankSpec())
        held.append(((found.low_RU <= true) & (true <= found.high_RU)).mean())
    assert np.mean(held) > (0.6 if shards == 2 else 0.8), f"{np.mean(held):.2f}"  # from two shards a standard error is hardly known


def test_more_noise_means_wider_intervals_less_stability_and_more_that_is_undecided() -> None:
    found = [confidence(noisy(1, noise)[1], "neurons", RankSpec()) for noise in (0.01, 0.1, 0.5, 3.0)]
    widths, undecided = ([np.mean(one.high_RU - one.low_RU) for one in found], [one.undecided(30).sum() for one in found])
    assert widths == sorted(widths)
    assert undecided == sorted(undecided)
    assert [one.stability for one in found] == sorted((one.stability for one in found), reverse=True)


def test_the_error_is_the_jackknifes() -> None:
    _, scores = noisy(3, 0.3)
    found, seen = confidence(scores, "neurons", RankSpec()), scores.seen_SRU
    left_out = np.stack([ranks(np.delete(seen, shard, axis=0).mean(0)) for shard in range(4)]).astype(float)
    error = np.sqrt(3 / 4 * ((left_out - left_out.mean(0)) ** 2).sum(0))
    np.testing.assert_array_equal(found.rank_RU, ranks(seen.mean(0)))
    np.testing.assert_allclose(found.low_RU, np.clip(found.rank_RU - 2 * error, 1, 60))
    np.testing.assert_allclose(found.high_RU, np.clip(found.rank_RU + 2 * error, 1, 60))


@pytest.mark.parametrize(("axis", "name"), [(axis, name) for axis in AXES for name, found in criteria_of(axis).items() if found.sharded])
def test_equal_shards_leave_no_doubt(axis: str, name: str, workspace: Path) -> None:
    spec = ScoreSpec(shards=3, ppl_blocks=6, gradient_blocks=6, pre_activation=True, windows=(1, 2))
    scores = synthetic_scores("b2-test", DIMS, spec)
    for item in scores.meta["passes"]:
        for values in scores.arrays(item).values():
            if item != "weights" and values.ndim:
                values[:] = values[:1]  # what every shard and every block says
    found = confidence(scores, axis, RankSpec().by(axis, name), 2)
    np.testing.assert_array_equal(found.low_RU, found.high_RU)
    np.testing.assert_array_equal(found.rank_RU, found.high_RU)
    assert found.stability == pytest.approx(1)
    assert not found.undecided(3).any()


def test_a_unit_far_above_the_cut_is_never_undecided_and_one_at_the_cut_is() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        worth = np.r_[np.full(3, 100.0), rng.normal(size=20), np.full(3, -100.0)][None]
        found = confidence(Noisy(worth + rng.normal(size=(4, *worth.shape))), "neurons", RankSpec())
        undecided = found.undecided(13)[0]
        assert not undecided[:3].any()
        assert not undecided[-3:].any()
        assert undecided.any()


def test_doubt_is_the_same_from_both_sides_of_the_cut() -> None:
    rng = np.random.default_rng(0)
    rank = np.arange(1, 21)[None]
    low, high = np.clip(rank - rng.exponential(1, rank.shape), 1, 20), np.clip(rank + rng.exponential(1, rank.shape), 1, 20)
    found = Confidence(rank_RU=rank, low_RU=low, high_RU=high, stability=0.5)
    upside_down = Confidence(rank_RU=21 - rank, low_RU=21 - high, high_RU=21 - low, stability=0.5)
    for kept in range(1, 20):
        np.testing.assert_array_equal(found.undecided(kept), upside_down.undecided(20 - kept))
    assert not found.undecided(20).any(), "who keeps all decides nothing"


def test_heads_are_undecided_by_what_the_cut_looks_at() -> None:
    rng = np.random.default_rng(0)
    for seed in range(10):
        scores = Noisy(rng.normal(size=(1, 3, 12)) + 0.3 * rng.normal(size=(4, 3, 12)))
        plain = confidence(scores, "heads", RankSpec())
        for kept in (1, 5, 11, 12):  # groups of one head, then one group: both are a cut by rank alone
            np.testing.assert_array_equal(undecided_heads(scores, RankSpec(), 12, kept, 1), plain.undecided(kept), err_msg=str(seed))
            np.testing.assert_array_equal(undecided_heads(scores, RankSpec(), 1, 1, kept), plain.undecided(kept), err_msg=str(seed))
        assert not undecided_heads(scores, RankSpec(), 4, 4, 3).any(), "nothing is cut"
        sure = Noisy(np.repeat(scores.seen_SRU[:1], 4, axis=0))
        assert not undecided_heads(sure, RankSpec(), 4, 2, 2).any()


def test_a_head_whose_group_surely_goes_is_decided_and_so_is_the_worst_of_every_group() -> None:
    worth = np.array([[9.0, 8.9, 1.0, 5.0, 4.9, 0.5, 0.3, 0.29, 0.1]])  # three groups of three
    noise = np.zeros((4, 1, 9))
    noise[:, 0, [0, 3, 6]] = np.array([0.6, -0.6, 0.6, -0.6])[:, None]
    found = undecided_heads(Noisy(worth + noise), RankSpec(), 3, 2, 1)[0]
    assert found.tolist() == [True, True, False, True, True, False, False, False, False]


@pytest.mark.parametrize("axis", AXES)
def test_confidence_of_real_scores_has_the_shape_of_the_axis(axis: str) -> None:
    scores = world("llama").scores
    for name, criterion in scores.offered(axis).items():
        rank = RankSpec().by(axis, name)
        if criterion.needs in ("removal", "windows", "greedy") or not criterion.sharded:
            continue
        found = confidence(scores, axis, rank)
        rows = np.atleast_2d(scores.importance(axis, rank))
        assert found.rank_RU.shape == found.undecided(2).shape == rows.shape
        assert (found.low_RU <= found.rank_RU).all()
        assert (found.rank_RU <= found.high_RU).all()
        assert -1 <= found.stability <= 1


def test_protected_layers_do_not_disturb() -> None:
    blocks = random_blocks(4, 12)
    scores = score_model(tiny_model(), blocks, ScoreSpec(shards=4, ppl_blocks=4, windows=(2,)))
    for name in ("bi", "ppl", "kl", "angle", "window"):
        found = confidence(scores, "layers", RankSpec(depth=name, protect_first=1, protect_last=1), 2)
        assert np.isfinite(found.stability)
        assert found.rank_RU[0, [0, 4]].tolist() == [1, 2], "the protected are the most important"


@pytest.mark.parametrize("name", ["ppl", "kl", "angle", "window"])
def test_too_few_judged_blocks_for_the_shards_are_told(name: str) -> None:
    for blocks in (1, 3):
        scores = score_model(tiny_model(), random_blocks(4, 12), ScoreSpec(shards=4, ppl_blocks=blocks, windows=(1,)))
        with pytest.raises(UserError, match="measure at least 4"):
            confidence(scores, "layers", RankSpec(depth=name))


def test_what_has_no_shards_has_no_confidence() -> None:
    scores = world("llama").scores
    for axis, name in (("heads", "magnitude"), ("neurons", "obs"), ("channels", "iterative"), ("layers", "greedy")):
        with pytest.raises(UserError, match="cannot be told"):
            confidence(scores, axis, RankSpec().by(axis, name))
    with pytest.raises(UserError, match="two shards"):
        confidence(score_model(tiny_model(), random_blocks(2, 8), ScoreSpec(shards=1, ppl_blocks=0)), "heads", RankSpec())
    with pytest.raises(UserError, match="There is no criterion 'astrology'"):
        confidence(scores, "heads", RankSpec(heads="astrology"))


@pytest.mark.parametrize("axis", AXES)
def test_agreement_is_symmetric_with_ones_on_the_diagonal(axis: str) -> None:
    scores = world("llama").scores
    found = agreement(scores, axis, RankSpec(), 2, 2)
    assert found.names == tuple(scores.offered(axis)) == tuple(criteria_of(axis)), "everything was measured"
    for table in (found.spearman_CC, found.overlap_CC):
        assert table.shape == (len(found.names), len(found.names))
        np.testing.assert_allclose(table, table.T, atol=1e-12)
        np.testing.assert_allclose(table.diagonal(), 1)
    assert (np.abs(found.spearman_CC) <= 1 + 1e-12).all()
    assert ((found.overlap_CC >= 0) & (found.overlap_CC <= 1)).all()


def test_agreement_leaves_out_what_cannot_be_answered_and_bears_protection() -> None:
    scores = world("llama").scores
    assert EVERYTHING.windows == (1, 2, 3)
    found = agreement(scores, "layers", RankSpec(protect_first=1), 1, 4)
    assert "window" not in found.names
    assert {"bi", "ppl", "kl"} <= set(found.names)
    assert np.isfinite(found.spearman_CC).all()


def test_agreement_keeps_the_rest_of_the_ranking() -> None:
    scores: Any = synthetic_scores("b2-test", DIMS)
    one, other = (agreement(scores, "neurons", RankSpec(batch=batch, sequence="var"), 10) for batch in ("mean", "var"))
    assert not np.array_equal(one.spearman_CC, other.spearman_CC)
    assert isinstance(scores, Scores)
