"""Statistics of activations: their precision, and all that they must not depend on."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import UserError
from core.score.aggregate import STATISTICS, merge, pooled_square, pooled_variance
from core.score.batch import PADDING, Batch
from core.score.criteria.registry import AXES
from core.score.scoring import score_model
from core.score.statistics import TokenStatistics
from core.score.store import Scores
from core.score.width import SITES, WidthAccumulator
from core.specs import RankSpec, ScoreSpec
from tests.score.world import KINDS, exact_model, hold, hooks_left, world
from tests.tiny import random_blocks, tiny_model

PLAIN = ScoreSpec(shards=1, ppl_blocks=0)
ALL_SITES = (*SITES, "gates")


def literally(values_TC: np.ndarray) -> np.ndarray:
    """The four statistics of a block, ``[4, C]``."""
    return np.stack([np.abs(values_TC).mean(0), np.sqrt((values_TC**2).sum(0)), values_TC.var(0), values_TC.mean(0)])


def fed(model: Any, batches: list[np.ndarray], documents: list[np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """What an accumulator has after some batches."""
    accumulator = WidthAccumulator(model.config.to_dict(), ALL_SITES)
    for i, ids_BT in enumerate(batches):
        accumulator.feed(model, Batch(torch.from_numpy(ids_BT).long(), None if documents is None else torch.from_numpy(documents[i])))
    return accumulator.arrays()


def offered(scores: Scores) -> list[tuple[str, str]]:
    """All (axis, criterion) that scores can answer."""
    return [(axis, name) for axis in AXES for name in scores.offered(axis)]


def assert_alike(one: dict[str, np.ndarray], other: dict[str, np.ndarray], rtol: float) -> None:
    """Compare accumulated arrays; deviations between blocks are differences, so they are held to the size of what is squared."""
    assert one.keys() == other.keys()
    for name, expected in other.items():
        if name in ALL_SITES:
            np.testing.assert_allclose(one[name][:, 0], expected[:, 0], rtol=rtol, atol=rtol * np.abs(expected[:, 0]).mean(), err_msg=name)
            scale = (expected[:, 0] ** 2).mean(axis=(1, 2))[:, None, None]
            assert (np.abs(one[name][:, 1] - expected[:, 1]) <= rtol * (expected[:, 1] + scale)).all(), name
        else:
            np.testing.assert_allclose(one[name], expected, rtol=rtol, err_msg=name)


def block_statistics(acts_TC: torch.Tensor, keep_T: torch.Tensor | None = None) -> torch.Tensor:
    """Statistics of one block, ``[4, C]``."""
    return TokenStatistics()(acts_TC[None], None if keep_T is None else keep_T[None])[:, 0]


@pytest.mark.parametrize("tokens", [1, 2, 129, 4099])
@pytest.mark.parametrize("case", ["plain", "large mean", "massive first token", "both", "dead", "constant"])
def test_statistics_keep_their_precision(case: str, tokens: int) -> None:
    rng = np.random.default_rng(tokens)
    values = {
        "plain": rng.normal(0, 1, (tokens, 7)), "large mean": rng.normal(50, 0.1, (tokens, 7)), "massive first token": rng.normal(0, 1, (tokens, 7)),
        "both": rng.normal(-50, 0.1, (tokens, 7)), "dead": np.zeros((tokens, 7)), "constant": np.full((tokens, 7), 0.1),
    }[case].astype(np.float32)  # fmt: skip
    if case in ("massive first token", "both"):
        values[0] *= 3000
    before, expected = values.copy(), literally(values.astype(float))
    found = block_statistics(torch.from_numpy(values)).numpy()
    np.testing.assert_array_equal(values, before, err_msg="activations are not changed")
    assert (found[2] >= 0).all()
    np.testing.assert_allclose(found[:3], expected[:3], rtol=5e-6, atol=1e-12)
    np.testing.assert_allclose(found[3], expected[3], rtol=2e-6, atol=2e-6 * np.abs(expected[0]).max())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_statistics_of_any_float_dtype_are_those_of_its_values(dtype: torch.dtype) -> None:
    values = torch.from_numpy(np.random.default_rng(3).normal(2, 1, (301, 5))).to(dtype)
    np.testing.assert_allclose(block_statistics(values).numpy(), literally(values.double().numpy()), rtol=3e-6)


def test_statistics_pass_over_tokens_that_do_not_count_whatever_they_hold() -> None:
    values, keep = torch.randn(50, 6, generator=torch.Generator().manual_seed(1)), torch.arange(50) % 3 != 0
    values[~keep] = float("nan")
    np.testing.assert_allclose(block_statistics(values, keep).numpy(), literally(values[keep].double().numpy()), rtol=3e-6)


def test_sums_and_variances_over_all_tokens_follow_from_the_blocks() -> None:
    here = world("llama")
    moments, count = here.scores.moments("neurons")
    tokens = here.read("neurons")
    np.testing.assert_allclose(pooled_square(moments, count), (tokens**2).sum(1), rtol=1e-6)
    np.testing.assert_allclose(pooled_variance(moments, count), tokens.var(1), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_do_not_depend_on_the_batch_size(kind: str) -> None:
    model, blocks = exact_model(kind), random_blocks(6, 19)
    whole = fed(model, [blocks])
    for size in (1, 4, 5):
        assert_alike(fed(model, [blocks[i : i + size] for i in range(0, 6, size)]), whole, rtol=1e-6)


def test_scores_do_not_depend_on_the_order_of_the_blocks() -> None:
    model, blocks = exact_model("llama"), random_blocks(6, 19)
    assert_alike(fed(model, [blocks[[4, 2, 0]], blocks[[5, 1, 3]]]), fed(model, [blocks]), rtol=1e-6)


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 6])
def test_merged_shards_are_the_whole(shards: int) -> None:
    model, blocks = exact_model("llama"), random_blocks(6, 19)
    scores, whole = score_model(model, blocks, ScoreSpec(shards=shards, ppl_blocks=0, pre_activation=True)), fed(model, [blocks])
    found = {site: scores.moments(site)[0] for site in SITES} | {"gates": scores.moments("gates", "pre_activations")[0]}
    assert [scores.moments(site)[1] for site in SITES] == [6] * 4
    assert scores.arrays("activations")["count"].tolist() == [len(range(shard, 6, shards)) for shard in range(shards)]
    assert_alike(found | {"distance": scores.mean("activations", "distance"), "count": np.array(6)}, whole, rtol=1e-6)


def test_some_shards_are_the_blocks_that_were_dealt_to_them() -> None:
    model, blocks = exact_model("llama"), random_blocks(7, 19)
    scores = score_model(model, blocks, ScoreSpec(shards=3, ppl_blocks=0)).on((0, 2))
    alone = score_model(model, np.concatenate([blocks[0::3], blocks[2::3]]), PLAIN)
    for axis in ("heads", "neurons", "channels", "layers"):
        np.testing.assert_allclose(scores.importance(axis, RankSpec()), alone.importance(axis, RankSpec()), rtol=1e-6)


def test_merging_is_what_one_pass_would_give_and_nothing_merges_with_nothing() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.normal(5, 1, (9, 4, 2, 3))

    def moments(part: np.ndarray) -> np.ndarray:
        return np.stack([part.mean(0), ((part - part.mean(0)) ** 2).sum(0)], axis=1)

    np.testing.assert_allclose(merge(moments(blocks[:2]), 2, moments(blocks[2:]), 7), moments(blocks), rtol=1e-12)
    empty = np.zeros((4, 2, 2, 3))
    np.testing.assert_array_equal(merge(empty, 0, empty, 0), empty)
    np.testing.assert_allclose(merge(empty, 0, moments(blocks), 9), moments(blocks), rtol=1e-12)
    assert len(STATISTICS) == 4


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3", "smollm3"])
def test_a_padded_batch_gives_what_its_blocks_give_alone(kind: str) -> None:
    model, lengths = exact_model(kind), (19, 11, 14)
    blocks = random_blocks(3, 19)
    keep = np.stack([np.arange(19) < length for length in lengths])
    keep[2] = keep[2, ::-1]  # one is padded on its left
    padded = fed(model, [np.where(keep, blocks, 0)], [np.where(keep, 0, PADDING)])
    alone = fed(model, [blocks[i : i + 1, row] for i, row in enumerate(keep)])
    assert_alike(padded, alone, rtol=1e-6)
    rubbish = fed(model, [np.where(keep, blocks, 96)], [np.where(keep, 7, PADDING)])
    assert_alike(rubbish, padded, rtol=1e-12)


def test_permuting_neurons_permutes_their_scores_and_nothing_else() -> None:
    spec = ScoreSpec(shards=2, ppl_blocks=2, gradient_blocks=4, covariances=True, pre_activation=True, windows=(2,), greedy=2)
    model, blocks = exact_model("llama"), random_blocks(4, 19)
    before = score_model(model, blocks, spec)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    mlp = model.model.layers[2].mlp
    mlp.gate_proj.weight.data, mlp.up_proj.weight.data = mlp.gate_proj.weight.data[order], mlp.up_proj.weight.data[order]
    mlp.down_proj.weight.data = mlp.down_proj.weight.data[:, order]
    after = score_model(model, blocks, spec)
    for axis, name in offered(before):
        rank = RankSpec().by(axis, name)
        expected = before.importance(axis, rank, 2)
        if axis == "neurons":
            expected[2] = expected[2, order.numpy()]
        np.testing.assert_allclose(after.importance(axis, rank, 2), expected, rtol=1e-6, err_msg=f"{axis} {name}")


def test_the_same_seed_gives_the_same_bits() -> None:
    spec = ScoreSpec(shards=2, ppl_blocks=2, gradient_blocks=4, covariances=True, pre_activation=True, windows=(2,), greedy=2)
    one, other = (score_model(tiny_model(), random_blocks(5, 19), spec) for _ in range(2))
    assert_same_bits(one, other)


def assert_same_bits(one: Scores, other: Scores) -> None:
    """All passes of two scores are equal, but for the time that they took."""
    assert set(one.meta["passes"]) == set(other.meta["passes"])
    for item in one.meta["passes"]:
        first, second = ({name: values for name, values in scores.arrays(item).items() if name != "seconds"} for scores in (one, other))
        assert first.keys() == second.keys()
        for name, values in first.items():
            assert values.tobytes() == second[name].tobytes(), f"{item} {name}"


@pytest.mark.parametrize(("dtype", "alike"), [(torch.float32, 1 - 1e-6), (torch.bfloat16, 0.97)])
def test_a_rounded_model_scores_about_as_the_exact_one_does(dtype: torch.dtype, alike: float) -> None:
    spec = ScoreSpec(shards=1, ppl_blocks=2, gradient_blocks=4, covariances=True, pre_activation=True, windows=(2,))
    blocks = random_blocks(4, 19)
    exact, rounded = (score_model(model, blocks, spec) for model in (tiny_model().double(), tiny_model().to(dtype)))
    for axis, name in offered(exact):
        rank = RankSpec().by(axis, name)
        expected, found = (scores.importance(axis, rank, 2).ravel() for scores in (exact, rounded))
        assert np.isfinite(found).all()
        assert np.corrcoef(expected, found)[0, 1] > alike, f"{axis} {name}"


def test_a_massive_token_does_not_drown_the_others_in_the_scores_of_a_model() -> None:
    model = exact_model("llama")
    model.model.embed_tokens.weight.data[5] *= 1e4
    blocks = random_blocks(3, 19)
    blocks[:, 0] = 5
    found, single = fed(model, [blocks]), fed(model.float(), [blocks])
    np.testing.assert_allclose(single["distance"], found["distance"], rtol=1e-4)


def test_block_importance_looks_at_what_a_layer_really_gets() -> None:
    model, blocks = exact_model("llama"), random_blocks(3, 19)
    shifting = model.model.layers[2].register_forward_pre_hook(lambda _, args: (args[0] + 5, *args[1:]))
    try:
        entered, scores = hold(model, blocks)["entered"], score_model(model, blocks, PLAIN)
    finally:
        shifting.remove()
    left = np.linalg.norm(entered[2:], axis=-1)
    expected = 1 - ((entered[2] * entered[3]).sum(-1) / left[0] / left[1]).mean()
    assert scores.importance("layers", RankSpec())[2] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ("mlp.gate_proj", r"model\.layers\.3\.mlp\.down_proj are not finite"), ("self_attn.v_proj", r"model\.layers\.3\.self_attn\.o_proj are not finite"),
        ("post_attention_layernorm", r"model\.layers\.3\.post_attention_layernorm are not finite"),
    ],
)  # fmt: skip
def test_activations_that_are_not_finite_are_named(broken: str, named: str) -> None:
    model = tiny_model()
    model.get_submodule(f"model.layers.3.{broken}").weight.data[:] = 3e38  # finite, but what it gives is not
    with pytest.raises(UserError, match=named):
        score_model(model, random_blocks(2, 8), PLAIN)
    assert hooks_left(model) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_with_the_place(value: float) -> None:
    model = tiny_model()
    model.model.layers[3].mlp.gate_proj.weight.data[7, 0] = value
    with pytest.raises(UserError, match=r"magnitude\.neurons is not finite at \(3, 7\)"):
        score_model(model, random_blocks(2, 8), PLAIN)


def test_a_token_whose_embedding_is_zero_does_not_make_block_importance_nothing() -> None:
    model, blocks = exact_model("llama"), random_blocks(2, 8)
    model.model.embed_tokens.weight.data[blocks[0, 0]] = 0
    scores = score_model(model, blocks, dataclasses.replace(PLAIN, ppl_blocks=2))
    for name in scores.offered("layers"):
        assert np.isfinite(scores.importance("layers", RankSpec(depth=name))).all(), name


def test_no_hook_is_left_behind() -> None:
    model = tiny_model()
    fed(model, [random_blocks(1, 8)])
    assert hooks_left(model) == 0
    with pytest.raises(IndexError):
        fed(model, [np.full((1, 8), 97)])
    assert hooks_left(model) == 0
