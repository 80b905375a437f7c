"""One decoder layer that runs by itself, so that of a large model no more than that is in memory.

It is transformers' own model of one layer and a vocabulary of one: masks, rotary positions and sliding windows are its, none ours.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from core.errors import UserError
from core.model.dims import Config, Dims, layer_axes, resized_config
from core.score.sites import sites_of


class Enough(Exception):
    """Ends a forward pass as soon as what was wanted is there."""


class Layer:
    """Layer ``index`` of a model of this config, cut to ``dims``. Its tensors are named as in a model of one layer."""

    def __init__(self, config: Config, dims: Dims, index: int, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Build it around ``tensors``, computing in float32.

        Raises:
            UserError: the family's layers are not two normalisations, each followed by what reads it.
        """
        one = resized_config(config, replace(dims, layers=1), [index]) | {"vocab_size": 1}
        one |= {key: None for key in ("pad_token_id", "bos_token_id", "eos_token_id")}
        self.sites = sites_of(one)
        if len(self.sites.norms[0]) != 2 or not all(self.sites.readers):
            raise UserError(f"{config['model_type']} models cannot be repaired: their layers are not two normalisations with readers.")
        self.model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**one)).eval().to(device)
        self.names = tuple(layer_axes(one, 0))
        for name, tensor in tensors.items():
            self.tensor(name).data = tensor.to(device, torch.float32)

    def tensor(self, name: str) -> nn.Parameter:
        """One of its weights."""
        return self.model.get_parameter(name)

    def module(self, name: str) -> Any:
        """One of its modules, by a name of ``sites``."""
        return self.model.get_submodule(name)

    def run(self, x_BTD: Tensor) -> Tensor:
        """What leaves the layer."""
        return _caught(self.module(self.sites.layers[0]), lambda: self._forward(x_BTD), output=True)

    def middle(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """The residual stream between attention and MLP, and what leaves the layer."""
        found: list[Tensor] = []
        with self.module(self.sites.norms[0][1]).register_forward_pre_hook(lambda _, args: found.append(args[0])):
            out_BTD = self.run(x_BTD)
        return found[0], out_BTD

    def heads(self, x_BTD: Tensor) -> Tensor:
        """What the output projection reads, ``[B, T, H * head_dim]``."""
        return _caught(self.module(self.sites.output_projections[0]), lambda: self._forward(x_BTD))

    def neurons(self, mid_BTD: Tensor) -> Tensor:
        """What the down projection reads, ``[B, T, F]``."""
        name = self.sites.down_projections[0]
        block, norm = self.module(name.rpartition(".")[0]), self.module(self.sites.norms[0][1])
        return _caught(self.module(name), lambda: block(norm(mid_BTD)))

    def _forward(self, x_BTD: Tensor) -> Any:
        return self.model.get_decoder()(inputs_embeds=x_BTD, use_cache=False)


def _caught(module: nn.Module, call: Callable[[], Any], *, output: bool = False) -> Tensor:
    """Let ``call`` run until ``module`` is reached; return what goes into it, or comes out."""
    found: list[Tensor] = []

    def take(value: Any) -> None:
        found.append(value[0] if isinstance(value, tuple) else value)
        raise Enough

    hook = (
        module.register_forward_hook(lambda _, args, made: take(made))
        if output
        else module.register_forward_pre_hook(lambda _, args: take(args))
    )
    with hook, contextlib.suppress(Enough):
        call()
    return found[0]
