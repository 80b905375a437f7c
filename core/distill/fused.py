"""The fused output head: both models' hidden states to logits to losses to gradients, a few tokens at a time.

Logits are the largest thing in the whole computation (``N x V`` floats, for teacher and student). Here they exist for one
chunk of tokens at a time: a chunk's logits, its losses and the gradient of those are computed together in the forward pass,
the gradient overwrites the logits, and is multiplied into the gradients of hidden states and head weight at once. Nothing
is recomputed and backward only scales. (The idea is Liger Kernel's fused linear loss, arXiv 2410.10989, on two heads; on a CUDA
device its own kernels are taken where they compute the same, see ``core.distill.liger``.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.distill.liger import is_fit, liger_losses
from core.distill.losses import Given, Objective
from core.model.head import IGNORED, logits_in_chunks, strips


def fused_losses(
    student_ND: Tensor,
    student_head_VD: Tensor,
    teacher_NE: Tensor | None,
    teacher_head_VE: Tensor | None,
    targets_N: Tensor,
    objective: Objective,
    *,
    normaliser: Tensor | float,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Distil through both heads without ever holding all logits.

    Args:
        student_ND: the student's final hidden states; the teacher's may have another width E.
        student_head_VD: the student's head, or its embedding if they are tied.
        teacher_NE: the teacher's final hidden states of the same tokens; None, and no head either, if no loss looks at them.
        teacher_head_VE: the teacher's head; the vocabulary is the same.
        targets_N: the true next tokens; -100 marks positions that neither count nor teach.
        objective: what is learnt from, and what only looked at.
        normaliser: valid tokens of the whole accumulated batch over all processes; less than 1 counts as 1.
        chunk: tokens at a time; by default what ``core.model.head.BUFFER_BYTES`` holds.

    Returns:
        The objective in nats a token, differentiable in the student's hidden states and head weight; and each of its losses
        alone, ``[len(objective.weights)]`` in that order, with T^2 but without weight and gradient. Both are this batch's
        sums over ``normaliser``, so those of accumulated batches add up.
    """
    if teacher_NE is not None and teacher_head_VE is not None and is_fit(objective, student_ND.device):
        return liger_losses(student_ND, student_head_VD, teacher_NE, teacher_head_VE, targets_N, objective, normaliser=normaliser)
    scale = 1.0 / max(float(normaliser), 1.0)
    # Drawn for all tokens at once, so that it does not matter how they are chunked.
    draws_N = torch.rand(targets_N.shape, device=targets_N.device) if "sampled" in objective.weights else None
    return _FusedHeads.apply(student_ND, student_head_VD, teacher_NE, teacher_head_VE, targets_N, draws_N, objective, scale, chunk)


