"""A plan as masks on the loaded, uncut model: what the cut would give, without cutting.

Removed heads and neurons are zeroed where the next projection reads them, removed layers passed over, removed channels
zeroed where the residual stream is written and where it is read. RMS normalisation divides by the mean square over all
channels, of which the mask leaves fewer: multiplying by sqrt(kept / all) makes it the cut model's, up to the epsilon.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from core.plan.plan import Plan, keep_masks
from core.score.sites import modules_at, sites_of

Hook = Callable[..., Any]


@contextlib.contextmanager
def masked(model: nn.Module, config: dict[str, Any], plan: Plan) -> Iterator[nn.Module]:
    """Yield the model behaving as if it were cut to ``plan``; afterwards it is what it was."""
    sites, kept = sites_of(config), {name: torch.from_numpy(mask) for name, mask in keep_masks(plan).items()}
    head_channels_LQ = kept["heads"].repeat_interleave(plan.source.head_dim, dim=1)
    handles = []
    for i, layer in enumerate(modules_at(model, sites.layers)):
        if not kept["layers"][i]:
            handles.append(
                layer.register_forward_hook(lambda _, args, output: (args[0], *output[1:]) if isinstance(output, tuple) else args[0])
            )
    for names, masks in ((sites.output_projections, head_channels_LQ), (sites.down_projections, kept["neurons"])):
        handles += [
            module.register_forward_pre_hook(_zero_input(mask)) for module, mask in zip(modules_at(model, names), masks, strict=True)
        ]
    if not kept["channels"].all():
        handles += _mask_channels(model, sites, kept["channels"])
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


def _mask_channels(model: nn.Module, sites: Any, kept_D: torch.Tensor) -> list[Any]:
    """Hooks that take the removed channels out of the residual stream and of every normalisation."""
    writers = (sites.embedding, *sites.output_projections, *sites.down_projections)
    readers = (*(name for names in sites.norms for name in names), sites.final_norm)
    scale = math.sqrt(int(kept_D.sum()) / len(kept_D))
    handles = [module.register_forward_hook(_scale_output(kept_D.float())) for module in modules_at(model, writers)]
    return handles + [module.register_forward_hook(_scale_output(kept_D.float() * scale)) for module in modules_at(model, readers)]


def _zero_input(mask: torch.Tensor) -> Hook:
    return lambda _, args: (args[0] * mask.to(args[0]), *args[1:])


def _scale_output(scale_D: torch.Tensor) -> Hook:
    return lambda _, args, output: output * scale_D.to(output)
