"""What the student learns from: losses on the logits, and the fused output head that computes them.

Logits are the largest thing in the whole computation (``N x V`` floats, for teacher and student). Here they exist for one
chunk of tokens at a time: a chunk's logits, its losses and the gradient of those are computed together in the forward pass,
the gradient overwrites the logits, and is multiplied into the gradients of hidden states and head weight at once. Nothing
is recomputed and backward only scales. (The idea is Liger Kernel's fused linear loss, arXiv 2410.10989, on two heads.)

To add a loss, write one function here and decorate it with ``@loss``. It receives log-probabilities of a few tokens,
``student_logp_CV`` and ``teacher_logp_CV`` in float32 (softened by the temperature if ``tempered``), and ``targets_C``, and
returns the values ``[C]`` in nats together with a function that gives their gradient ``[C, V]`` with respect to the student's
logits (before the softmax, after the division by the temperature). All values are true divergences in nats a token: 0 when
student and teacher agree, so that their curves can be compared.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.model.head import IGNORED, logits_in_chunks, strips

LossFunction = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Callable[[], Tensor]]]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A registered loss."""

    name: str
    title: str
    source: str
    """Paper or book."""
    tempered: bool
    """Whether the temperature T softens its distributions. Its value is then multiplied by T^2, which keeps the size of
    its gradients (Hinton et al., 2015)."""
    function: LossFunction


LOSSES: dict[str, Loss] = {}
"""Every loss by name."""


def loss(name: str, *, title: str, source: str, tempered: bool) -> Callable[[LossFunction], LossFunction]:
    """Register the decorated function as the loss ``name``."""

    def register(function: LossFunction) -> LossFunction:
        assert name not in LOSSES, f"two losses are named {name}"
        LOSSES[name] = Loss(name=name, title=title, source=source, tempered=tempered, function=function)
        return function

    return register


