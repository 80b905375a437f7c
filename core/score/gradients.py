"""Importance from gradients: what the loss would do if a unit's gate were closed a little.

Every unit's output is thought to be multiplied by a gate of 1. The derivative of a block's loss to the gate is the sum over
tokens of activation times gradient; its absolute value is the first-order Taylor estimate of the loss without the unit
(Molchanov et al., arXiv 1906.10771, equation 8), its square the unit's diagonal Fisher information (Kwon et al., arXiv
2204.09656, equation 9). Both are means over blocks. No weight gets a gradient, so a pass costs about two further forwards.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.errors import UserError
from core.model.dims import Config, dims_of
from core.model.head import head_weight, log_partition, logits_in_chunks, wide
from core.score.batch import Batch
from core.score.sites import modules_at, site_sizes, sites_of

SITES = ("heads", "neurons", "channels")


def gate_gradients(model: PreTrainedModel, config: Config, batch: Batch) -> dict[str, Tensor]:
    """Derivative of every block's loss to every gate, float64 on the CPU: heads ``[B, L, H]``, neurons ``[B, L, F]``, channels ``[B, 1, D]``.

    A channel's gate stands at the output of every normalisation inside the layers. The loss is the mean over a block's next tokens
    (of the same document). Padding gets no gradient: nothing that is predicted looks at it.

    Raises:
        UserError: the weights are quantised, so nothing can be differentiated.
    """
    check_differentiable(model)
    gates = make_gates(model, config, len(batch.ids_BT))
    frozen = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.requires_grad_(False)
    try:
        with _hung_in(model, config, gates), torch.enable_grad():
            hidden_BTD = batch.states(model)
            hidden_BTD.backward(loss_gradient(hidden_BTD.detach(), head_weight(model), batch))
    finally:
        for parameter, before in frozen:
            parameter.requires_grad_(before)
    return {site: torch.stack([_derivative(gate) for gate in of_site], dim=1) for site, of_site in gates.items()}


def _derivative(gate: Tensor) -> Tensor:
    assert gate.grad is not None
    return gate.grad.cpu().double()


def check_differentiable(model: nn.Module) -> None:
    """Refuse a model whose weights are stored in a quantised dtype.

    Raises:
        UserError: they are.
    """
    wrong = next((name for name, weight in model.named_parameters() if not weight.is_floating_point()), None)
    if wrong is not None or getattr(model, "is_quantized", False):
        told = f"{wrong} is stored as {model.get_parameter(wrong).dtype}" if wrong else "the checkpoint is quantised"
        raise UserError(
            f"Taylor and Fisher importance need gradients, but {told}. Load the model in float32 or bfloat16, or leave out gradient_blocks."
        )


def make_gates(model: nn.Module, config: Config, blocks: int) -> dict[str, list[Tensor]]:
    """Ones that will receive the derivatives, a row a block: one tensor a place, but a single one for all normalisations."""
    sizes, weight = site_sizes(config, dims_of(config)), head_weight(model)

    def gate(units: int) -> Tensor:
        return torch.ones(blocks, units, dtype=weight.dtype, device=weight.device, requires_grad=True)

    return {site: [gate(sizes[site][1]) for _ in range(1 if site == "channels" else sizes[site][0])] for site in SITES}


@contextlib.contextmanager
def _hung_in(model: nn.Module, config: Config, gates: dict[str, list[Tensor]]) -> Iterator[None]:
    """Multiply every unit by its gate while the block runs."""
    sites, dims = sites_of(config), dims_of(config)
    handles = []
    for projection, gate_BH in zip(modules_at(model, sites.output_projections), gates["heads"], strict=True):
        handles.append(projection.register_forward_pre_hook(_gate_input(gate_BH, dims.head_dim)))
    for projection, gate_BF in zip(modules_at(model, sites.down_projections), gates["neurons"], strict=True):
        handles.append(projection.register_forward_pre_hook(_gate_input(gate_BF, 1)))
    handles += [
        norm.register_forward_hook(lambda _, args, output: output * gates["channels"][0][:, None])
        for norm in modules_at(model, sites.all_norms)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _gate_input(gate_BU: Tensor, width: int) -> Callable[..., Any]:
    """A hook that multiplies what a module reads by gates, each of which stands for ``width`` channels."""
    return lambda _, args: (args[0] * gate_BU.repeat_interleave(width, dim=1)[:, None],)


@torch.no_grad()
def loss_gradient(hidden_BTD: Tensor, weight_VD: Tensor, batch: Batch) -> Tensor:
    """Gradient of every block's mean next-token loss to its final hidden states ``[B, T, D]``, a few tokens' logits at a time."""
    gradient_BTD = torch.zeros_like(hidden_BTD)
    hidden_ND, targets_N = hidden_BTD[:, :-1][batch.predicts], batch.ids_BT[:, 1:][batch.predicts]
    partition_N = log_partition(hidden_ND, weight_VD)
    found_ND = torch.empty_like(hidden_ND)
    for rows, logits_CV in logits_in_chunks(hidden_ND, weight_VD):
        error_CV = (wide(logits_CV) - partition_N[rows, None]).exp_()
        error_CV[torch.arange(len(error_CV)), targets_N[rows]] -= 1
        found_ND[rows] = error_CV.to(weight_VD.dtype) @ weight_VD
    gradient_BTD[:, :-1][batch.predicts] = found_ND
    gradient_BTD /= batch.predicts.sum(1)[:, None, None]
    return gradient_BTD


def gradient_sums(model: PreTrainedModel, config: Config, batches: Iterator[Batch]) -> dict[str, np.ndarray]:
    """Mean over blocks of the gates' derivatives, absolute and squared: ``taylor.SITE`` and ``fisher.SITE``."""
    sums: dict[str, Any] = {}
    count = 0
    for batch in batches:
        for site, gradient_BSU in gate_gradients(model, config, batch).items():
            for name, values_BSU in (("taylor", gradient_BSU.abs()), ("fisher", gradient_BSU.square())):
                sums[f"{name}.{site}"] = sums.get(f"{name}.{site}", 0.0) + values_BSU.sum(0).numpy()
        count += len(batch.ids_BT)
    return {name: total / count for name, total in sums.items()} | {"count": np.array(count)}