class _FusedHeads(torch.autograd.Function):
    """Forward computes value and gradients together; backward scales the gradients."""

    @staticmethod
    def forward(
        ctx: Any, student_ND: Tensor, student_head_VD: Tensor, teacher_NE: Tensor | None, teacher_head_VE: Tensor | None,
        targets_N: Tensor, draws_N: Tensor | None, objective: Objective, scale: float, chunk: int | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        device = student_ND.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else student_head_VD.dtype
        valid_N = targets_N != IGNORED
        grad_ND = torch.zeros_like(student_ND)
        with torch.autocast(device, enabled=False):
            student = Heads(hidden_ND=student_ND[valid_N].to(dtype), weight_VD=student_head_VD.to(dtype))
            teacher = None
            if teacher_NE is not None and teacher_head_VE is not None:
                teacher = Heads(hidden_ND=teacher_NE[valid_N].to(dtype), weight_VD=teacher_head_VE.to(dtype))
            tokens = Tokens(targets_N=targets_N[valid_N], draws_N=None if draws_N is None else draws_N[valid_N])
            sums, grad_valid_ND, grad_head_VD = _sweep(student, teacher, tokens, objective, scale, chunk)
        grad_ND[valid_N] = grad_valid_ND.to(grad_ND.dtype)
        ctx.save_for_backward(grad_ND, grad_head_VD.to(student_head_VD.dtype))
        parts = sums * scale
        ctx.mark_non_differentiable(parts)
        return (parts * parts.new_tensor(list(objective.weights.values()))).sum(), parts

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        factor = float(outer[0])
        grads = ctx.saved_tensors if factor == 1.0 else [grad * factor for grad in ctx.saved_tensors]
        return *grads, *[None] * 7


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Final hidden states and the head that turns them into logits."""

    hidden_ND: Tensor
    weight_VD: Tensor


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What is known of each token beside its hidden states."""

    targets_N: Tensor
    draws_N: Tensor | None

    def given(self, rows: slice, strip: slice, objective: Objective) -> Given:
        """The same for a strip of a chunk."""
        draws_C = None if self.draws_N is None else self.draws_N[rows][strip]
        return Given(targets_C=self.targets_N[rows][strip], draws_C=draws_C, objective=objective)


def _sweep(
    student: Heads, teacher: Heads | None, tokens: Tokens, objective: Objective, scale: float, chunk: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of the losses ``[K]``, and the gradients of the scaled objective: hidden states ``[N, D]``, head ``[V, D]``."""
    hidden_ND, weight_VD = student.hidden_ND, student.weight_VD
    exact = torch.promote_types(weight_VD.dtype, torch.float32)
    sums = torch.zeros(len(objective.weights), dtype=exact, device=hidden_ND.device)
    grad_ND, grad_VD = torch.empty_like(hidden_ND), torch.zeros_like(weight_VD, dtype=exact)
    for rows, student_CV, teacher_CV in _both(student, teacher, chunk):
        for strip in strips(student_CV):
            teacher_logits_SV = None if teacher_CV is None else teacher_CV[strip].to(exact)
            values, grad_SV = _evaluate(student_CV[strip].to(exact), teacher_logits_SV, tokens.given(rows, strip, objective), scale)
            sums += values
            student_CV[strip] = grad_SV  # the logits have done their work; their buffer carries the gradient
        torch.mm(student_CV, weight_VD, out=grad_ND[rows])
        if exact == weight_VD.dtype:
            grad_VD.addmm_(student_CV.T, hidden_ND[rows])
        else:
            grad_VD += student_CV.T @ hidden_ND[rows]
    return sums, grad_ND, grad_VD


def _both(student: Heads, teacher: Heads | None, chunk: int | None) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """Rows of each chunk, and both models' logits of them."""
    teacher_chunks = logits_in_chunks(teacher.hidden_ND, teacher.weight_VD, chunk) if teacher else None
    for rows, student_CV in logits_in_chunks(student.hidden_ND, student.weight_VD, chunk):
        yield rows, student_CV, next(teacher_chunks)[1] if teacher_chunks else None


def _evaluate(student_CV: Tensor, teacher_CV: Tensor | None, given: Given, scale: float) -> tuple[Tensor, Tensor | float]:
    """Sums of the losses over a strip of logits ``[K]``, and the scaled objective's gradient ``[C, V]``."""
    terms = given.objective.terms()
    log_probabilities = {}
    for temperature in {temperature for _, _, temperature in terms}:
        student_logp_CV = _log_softmax(student_CV, temperature)
        teacher_logp_CV = student_logp_CV if teacher_CV is None else _log_softmax(teacher_CV, temperature)
        log_probabilities[temperature] = student_logp_CV, teacher_logp_CV
    sums, grad_CV = [], None
    for each, weight, temperature in terms:
        values_C, gradient = each.function(*log_probabilities[temperature], given)
        sums.append(values_C.sum() * temperature**2)
        if weight:
            part_CV = gradient().mul_(weight * temperature * scale)
            grad_CV = part_CV if grad_CV is None else grad_CV.add_(part_CV)
    return torch.stack(sums), 0.0 if grad_CV is None else grad_CV


def _log_softmax(logits_CV: Tensor, temperature: float) -> Tensor:
    return (logits_CV / temperature if temperature != 1 else logits_CV).log_softmax(-1)
