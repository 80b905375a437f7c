"""Forward KL by Liger Kernel's fused head (arXiv 2410.10989), on a CUDA device where that package is installed.

Its generalised JSD over two heads at beta 0 is our forward KL, but for the factors T^2 and valid tokens over ``normaliser``. It takes
one loss and no look at others, so whatever else is learnt from, and every other device, stays with ``core.distill.fused``. In
Triton's interpreter its values and gradients are ours (``tests/distill/test_liger.py``); it was never run on an accelerator.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from core.distill.losses import Objective
from core.model.head import IGNORED, token_losses

FORWARD, NO_LABELS = 0.0, None


@cache
def is_installed() -> bool:
    """Whether the optional package ``liger-kernel`` is there."""
    return find_spec("liger_kernel") is not None


def is_fit(objective: Objective, device: torch.device) -> bool:
    """Whether Liger computes the very same: forward KL alone is learnt from, and nothing but the cross-entropy is looked at beside it."""
    learnt = {name for name, weight in objective.weights.items() if weight}
    return device.type == "cuda" and learnt == {"kl"} and set(objective.weights) <= {"kl", "ce"} and is_installed()


def liger_losses(
    student_ND: Tensor, student_head_VD: Tensor, teacher_NE: Tensor, teacher_head_VE: Tensor, targets_N: Tensor, objective: Objective,
    *, normaliser: Tensor | float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As ``core.distill.fused.fused_losses``, for an objective that ``is_fit``; at least one position must be valid."""
    from liger_kernel.ops import LigerFusedLinearJSDFunction

    device = student_ND.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else student_head_VD.dtype
    valid_N, count = targets_N != IGNORED, max(float(normaliser), 1.0)
    with torch.autocast(device, enabled=False):
        pairs = [
            tensor.to(dtype) for tensor in (student_ND[valid_N], student_head_VD, teacher_NE[valid_N].detach(), teacher_head_VE.detach())
        ]
        mean = LigerFusedLinearJSDFunction.apply(*pairs, NO_LABELS, FORWARD, IGNORED, objective.temperature, torch.float32, None, None)
        kl = mean * (len(pairs[0]) * objective.temperature**2 / count)
        seen = {"kl": kl.detach()}
        if "ce" in objective.weights:
            seen["ce"] = token_losses(pairs[0].detach()[None], pairs[1].detach(), targets_N[valid_N][None]).sum() / count
    return objective.weights["kl"] * kl, torch.stack([seen[name] for name in objective.weights])
