"""What is kept, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from core.model.dims import dims_of, resized
from core.plan.plan import Plan, keep_masks, kept_share, make_plan
from core.plan.sizes import problems
from core.score.store import Scores, all_scores, find, load, save, score_key
from core.specs import RankSpec, ScoreSpec, Targets
from tests.tiny import tiny_config

CONFIG = tiny_config().to_dict()


@pytest.fixture
def scores(workspace: Path) -> Scores:
    """Random scores of the tiny model."""
    rng = np.random.default_rng(0)
    shapes = {"heads": (5, 6), "neurons": (5, 40), "channels": (10, 24)}
    arrays = {name: rng.random((3, 2, *shape)) for name, shape in shapes.items()}
    arrays |= {"distance": rng.random(5), "losses": rng.random(6) + 3, "count": np.array(4)}
    return save("b2-test", arrays, dims_of(CONFIG), {"created": 1.0})


def test_the_best_are_kept_in_their_old_order(scores: Scores) -> None:
    plan = make_plan(scores, CONFIG, Targets(num_hidden_layers=3, intermediate_size=11, hidden_size=18), RankSpec())
    assert plan.dims == resized(dims_of(CONFIG), plan.targets)
    assert (plan.layers.shape, plan.neurons.shape, plan.channels.shape) == ((3,), (3, 11), (18,))
    importance = scores.neurons(RankSpec())
    for row, layer in zip(plan.neurons, plan.layers, strict=True):
        left_out = np.setdiff1d(np.arange(40), row)
        assert importance[layer, row].min() >= importance[layer, left_out].max()
        assert (np.diff(row) > 0).all()
    assert set(plan.channels) == set(np.argsort(scores.channels(RankSpec()))[-18:])
    assert set(plan.layers) == set(np.argsort(scores.layers("bi"))[-3:])


def test_heads_stay_rectangular(scores: Scores) -> None:
    plan = make_plan(scores, CONFIG, Targets(num_attention_heads=2, num_key_value_heads=2), RankSpec())
    for heads, kv_heads in zip(plan.heads, plan.kv_heads, strict=True):
        assert (heads // 2 == kv_heads).all(), "every kept key-value head keeps one of its own two query heads"
    importance = scores.heads(RankSpec())
    for layer, heads in enumerate(plan.heads):
        for head in heads:
            assert importance[layer, head] == importance[layer, head // 2 * 2 : head // 2 * 2 + 2].max()


def test_key_value_heads_take_their_query_heads_along(scores: Scores) -> None:
    plan = make_plan(scores, CONFIG, Targets(num_key_value_heads=1), RankSpec())
    assert plan.dims.heads == 2
    assert plan.heads.shape == (5, 2)


def test_a_smaller_target_keeps_a_subset_of_what_a_larger_one_keeps(scores: Scores) -> None:
    larger, smaller = (set(make_plan(scores, CONFIG, Targets(hidden_size=size), RankSpec()).channels) for size in (18, 12))
    assert smaller < larger


def test_a_plan_survives_the_disk(scores: Scores, tmp_path: Path) -> None:
    plan = make_plan(scores, CONFIG, Targets(num_hidden_layers=2, num_attention_heads=3), RankSpec(depth="ppl", batch="mean"))
    plan.save(tmp_path / "plan.npz")
    again = Plan.load(tmp_path / "plan.npz")
    assert (again.identity, again.targets, again.rank, again.source) == (plan.identity, plan.targets, plan.rank, plan.source)
    (tmp_path / "plan.npz").write_bytes((tmp_path / "plan.npz").read_bytes()[:100])
    with pytest.raises(UserError, match=r"damaged .* Make the plan again"):
        Plan.load(tmp_path / "plan.npz")


def test_masks_count_what_is_kept_and_the_identity_keeps_all(scores: Scores) -> None:
    plan = make_plan(scores, CONFIG, Targets(num_hidden_layers=3, intermediate_size=7), RankSpec())
    masks = keep_masks(plan)
    assert (masks["layers"].sum(), masks["neurons"].sum(), masks["heads"].sum(), masks["channels"].sum()) == (3, 21, 18, 24)
    assert kept_share(make_plan(scores, CONFIG, Targets(), RankSpec()), scores) == {"layers": 1, "heads": 1, "neurons": 1, "channels": 1}


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (Targets(intermediate_size=41), "41 is more than the model has (40)"),
        (Targets(intermediate_size=0), "must be above 0"),
        (Targets(num_hidden_layers=-1), "must be above 0"),
        (Targets(num_attention_heads=4), "with 3 key-value heads the possible numbers are 3, 6"),
        (Targets(num_attention_heads=6, num_key_value_heads=2), "the possible numbers are 2, 4"),
        (Targets(hidden_size=20), "nearest possible sizes are 18 and 24"),
        (Targets(hidden_size=2), "nearest possible sizes are 6"),
    ],
)
def test_impossible_targets_are_refused_with_the_nearest(scores: Scores, targets: Targets, told: str) -> None:
    with pytest.raises(UserError) as caught:
        make_plan(scores, CONFIG, targets, RankSpec())
    assert told in str(caught.value)


def test_only_the_families_that_transformers_restricts_are_restricted() -> None:
    assert problems(CONFIG, Targets(hidden_size=20))
    assert not problems(tiny_config("mistral").to_dict(), Targets(hidden_size=20))


def test_scores_of_another_model_are_refused(scores: Scores) -> None:
    with pytest.raises(UserError, match="other dimensions"):
        make_plan(scores, tiny_config(intermediate_size=48).to_dict(), Targets(), RankSpec())


def test_the_store_finds_scores_only_under_all_that_determines_them(scores: Scores) -> None:
    key = score_key("model", "text", ScoreSpec())
    save(key, scores.arrays, scores.dims, {"created": 2.0})
    assert find("model", "text", ScoreSpec(batch_size=1)) is not None, "the batch size changes no score"
    for other in (("other", "text", ScoreSpec()), ("model", "other", ScoreSpec()), ("model", "text", ScoreSpec(ppl_blocks=9))):
        assert find(*other) is None
    assert [found.key for found in all_scores()] == [key, "b2-test"]


def test_damaged_or_missing_scores_are_told(scores: Scores) -> None:
    with pytest.raises(UserError, match="no scores 'b2-none'"):
        load("b2-none")
    (scores.folder / "moments.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="damaged"):
        load("b2-test").heads(RankSpec())


def test_a_depth_ranking_that_was_not_measured_is_refused(scores: Scores) -> None:
    bare = save("b2-bare", scores.arrays | {"losses": np.zeros(0)}, scores.dims, {"created": 3.0})
    with pytest.raises(UserError, match="ppl_blocks above 0"):
        make_plan(bare, CONFIG, Targets(), RankSpec(depth="ppl"))
