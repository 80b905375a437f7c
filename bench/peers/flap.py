"""FLAP (An et al., arXiv 2312.11983): weighted input variance, equation 5, and a bias that stands in for what is removed, equation 8.

With equal widths in every layer, so that the shape is stock; its bias on the down projection is counted. Its heads are means over
their channels, here summed over a key-value group so that grouped-query attention stays rectangular.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bench.peers.ground import Cut, Ground, read_everywhere
from core.plan.plan import Plan, keep_masks
from core.prune.mask import masked
from core.specs import RankSpec

FLUCTUATION = RankSpec(heads="flap", neurons="flap")


def ffn(ground: Ground, share: float) -> Cut:
    """Neurons only, no bias."""
    return ground.selection(ground.keep(ground.ffn_for(share), ground.scores(), FLUCTUATION))


def ffn_with_bias(ground: Ground, share: float) -> Cut:
    """Neurons only, and a bias on every down projection."""
    return _with_bias(ground, ground.keep(ground.ffn_for(share), ground.scores(), FLUCTUATION), projections=1)


def groups_and_ffn_with_bias(ground: Ground, share: float) -> Cut:
    """One key-value group less, the rest from neurons, and a bias on every output and down projection."""
    sizes = {"num_key_value_heads": ground.dims.kv_heads - 1, "num_attention_heads": ground.dims.heads - ground.dims.group}
    return _with_bias(ground, ground.keep(ground.ffn_for(share, **sizes), ground.scores(), FLUCTUATION), projections=2)


def _with_bias(ground: Ground, plan: Plan, projections: int) -> Cut:
    """The selection, with the mean of what each projection no longer reads put in as its bias."""
    masks, dims = keep_masks(plan), ground.dims
    heads_LQ = masks["heads"].repeat(dims.head_dim, axis=1)
    sites = [(layer.mlp.down_proj, torch.from_numpy(masks["neurons"][i])) for i, layer in enumerate(ground.layers())]
    sites += [(layer.self_attn.o_proj, torch.from_numpy(heads_LQ[i])) for i, layer in enumerate(ground.layers())]
    sites = [(module, kept_C) for module, kept_C in sites if not kept_C.all()]
    biases = [
        module.weight.detach()[:, ~kept_C] @ mean_C[~kept_C]
        for (module, kept_C), mean_C in zip(sites, _means(ground, [module for module, _ in sites]), strict=True)
    ]

    @contextlib.contextmanager
    def apply() -> Iterator[Any]:
        handles = [module.register_forward_hook(_add(bias_D)) for (module, _), bias_D in zip(sites, biases, strict=True)]
        with masked(ground.model, ground.config, plan) as model:
            yield model
        for handle in handles:
            handle.remove()

    extra = projections * dims.layers * dims.hidden
    return Cut(parameters=ground.parameters(plan.targets) + extra, apply=apply, note="its bias needs a config that allows one")


def _add(bias_D: Tensor) -> Any:
    return lambda module, args, output: output + bias_D


def _means(ground: Ground, modules: list[nn.Module]) -> list[Tensor]:
    """Mean of what each module reads, over all calibration tokens."""
    sums = [torch.zeros(module.weight.shape[1]) for module in modules]
    read_everywhere(ground, modules, lambda i, rows_NC: sums[i].add_(rows_NC.sum(0)))
    return [total / ground.calibration_NT.numel() for total in sums]