@loss("kl", title="Forward KL (teacher || student)", source="Minitron, arXiv 2407.14679, section 3", tempered=True)
def forward_kl(student_logp_CV: Tensor, teacher_logp_CV: Tensor, targets_C: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """``sum_v p_t (log p_t - log p_s)``; its gradient is ``p_s - p_t``."""
    teacher_p_CV = teacher_logp_CV.exp()
    values_C = torch.linalg.vecdot(teacher_p_CV, teacher_logp_CV - student_logp_CV)
    return values_C, lambda: student_logp_CV.exp().sub_(teacher_p_CV)


@loss("ce", title="Cross-entropy of the true next token", source="ordinary language modelling", tempered=False)
def cross_entropy(student_logp_CV: Tensor, teacher_logp_CV: Tensor, targets_C: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """``-log p_s[target]``; its gradient is ``p_s`` less one at the target."""
    index_C1 = targets_C.clamp(min=0).unsqueeze(1)

    def gradient() -> Tensor:
        grad_CV = student_logp_CV.exp()
        return grad_CV.scatter_add_(1, index_C1, grad_CV.new_full(index_C1.shape, -1.0))

    return -student_logp_CV.gather(1, index_C1).squeeze(1), gradient


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A weighted sum of registered losses. A loss of weight 0 is computed, to be looked at, and not learnt from."""

    weights: Mapping[str, float]
    temperature: float = 1.0

    def terms(self) -> list[tuple[Loss, float, float]]:
        """Each loss, its weight, and the temperature it is taken at."""
        return [(LOSSES[name], weight, self.temperature if LOSSES[name].tempered else 1.0) for name, weight in self.weights.items()]


def fused_losses(
    student_ND: Tensor,
    student_head_VD: Tensor,
    teacher_NE: Tensor,
    teacher_head_VE: Tensor,
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
        teacher_NE: the teacher's final hidden states of the same tokens.
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
    scale = 1.0 / max(float(normaliser), 1.0)
    return _FusedHeads.apply(student_ND, student_head_VD, teacher_NE, teacher_head_VE, targets_N, objective, scale, chunk)


class _FusedHeads(torch.autograd.Function):
    """Forward computes value and gradients together; backward scales the gradients."""

    @staticmethod
    def forward(
        ctx: Any, student_ND: Tensor, student_head_VD: Tensor, teacher_NE: Tensor, teacher_head_VE: Tensor, targets_N: Tensor,
        objective: Objective, scale: float, chunk: int | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        device = student_ND.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else student_head_VD.dtype
        valid_N = targets_N != IGNORED
        grad_ND = torch.zeros_like(student_ND)
        with torch.autocast(device, enabled=False):
            student = Heads(hidden_ND=student_ND[valid_N].to(dtype), weight_VD=student_head_VD.to(dtype))
            teacher = Heads(hidden_ND=teacher_NE[valid_N].to(dtype), weight_VD=teacher_head_VE.to(dtype))
            sums, grad_valid_ND, grad_head_VD = _sweep(student, teacher, targets_N[valid_N], objective, scale, chunk)
        grad_ND[valid_N] = grad_valid_ND.to(grad_ND.dtype)
        ctx.save_for_backward(grad_ND, grad_head_VD.to(student_head_VD.dtype))
        parts = sums * scale
        ctx.mark_non_differentiable(parts)
        return (parts * parts.new_tensor(list(objective.weights.values()))).sum(), parts

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        factor = float(outer[0])
        grads = ctx.saved_tensors if factor == 1.0 else [grad * factor for grad in ctx.saved_tensors]
        return *grads, *[None] * 6


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Final hidden states and the head that turns them into logits."""

    hidden_ND: Tensor
    weight_VD: Tensor


def _sweep(
    student: Heads, teacher: Heads, targets_N: Tensor, objective: Objective, scale: float, chunk: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of the losses ``[K]``, and the gradients of the scaled objective: hidden states ``[N, D]``, head ``[V, D]``."""
    hidden_ND, weight_VD = student.hidden_ND, student.weight_VD
    exact = torch.promote_types(weight_VD.dtype, torch.float32)
    sums = torch.zeros(len(objective.weights), dtype=exact, device=hidden_ND.device)
    grad_ND, grad_VD = torch.empty_like(hidden_ND), torch.zeros_like(weight_VD, dtype=exact)
    student_chunks = logits_in_chunks(hidden_ND, weight_VD, chunk)
    teacher_chunks = logits_in_chunks(teacher.hidden_ND, teacher.weight_VD, chunk)
    for (rows, student_CV), (_, teacher_CV) in zip(student_chunks, teacher_chunks, strict=True):
        for strip in strips(student_CV):
            values, grad_CV = _evaluate(student_CV[strip].to(exact), teacher_CV[strip].to(exact), targets_N[rows][strip], objective, scale)
            sums += values
            student_CV[strip] = grad_CV  # the logits have done their work; their buffer carries the gradient
        torch.mm(student_CV, weight_VD, out=grad_ND[rows])
        if exact == weight_VD.dtype:
            grad_VD.addmm_(student_CV.T, hidden_ND[rows])
        else:
            grad_VD += student_CV.T @ hidden_ND[rows]
    return sums, grad_ND, grad_VD


def _evaluate(
    student_CV: Tensor, teacher_CV: Tensor, targets_C: Tensor, objective: Objective, scale: float
) -> tuple[Tensor, Tensor | float]:
    """Sums of the losses over a strip of logits ``[K]``, and the scaled objective's gradient ``[C, V]``."""
    log_probabilities = {
        temperature: ((student_CV / temperature).log_softmax(-1), (teacher_CV / temperature).log_softmax(-1))
        if temperature != 1
        else (student_CV.log_softmax(-1), teacher_CV.log_softmax(-1))
        for temperature in {temperature for _, _, temperature in objective.terms()}
    }
    sums, grad_CV = [], None
    for each, weight, temperature in objective.terms():
        values_C, gradient = each.function(*log_probabilities[temperature], targets_C)
        sums.append(values_C.sum() * temperature**2)
        if weight:
            part_CV = gradient().mul_(weight * temperature * scale)
            grad_CV = part_CV if grad_CV is None else grad_CV.add_(part_CV)
    return torch.stack(sums), 0.0 if grad_CV is None else grad_CV
