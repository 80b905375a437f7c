"""Scores against the formulas, computed literally in float64 from every activation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import UserError
from core.model.families import FAMILIES
from core.progress import Silent, Stopped
from core.score.aggregate import aggregate, merge
from core.score.depth import losses_without
from core.score.scoring import compute
from core.score.width import WidthAccumulator, sequence_stats
from core.specs import AGGREGATIONS, ScoreSpec
from tests.tiny import random_blocks, tiny_model

PAIRS = [(batch, sequence) for batch in AGGREGATIONS for sequence in AGGREGATIONS]


def literal(values: np.ndarray, how: str, axis: int) -> np.ndarray:
    """The paper's three aggregations, as printed."""
    if how == "mean":
        return np.abs(values).mean(axis)
    if how == "l2":
        return np.sqrt((values**2).sum(axis))
    return ((values - values.mean(axis, keepdims=True)) ** 2).mean(axis)


def activations(model: Any, blocks: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Every activation that is scored, held whole, float64: site -> ``[N, T, C]``."""
    kept: dict[str, list[np.ndarray]] = {"heads": [], "neurons": [], "gates": [], "channels": [], "in": [], "out": []}

    def keep(site: str, value: torch.Tensor) -> None:
        kept[site].append(value.double().numpy())

    handles = []
    for layer in model.model.layers:
        handles += [
            layer.self_attn.o_proj.register_forward_pre_hook(lambda _, a: keep("heads", a[0])),
            layer.mlp.down_proj.register_forward_pre_hook(lambda _, a: keep("neurons", a[0])),
            layer.mlp.gate_proj.register_forward_hook(lambda _, a, o: keep("gates", o)),
            layer.input_layernorm.register_forward_hook(lambda _, a, o: keep("channels", o)),
            layer.post_attention_layernorm.register_forward_hook(lambda _, a, o: keep("channels", o)),
            layer.register_forward_pre_hook(lambda _, a: keep("in", a[0])),
            layer.register_forward_hook(lambda _, a, o: keep("out", o)),
        ]
    with torch.no_grad():
        model.model(torch.from_numpy(blocks).long())
    for handle in handles:
        handle.remove()
    heads = model.config.num_attention_heads
    kept["heads"] = [np.linalg.norm(a.reshape(*a.shape[:2], heads, -1), axis=-1) for a in kept["heads"]]
    return kept


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_width_scores_equal_the_literal_formulas(kind: str) -> None:
    model, blocks = tiny_model(kind), random_blocks(5, 37)
    held, arrays = activations(model, blocks), compute(model, blocks, ScoreSpec(ppl_blocks=0, batch_size=2), Silent())
    for axis in ("heads", "neurons", "channels"):
        for batch, sequence in PAIRS:
            expected = np.stack([literal(literal(site, sequence, 1), batch, 0) for site in held[axis]])
            np.testing.assert_allclose(
                aggregate(arrays[axis], 5, batch=batch, sequence=sequence), expected, rtol=2e-5, err_msg=f"{axis} {batch} {sequence}"
            )


def test_statistics_keep_their_precision_beside_a_large_mean_and_a_massive_first_token() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(50, 0.1, (3, 129, 7))).float()
    values[:, 0] *= 1000
    expected = np.stack([literal(values.double().numpy(), how, 1) for how in AGGREGATIONS])
    np.testing.assert_allclose(sequence_stats(values).numpy(), expected, rtol=1e-6)
    expected = np.stack([literal(values[:, 1:].double().numpy(), how, 1) for how in AGGREGATIONS])
    np.testing.assert_allclose(sequence_stats(values[:, 1:]).numpy(), expected, rtol=2e-6)


def test_pre_activation_neurons_are_the_gate_before_its_activation() -> None:
    model, blocks = tiny_model(), random_blocks(3, 20)
    arrays = compute(model, blocks, ScoreSpec(neuron_site="pre_activation", ppl_blocks=0), Silent())
    expected = np.stack([literal(literal(site, "mean", 1), "l2", 0) for site in activations(model, blocks)["gates"]])
    np.testing.assert_allclose(aggregate(arrays["neurons"], 3, batch="l2", sequence="mean"), expected, rtol=1e-5)


def test_block_importance_equals_one_minus_the_mean_cosine() -> None:
    model, blocks = tiny_model(), random_blocks(4, 16)
    held, arrays = activations(model, blocks), compute(model, blocks, ScoreSpec(ppl_blocks=0, batch_size=3), Silent())
    for i, (x, y) in enumerate(zip(held["in"], held["out"], strict=True)):
        cosine = (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
        assert arrays["distance"][i] / 4 == pytest.approx(1 - cosine.mean(), rel=1e-5)


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_loss_without_a_layer_equals_a_full_forward_without_it(kind: str) -> None:
    model, ids = tiny_model(kind), torch.from_numpy(random_blocks(2, 24)).long()

    def full(skipped: int | None) -> float:
        handle = None if skipped is None else model.model.layers[skipped].register_forward_hook(lambda _, a, o: a[0])
        with torch.no_grad():
            loss = model(ids, labels=ids).loss.item()
        if handle:
            handle.remove()
        return loss

    expected = [full(None)] + [full(i) for i in range(5)]
    np.testing.assert_allclose(list(losses_without(model, model.config.to_dict(), ids)), expected, rtol=1e-5)


def test_scores_do_not_depend_on_batch_size_or_on_how_the_blocks_are_split() -> None:
    model, blocks = tiny_model(), random_blocks(6, 20)
    whole = compute(model, blocks, ScoreSpec(ppl_blocks=2, batch_size=6), Silent())
    single = compute(model, blocks, ScoreSpec(ppl_blocks=2, batch_size=1), Silent())
    halves = [compute(model, part, ScoreSpec(ppl_blocks=0), Silent()) for part in (blocks[:2], blocks[2:])]
    for axis in ("heads", "neurons", "channels"):
        np.testing.assert_allclose(single[axis], whole[axis], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(merge(halves[0][axis], 2, halves[1][axis], 4), whole[axis], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(single["losses"], whole["losses"], rtol=1e-6)


def test_permuting_neurons_permutes_their_scores_and_nothing_else() -> None:
    model, blocks = tiny_model(), random_blocks(3, 20)
    before = compute(model, blocks, ScoreSpec(ppl_blocks=0), Silent())
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    mlp = model.model.layers[2].mlp
    mlp.gate_proj.weight.data, mlp.up_proj.weight.data = mlp.gate_proj.weight.data[order], mlp.up_proj.weight.data[order]
    mlp.down_proj.weight.data = mlp.down_proj.weight.data[:, order]
    after = compute(model, blocks, ScoreSpec(ppl_blocks=0), Silent())
    np.testing.assert_allclose(after["neurons"][:, :, 2], before["neurons"][:, :, 2][..., order.numpy()], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(after["heads"], before["heads"], rtol=1e-4, atol=1e-6)


def test_scoring_resumes_where_it_was_stopped(tmp_path: Path) -> None:
    class StopAfter(Silent):
        def __init__(self, steps: int) -> None:
            self.left = steps

        def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
            self.left -= 1
            if self.left == 0:
                raise Stopped

    model, blocks, spec = tiny_model(), random_blocks(6, 20), ScoreSpec(ppl_blocks=2, batch_size=2)
    undisturbed = compute(model, blocks, spec, Silent())
    for steps in (2, 5, 8):  # in the activations, in the first removal pass, in the second
        with pytest.raises(Stopped):
            compute(model, blocks, spec, StopAfter(steps), tmp_path / "partial.npz")
    resumed = compute(model, blocks, spec, Silent(), tmp_path / "partial.npz")
    for name, values in undisturbed.items():
        np.testing.assert_array_equal(resumed[name], values, err_msg=name)


def test_activations_that_are_not_finite_are_named() -> None:
    model = tiny_model()
    model.model.layers[3].mlp.gate_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"model\.layers\.3\.mlp\.down_proj are not finite"):
        compute(model, random_blocks(1, 8), ScoreSpec(), Silent())


def test_no_hook_is_left_behind() -> None:
    model = tiny_model()
    compute(model, random_blocks(1, 8), ScoreSpec(ppl_blocks=1), Silent())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert WidthAccumulator(model.config.to_dict()).count == 0
