"""What is kept, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from core.model.dims import dims_of, resized
from core.plan.plan import Plan, keep_masks, make_plan, partners_of, top
from core.plan.sizes import problems
from core.score.criteria import criteria_of
from core.score.store import Scores
from core.specs import RankSpec, ScoreSpec, Targets
from tests.plan.kept import kept_share
from tests.synthetic_scores import synthetic_scores
from tests.tiny import tiny_config

CONFIG = tiny_config().to_dict()
EVERYTHING = ScoreSpec(ppl_blocks=4, gradient_blocks=4, covariances=True, pre_activation=True, windows=(1, 2, 3, 4), greedy=4)


@pytest.fixture
def scores(workspace: Path) -> Scores:
    """Made-up scores of the tiny model under every criterion."""
    return synthetic_scores("b2-test", dims_of(CONFIG), EVERYTHING)


def test_the_best_are_kept_in_their_old_order(scores: Scores) -> None:
    plan = make_plan(scores, CONFIG, Targets(num_hidden_layers=3, intermediate_size=11, hidden_size=18), RankSpec())
    assert plan.dims == resized(dims_of(CONFIG), plan.targets)
    assert (plan.layers.shape, plan.neurons.shape, plan.channels.shape) == ((3,), (3, 11), (18,))
    importance = scores.importance("neurons", RankSpec())
    for row, layer in zip(plan.neurons, plan.layers, strict=True):
        left_out = np.setdiff1d(np.arange(40), row)
        assert importance[layer, row].min() >= importance[layer, left_out].max()
        assert (np.diff(row) > 0).all()
    assert set(plan.channels) == set(np.argsort(scores.importance("channels", RankSpec()))[-18:])
    assert set(plan.layers) == set(np.argsort(scores.importance("layers", RankSpec(), 2))[-3:])


def test_the_top_is_that_of_a_stable_sort_ties_and_infinities_included() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        shape = tuple(rng.integers(1, 7, rng.integers(1, 4)))
        scores = rng.choice([-np.inf, -1e300, -1.0, 0.0, 0.5, 2.0, np.inf], shape) + (rng.random(shape) if rng.random() < 0.5 else 0.0)
        count = int(rng.integers(1, shape[-1] + 1))
        expected = np.sort(np.argsort(-scores, axis=-1, kind="stable")[..., :count], axis=-1)
        np.testing.assert_array_equal(top(scores, count), expected)


def test_heads_stay_rectangular(scores: Scores) -> None:
    plan = make_plan(scores, CONFIG, Targets(num_attention_heads=2, num_key_value_heads=2), RankSpec())
    for heads, kv_heads in zip(plan.heads, plan.kv_heads, strict=True):
        assert (heads // 2 == kv_heads).all(), "every kept key-value head keeps one of its own two query heads"
    importance = scores.importance("heads", RankSpec())
    for layer, heads in enumerate(plan.heads):
        for head in heads:
            assert importance[layer, head] == importance[layer, head // 2 * 2 : head // 2 * 2 + 2].max()


def test_each_kept_layer_keeps_the_heads_and_neurons_of_its_own_row(scores: Scores) -> None:
    plan = make_plan(scores, CONFIG, Targets(num_hidden_layers=2, num_key_value_heads=2, intermediate_size=5), RankSpec(protect_last=2))
    assert plan.layers.tolist() == [3, 4]
    heads, neurons = (scores.importance(axis, RankSpec()) for axis in ("heads", "neurons"))
    for row, layer in enumerate(plan.layers):
        group_sums = heads[layer].reshape(3, 2).sum(1)
        assert set(plan.kv_heads[row]) == set(np.argsort(-group_sums)[:2])
        assert set(plan.neurons[row]) == set(np.argsort(-neurons[layer])[:5])


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


def test_each_axis_follows_its_own_criterion_and_aggregation(scores: Scores) -> None:
    targets = Targets(num_hidden_layers=3, intermediate_size=11, hidden_size=12, num_key_value_heads=2)
    for axis in ("heads", "neurons", "channels"):
        for name in criteria_of(axis):
            rank = RankSpec(**{axis: name}, batch="mean", sequence="l2")
            plan, plain = (make_plan(scores, CONFIG, targets, used) for used in (rank, RankSpec(batch="mean", sequence="l2")))
            for other in {"heads", "neurons", "channels"} - {axis}:
                np.testing.assert_array_equal(getattr(plan, other), getattr(plain, other))
    plan = make_plan(scores, CONFIG, targets, RankSpec(neurons="obs", channels="fisher"))
    importance = scores.importance("neurons", RankSpec(neurons="obs"))[plan.layers]
    assert all(set(row) == set(np.argsort(-values)[:11]) for row, values in zip(plan.neurons, importance, strict=True))
    assert set(plan.channels) == set(np.argsort(-scores.importance("channels", RankSpec(channels="fisher")))[:12])


@pytest.mark.parametrize("name", criteria_of("layers"))
@pytest.mark.parametrize(
    ("first", "last", "layers"), [(0, 0, 3), (1, 0, 3), (0, 1, 2), (1, 1, 3), (2, 1, 3), (1, 2, 4), (2, 2, 4), (0, 3, 3)]
)
def test_protected_layers_stay(scores: Scores, name: str, first: int, last: int, layers: int) -> None:
    plan = make_plan(scores, CONFIG, Targets(num_hidden_layers=layers), RankSpec(depth=name, protect_first=first, protect_last=last))
    assert len(plan.layers) == layers
    assert set(range(first)) | set(range(5 - last, 5)) <= set(plan.layers)


@pytest.mark.parametrize(("first", "last"), [(3, 0), (0, 3), (2, 1), (9, 9)])
def test_more_protected_layers_than_stay_are_refused(scores: Scores, first: int, last: int) -> None:
    with pytest.raises(
        UserError, match=rf"{first} layers at the start and {last} at the end are protected, more than the 2 that stay\. Protect fewer"
    ):
        make_plan(scores, CONFIG, Targets(num_hidden_layers=2), RankSpec(protect_first=first, protect_last=last))


@pytest.mark.parametrize("name", ["window", "angle"])
def test_criteria_of_runs_remove_the_best_run_of_that_length(name: str, workspace: Path) -> None:
    for seed in range(8):
        scores = synthetic_scores(f"b2-{seed}", dims_of(CONFIG), EVERYTHING, seed=seed)
        for removed in (1, 2, 3, 4):
            for first, last in ((0, 0), (1, 0), (0, 1)):
                plan = make_plan(
                    scores, CONFIG, Targets(num_hidden_layers=5 - removed), RankSpec(depth=name, protect_first=first, protect_last=last)
                )
                gone = np.setdiff1d(np.arange(5), plan.layers)
                assert (np.diff(gone) == 1).all(), "consecutive"
                cost = run_costs(scores, name, removed)
                assert cost[gone[0]] == min(cost[start] for start in range(first, 5 - last - removed + 1))


def run_costs(scores: Scores, name: str, length: int) -> np.ndarray:
    """What each run of layers costs, by its first layer, straight from what is stored."""
    if name == "window":
        return scores.array("windows", f"losses.{length}").mean(0)[1:]
    angles = scores.array("removal", "angles").mean(0)
    return np.array([angles[start, start + length] for start in range(5 - length + 1)])


def test_greedy_removes_the_first_of_its_order_and_passes_over_the_protected(workspace: Path) -> None:
    for seed in range(8):
        scores = synthetic_scores(f"b2-{seed}", dims_of(CONFIG), EVERYTHING, seed=seed)
        order = scores.array("greedy", "order").tolist()
        for removed in (1, 2, 3, 4):
            plan = make_plan(scores, CONFIG, Targets(num_hidden_layers=5 - removed), RankSpec(depth="greedy"))
            assert set(range(5)) - set(plan.layers) == set(order[:removed])
        plan = make_plan(scores, CONFIG, Targets(num_hidden_layers=3), RankSpec(depth="greedy", protect_first=1, protect_last=1))
        assert set(range(5)) - set(plan.layers) == set([layer for layer in order if layer in (1, 2, 3)][:2])


@pytest.mark.parametrize("name", criteria_of("layers"))
def test_a_plan_that_keeps_all_layers_needs_nothing_of_the_criterion(scores: Scores, name: str, workspace: Path) -> None:
    few = synthetic_scores("b2-few", dims_of(CONFIG), dataclasses.replace(EVERYTHING, windows=(3,), greedy=1))
    plan = make_plan(few, CONFIG, Targets(intermediate_size=7), RankSpec(depth=name))
    assert plan.layers.tolist() == [0, 1, 2, 3, 4]
    assert kept_share(plan, few)["layers"] == 1


@pytest.mark.parametrize(
    ("rank", "told"),
    [
        (RankSpec(depth="ppl"), "ppl_blocks above 0"), (RankSpec(depth="window"), "with windows, the lengths"), (RankSpec(depth="greedy"), "with greedy"),
        (RankSpec(heads="taylor"), "gradient_blocks above 0"), (RankSpec(neurons="obs"), "with covariances"),
        (RankSpec(neurons="pre_activation"), "with pre_activation"), (RankSpec(channels="astrology"), "There is no criterion 'astrology' for channels"),
        (RankSpec(depth="astrology"), "There is no criterion 'astrology' for layers"),
    ],
)  # fmt: skip
def test_a_ranking_that_was_not_measured_is_refused(rank: RankSpec, told: str, workspace: Path) -> None:
    bare = synthetic_scores("b2-bare", dims_of(CONFIG), ScoreSpec(ppl_blocks=0))
    with pytest.raises(UserError, match=told):
        make_plan(bare, CONFIG, Targets(intermediate_size=8), rank)


@pytest.mark.parametrize(
    ("rank", "told"),
    [
        (RankSpec(batch="max"), "batch: must be one of mean, l2, var; got 'max'"),
        (RankSpec(protect_first=-1), "protect_first: must be 0 or more"),
    ],
)
def test_a_ranking_that_makes_no_sense_is_refused(scores: Scores, rank: RankSpec, told: str) -> None:
    with pytest.raises(UserError, match=told):
        make_plan(scores, CONFIG, Targets(), rank)


def test_the_kept_share_lies_between_nothing_and_all_under_every_criterion(scores: Scores) -> None:
    targets = Targets(num_hidden_layers=3, intermediate_size=11, hidden_size=16, num_key_value_heads=2)
    for axis in ("heads", "neurons", "channels", "layers"):
        for name in criteria_of(axis):
            rank = RankSpec(protect_first=1).by(axis, name)
            assert all(0 < share < 1 for share in kept_share(make_plan(scores, CONFIG, targets, rank), scores).values()), f"{axis} {name}"


@pytest.mark.parametrize(("kept", "expected"), [(5, {5: 6}), (4, {3: 6, 4: 5}), (3, {1: 6, 2: 5, 3: 4}), (2, {1: 4, 2: 3}), (1, {1: 2})])
def test_the_head_ranked_i_takes_in_the_one_ranked_2k_minus_i_plus_1(kept: int, expected: dict[int, int]) -> None:
    """2407.14679, section 2.2, by hand; ranks from 1, of six heads of their own."""
    source = dataclasses.replace(dims_of(CONFIG), heads=6, kv_heads=6)
    rank_of = np.array([3, 0, 5, 1, 4, 2])  # the rank of each head, from 0
    heads = np.sort(np.argsort(rank_of)[:kept])[None]
    partners = partners_of(-rank_of[None].astype(float), heads, source, dataclasses.replace(source, heads=kept, kv_heads=kept))
    found = {int(rank_of[head]) + 1: int(rank_of[partner]) + 1 for head, partner in zip(heads[0], partners[0], strict=True) if partner >= 0}
    assert found == expected


def test_the_residual_stays_within_groups_is_part_of_the_plan_and_goes_with_one_round_only(scores: Scores, tmp_path: Path) -> None:
    targets = Targets(num_attention_heads=4, num_key_value_heads=2)
    rank = RankSpec(head_residual=True)
    plan, plain = make_plan(scores, CONFIG, targets, rank), make_plan(scores, CONFIG, targets, RankSpec())
    assert plan.partners is not None
    group = plan.source.group
    for heads, partners in zip(plan.heads, plan.partners, strict=True):
        taken = [(head, partner) for head, partner in zip(heads, partners, strict=True) if partner >= 0]
        assert all(head // group == partner // group and partner not in heads for head, partner in taken)
        assert len(taken) == min(group - plan.dims.group, plan.dims.group) * plan.dims.kv_heads
    plan.save(tmp_path / "plan.npz")
    assert Plan.load(tmp_path / "plan.npz").identity == plan.identity != plain.identity
    with pytest.raises(UserError, match="needs a cut in one round"):
        make_plan(scores, CONFIG, targets, dataclasses.replace(rank, rounds=2))
