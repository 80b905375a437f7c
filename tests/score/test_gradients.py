"""Derivatives of the loss to units' gates: by another way through the model, and by really closing gates a little."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from core.errors import UserError
from core.score.batch import Batch
from core.score.gradients import gate_gradients, gradient_sums, loss_gradient
from core.score.scoring import score_model
from core.specs import ScoreSpec
from tests.score.oracles import gate_derivatives
from tests.score.world import KINDS, block_losses, exact_model, hooks_left, world
from tests.tiny import random_blocks, tiny_model


def gradients(model: Any, blocks_NT: np.ndarray) -> dict[str, np.ndarray]:
    found = gate_gradients(model, model.config.to_dict(), Batch(torch.from_numpy(blocks_NT).long()))
    return {axis: values.numpy() for axis, values in found.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_gate_gradients_are_those_of_gates_written_into_the_weights(kind: str) -> None:
    here = world(kind)
    found = gradients(here.model, here.blocks_NT[: here.spec.gradient_blocks])
    for axis in ("heads", "neurons", "channels"):
        expected = gate_derivatives(here, axis)
        values = found[axis][:, 0] if axis == "channels" else found[axis]
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max(), err_msg=axis)


@pytest.mark.parametrize(
    ("axis", "layer", "unit"), [("heads", 0, 2), ("heads", 4, 5), ("neurons", 0, 0), ("neurons", 3, 39), ("channels", None, 7)]
)
def test_gate_gradients_are_what_closing_a_gate_a_little_does(axis: str, layer: int | None, unit: int) -> None:
    model, blocks, step = exact_model("qwen3"), random_blocks(2, 19), 1e-4
    found = gradients(model, blocks)[axis][:, layer or 0, unit]

    def scaled(factor: float) -> torch.Tensor:
        with torch.no_grad():
            hooks = gate(model, axis, layer, unit, factor)
            losses = block_losses(model, blocks)
        for hook in hooks:
            hook.remove()
        return losses

    slope = (scaled(1 + step) - scaled(1 - step)) / (2 * step)
    np.testing.assert_allclose(found, slope.numpy(), rtol=1e-5, atol=1e-8)


def gate(model: Any, axis: str, layer: int | None, unit: int, factor: float) -> list[Any]:
    """Multiply one unit where it is read: a head's 8 columns, a neuron, or a channel after every normalisation in the layers."""
    if axis == "channels":
        scale = torch.ones(24, dtype=torch.float64)
        scale[unit] = factor
        norms = [norm for one in model.model.layers for norm in (one.input_layernorm, one.post_attention_layernorm)]
        return [norm.register_forward_hook(lambda _, args, output: output * scale) for norm in norms]
    part = model.model.layers[layer]
    module, width = (part.self_attn.o_proj, 8) if axis == "heads" else (part.mlp.down_proj, 1)
    scale = torch.ones(module.in_features, dtype=torch.float64)
    scale[unit * width : (unit + 1) * width] = factor
    return [module.register_forward_pre_hook(lambda _, args: (args[0] * scale,))]


def test_the_gradient_of_the_loss_is_autograds() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(3, 11, 24, generator=generator), torch.randn(97, 24, generator=generator)
    ids = torch.randint(0, 97, (3, 11), generator=generator)
    hidden.requires_grad_()
    logits = (hidden @ weight.T)[:, :-1]
    sum(nn.functional.cross_entropy(logits[b], ids[b, 1:]) for b in range(3)).backward()  # type: ignore[union-attr]
    found = loss_gradient(hidden.detach(), weight, Batch(ids))
    torch.testing.assert_close(found, hidden.grad, rtol=1e-5, atol=1e-7)
    assert (found[:, -1] == 0).all(), "the last token predicts nothing"


def test_taylor_and_fisher_are_means_over_blocks_however_they_are_batched() -> None:
    model, blocks = exact_model("llama"), random_blocks(5, 19)
    found = {
        size: gradient_sums(
            model, model.config.to_dict(), (Batch(torch.from_numpy(blocks[i : i + size]).long()) for i in range(0, 5, size))
        )
        for size in (1, 2, 5)
    }
    for name, expected in found[1].items():
        for size in (2, 5):
            np.testing.assert_allclose(found[size][name], expected, rtol=1e-5, err_msg=name)
    single = np.stack([gradients(model, blocks[i : i + 1])["heads"][0] for i in range(5)])
    np.testing.assert_allclose(found[5]["taylor.heads"], np.abs(single).mean(0), rtol=1e-5)
    np.testing.assert_allclose(found[5]["fisher.heads"], (single**2).mean(0), rtol=1e-5)


def test_merged_shards_of_gradients_are_the_whole() -> None:
    model, blocks = exact_model("llama"), random_blocks(7, 19)
    one, three = (score_model(model, blocks, ScoreSpec(shards=shards, ppl_blocks=0, gradient_blocks=5)) for shards in (1, 3))
    assert three.arrays("gradients")["count"].tolist() == [2, 2, 1]
    for name in ("taylor.heads", "fisher.neurons", "taylor.channels"):
        np.testing.assert_allclose(three.mean("gradients", name), one.mean("gradients", name), rtol=1e-5)


def test_a_model_of_quantised_weights_is_refused_by_name_and_left_as_it_was() -> None:
    model = tiny_model()
    projection = model.model.layers[1].mlp.up_proj
    projection.weight = nn.Parameter(torch.ones(40, 24, dtype=torch.int8), requires_grad=False)
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is stored as torch\.int8.*leave out gradient_blocks"):
        gradients(model, random_blocks(1, 8))
    flagged = tiny_model()
    flagged.is_quantized = True
    with pytest.raises(UserError, match=r"the checkpoint is quantised"):
        gradients(flagged, random_blocks(1, 8))
    assert hooks_left(flagged) == hooks_left(model) == 0


@pytest.mark.parametrize("fails", [False, True])
def test_flags_are_restored_weights_get_no_gradient_and_no_hook_stays(fails: bool) -> None:
    model = tiny_model()
    model.model.norm.weight.requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    if fails:
        with pytest.raises(IndexError):
            gradients(model, np.full((1, 8), 97))
    else:
        gradients(model, random_blocks(1, 8))
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert hooks_left(model) == 0


def test_gradients_are_found_where_nobody_else_wants_any() -> None:
    model, blocks = tiny_model(), random_blocks(1, 12)
    with torch.no_grad():
        inside = gradients(model, blocks)
    np.testing.assert_array_equal(inside["neurons"], gradients(model, blocks)["neurons"])
