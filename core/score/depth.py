"""Importance of a layer as the loss without it (Kim et al., Shortened LLaMA, arXiv 2402.02834).

Leaving out layer i changes nothing before it, so the hidden states that enter layer i + 1 in its stead are taken from one
ordinary forward pass, and only the layers behind it run again: half the work of L full passes. The output head is applied
in chunks of tokens (see ``core.model.head``), and logits are never held for a whole batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from core.model.head import body, head_weight, token_losses
from core.score.sites import Sites, modules_at, sites_of


@dataclass
class Prefix:
    """One batch's ordinary forward pass: what entered each layer, and the arguments that came with it."""

    entered: list[torch.Tensor]
    """``[B, T, D]`` for every layer."""
    arguments: list[dict[str, Any]]
    """Positions and masks, which may differ from layer to layer."""
    left: torch.Tensor
    """``[B, T, D]``, the output of the last layer, before the final norm."""


def losses_without(model: nn.Module, config: dict[str, Any], ids_BT: torch.Tensor) -> Iterator[float]:
    """Yield the uncut model's loss, then the loss without layer 0, 1, ...: nats a token, mean over the batch."""
    sites = sites_of(config)
    layers = modules_at(model, sites.layers)
    with torch.no_grad():
        prefix = run_prefix(model, sites, ids_BT)
        yield _loss(model, sites, prefix.left, ids_BT)
        for i in range(len(layers)):
            hidden_BTD = prefix.entered[i]
            for j in range(i + 1, len(layers)):
                output = layers[j](hidden_BTD, **prefix.arguments[j])
                hidden_BTD = output[0] if isinstance(output, tuple) else output
            yield _loss(model, sites, hidden_BTD, ids_BT)


def run_prefix(model: nn.Module, sites: Sites, ids_BT: torch.Tensor) -> Prefix:
    """Run the body once and keep what entered every layer."""
    inputs: list[torch.Tensor] = []
    arguments: list[dict[str, Any]] = []
    final: list[torch.Tensor] = []

    def entering(_: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> None:
        inputs.append(args[0])
        arguments.append(kwargs)

    layers = modules_at(model, sites.layers)
    handles = [layer.register_forward_pre_hook(entering, with_kwargs=True) for layer in layers]
    handles.append(model.get_submodule(sites.final_norm).register_forward_pre_hook(lambda _, args: final.append(args[0])))
    try:
        body(model)(ids_BT, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return Prefix(inputs, arguments, final[0])


def _loss(model: nn.Module, sites: Sites, hidden_BTD: torch.Tensor, ids_BT: torch.Tensor) -> float:
    """Mean next-token loss from the last layer's output."""
    normed_BTD = model.get_submodule(sites.final_norm)(hidden_BTD)
    return token_losses(normed_BTD[:, :-1], head_weight(model), ids_BT[:, 1:]).double().mean().item()
