"""Local distillation: one cut layer learns by gradient to give what the uncut network has at its place, from what the repaired one gives it.

All of the layer's weights learn, for a few steps, after they were fitted in closed form. The loss is the fit's own: squared error,
each token weighed by 1 / mean square of its target. What counts is the error on tokens that are not learnt from; the best state stays
(Puzzle, arXiv 2411.19146, section 3, distils replacement blocks locally in this way).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from core.prune.repair.layer import Layer
from core.specs import RepairSpec

LOOKS = 4
"""How often the held-back error is looked at."""
WARMUP = 0.1
"""Part of the steps in which the rate rises."""

Batch = tuple[Tensor, Tensor]
"""What enters the layer ``[B, T, D']``, and what shall leave it."""


def learn(
    layer: Layer, count: int, batch: Callable[[Sequence[int]], Batch], held_back: Callable[[], Sequence[Batch]], spec: RepairSpec
) -> float:
    """Let a layer learn, in place.

    Args:
        count: how many blocks there are to learn from.
        batch: gives some of them, by number.
        held_back: gives the others, in batches.

    Returns:
        Share of the held-back error that is gone; 0 if it never fell, and then the layer is as it was.
    """
    weights = [layer.tensor(name).requires_grad_() for name in layer.names]
    optimiser = torch.optim.AdamW(weights, lr=spec.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: falling_rate(step, spec.steps))
    order = torch.Generator().manual_seed(0)
    start = lowest = _error(layer, held_back())
    best = [weight.detach().clone() for weight in weights]
    for step in range(1, spec.steps + 1):
        chosen = torch.randperm(count, generator=order)[: spec.batch_size].tolist()
        with torch.enable_grad():
            loss = _loss(layer, *batch(chosen))
            loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % max(1, spec.steps // LOOKS) == 0 and (error := _error(layer, held_back())) < lowest:
            lowest, best = error, [weight.detach().clone() for weight in weights]
    for weight, kept in zip(weights, best, strict=True):
        weight.requires_grad_(False).data = kept
    return 1 - lowest / start if start > 0 else 0.0


def _loss(layer: Layer, x_BTD: Tensor, aim_BTD: Tensor) -> Tensor:
    weight_BT1 = aim_BTD.square().mean(-1, keepdim=True).clamp_min(1e-12).reciprocal()
    return ((layer.run(x_BTD) - aim_BTD).square() * weight_BT1).mean()


@torch.no_grad()
def _error(layer: Layer, batches: Sequence[Batch]) -> float:
    return sum(float(_loss(layer, *batch)) * len(batch[0]) for batch in batches)


def falling_rate(step: int, steps: int) -> float:
    """Share of the peak rate before step ``step`` of ``steps``: linear warm-up, then cosine to a tenth."""
    warm = max(1, round(WARMUP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.55 + 0.45 * math.cos(math.pi * (step - warm) / max(1, steps - warm))
