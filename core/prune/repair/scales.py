"""One scale for every unit, learnt from the uncut model's predictions and folded into the weights that are there.

Least squares aim at the residual stream, where every error counts alike; predictions know which of them matter. A scale for each
channel of every normalisation, each neuron and each channel that the attention's heads give is what may change: so few numbers that
a calibration set does not overfit them soon, and none of them is left in the model (GRASPrune, arXiv 2604.19398, section 3, learns
scales of kept units like this). The loss is the forward Kullback-Leibler divergence of whole next-token distributions.

Unlike the fits, this has both models in memory, and goes backwards through the cut one.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.model.head import head_weight, hidden_states, logits_in_chunks
from core.prune.repair.local import falling_rate
from core.score.sites import sites_of
from core.specs import RepairSpec

HELD_BACK = 16
"""One block in so many, and one at least, is not learnt from but chosen by."""
LEAST = 0.05
"""No scale is smaller: it would silence a unit, and turn it round beyond 0."""


class Scales:
    """The scales of one model, ``1 + s``; in effect while the context lasts."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Put a scale on every unit; all are 1."""
        sites = sites_of(model.config.to_dict())
        self.norms = [model.get_submodule(name) for name in (*sites.all_norms, sites.final_norm)]
        self.writers = [model.get_submodule(name) for name in (*sites.output_projections, *sites.down_projections)]
        sizes = [len(norm.weight) for norm in self.norms] + [writer.weight.shape[1] for writer in self.writers]
        device = self.norms[0].weight.device
        self.values = [torch.ones(size, device=device, requires_grad=True) for size in sizes]

    def __enter__(self) -> "Scales":
        norms, writers = self.values[: len(self.norms)], self.values[len(self.norms) :]
        self._hooks = [
            *(norm.register_forward_hook(lambda _, args, out, s=s: out * s) for norm, s in zip(self.norms, norms, strict=True)),
            *(each.register_forward_pre_hook(lambda _, args, s=s: args[0] * s) for each, s in zip(self.writers, writers, strict=True)),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def copy(self) -> list[Tensor]:
        """What they are now."""
        return [value.detach().clone() for value in self.values]


@torch.no_grad()
def fold(scales: Scales, values: Sequence[Tensor]) -> None:
    """Multiply scales into the gains of the normalisations, and into the columns of what reads heads and neurons."""
    for module, scale in zip((*scales.norms, *scales.writers), values, strict=True):
        module.weight.data = (module.weight * scale).to(module.weight.dtype)


def learn_scales(
    student: PreTrainedModel, uncut: PreTrainedModel, blocks_NT: np.ndarray, spec: RepairSpec, told: Callable[[], Any] = lambda: None
) -> float:
    """Learn a scale for every unit of the cut model and fold it in, in place.

    One step of AdamW a block, ``spec.passes`` times over the blocks but those held back: the scales of the pass after which these
    diverge least are taken.

    Args:
        student: the cut model; ``uncut`` may be wider, its vocabulary is the same.
        blocks_NT: what is learnt on and chosen by.
        told: called after every block that a model has gone over, ``looks`` times; may raise to stop, and then nothing is changed.

    Returns:
        Share of the held-back divergence that is gone; 0 if it never fell, or there are fewer than two blocks, and then no weight has changed.
    """
    if len(blocks_NT) < 2:
        return 0.0
    ids_NT = torch.from_numpy(np.array(blocks_NT)).long().to(student.device)
    chosen_by = held_back(len(ids_NT))
    learnt = [block for block in range(len(ids_NT)) if block not in chosen_by]
    with frozen(student), Scales(student) as scales:
        compare = Comparison(student, uncut, ids_NT, told)
        start = lowest = compare.mean(chosen_by)
        best = scales.copy()
        optimiser = torch.optim.AdamW(scales.values, betas=(0.9, 0.98), weight_decay=0.0)
        for number in range(spec.passes):
            _pass(scales, compare, learnt, number, optimiser, spec)
            if (found := compare.mean(chosen_by)) < lowest:
                lowest, best = found, scales.copy()
    if lowest < start:
        fold(scales, best)
    return 1 - lowest / start if lowest < start else 0.0


def looks(blocks: int, passes: int) -> int:
    """How often a model goes over a block: the uncut one once over each, the cut one over those held back, then over all in every pass."""
    return blocks + len(held_back(blocks)) + passes * blocks if blocks > 1 else 0


def held_back(blocks: int) -> list[int]:
    """Which of the blocks scales are not learnt from but chosen by; none of a single one.

    Nothing may have been fitted on these either: a fit knows its blocks by heart, and what helps elsewhere seems to do harm there.
    """
    return list(range(HELD_BACK - 1, blocks, HELD_BACK)) or list(range(blocks))[1:][-1:]


@contextlib.contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """Let no weight of a model learn."""
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


class Comparison:
    """How far the cut model's predictions are from the uncut one's, block by block."""

    def __init__(self, student: PreTrainedModel, uncut: PreTrainedModel, ids_NT: Tensor, told: Callable[[], Any] = lambda: None) -> None:
        """See what the uncut model gives; ``told`` is called after every block that either goes over."""
        self.student, self.ids_NT, self.told = student, ids_NT, told
        self.aims = [self._aim(uncut, block_T) for block_T in ids_NT]
        self.head_VD, self.uncut_head_VE = head_weight(student).detach(), head_weight(uncut).detach()

    def backward(self, block: int) -> None:
        """Add the gradient of one block's mean divergence to the scales'."""
        with torch.enable_grad():
            hidden_TD = hidden_states(self.student, self.ids_NT[block][None])[0]
            hidden_TD.backward(self._divergence(hidden_TD.detach(), block)[1])
        self.told()

    def mean(self, blocks: Sequence[int]) -> float:
        """Mean divergence over some blocks, nats a token."""
        return sum(self._of(block) for block in blocks) / len(blocks)

    @torch.no_grad()
    def _aim(self, uncut: PreTrainedModel, block_T: Tensor) -> Tensor:
        aim_TE = hidden_states(uncut, block_T[None])[0].cpu()
        self.told()
        return aim_TE

    @torch.no_grad()
    def _of(self, block: int) -> float:
        value = self._divergence(hidden_states(self.student, self.ids_NT[block][None])[0], block)[0]
        self.told()
        return value

    @torch.no_grad()
    def _divergence(self, hidden_TD: Tensor, block: int) -> tuple[float, Tensor]:
        """KL(uncut || cut), mean over a block's tokens, and its gradient to the cut model's final hidden states; logits a chunk at a time."""
        total, grad_TD = 0.0, torch.empty_like(hidden_TD)
        chunks = logits_in_chunks(hidden_TD, self.head_VD), logits_in_chunks(self.aims[block].to(hidden_TD), self.uncut_head_VE)
        for (rows, cut_CV), (_, uncut_CV) in zip(*chunks, strict=True):
            cut_CV, uncut_CV = cut_CV.float().log_softmax(-1), uncut_CV.float().log_softmax(-1)
            expected_CV = uncut_CV.exp()
            total += float((expected_CV * (uncut_CV - cut_CV)).sum())
            grad_TD[rows] = ((cut_CV.exp() - expected_CV) @ self.head_VD.float() / len(hidden_TD)).to(grad_TD.dtype)
        return total / len(hidden_TD), grad_TD


def _pass(
    scales: Scales, compare: Comparison, blocks: Sequence[int], number: int, optimiser: torch.optim.Optimizer, spec: RepairSpec
) -> None:
    """Learn from every block once, in an order of this pass's own."""
    order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(number)).tolist()
    for done, i in enumerate(order, start=number * len(blocks)):
        for group in optimiser.param_groups:
            group["lr"] = spec.scale_rate * falling_rate(done, spec.passes * len(blocks))
        compare.backward(blocks[i])
        torch.nn.utils.clip_grad_norm_(scales.values, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            for value in scales.values:
                value.clamp_(min=LEAST)
