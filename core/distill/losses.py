"""What the student learns from on the logits: divergences between two next-token distributions, one function each.

To add a loss, write one function here, decorate it with ``@loss`` and name it in ``core.specs.LOSSES``. It receives
log-probabilities of a few tokens, ``student_logp_CV`` and ``teacher_logp_CV`` in float32 (softened by the temperature if
``tempered``), and what else is known of those tokens, and returns the values ``[C]`` together with a function that gives their
gradient ``[C, V]`` with respect to the student's logits (before the softmax, after the division by the temperature). Every
value is 0 when student and teacher agree, so that the curves can be read and compared.

Letters in the formulas: ``t`` the teacher's probabilities, ``s`` the student's, ``d = log t - log s``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Found = tuple[Tensor, Callable[[], Tensor]]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A weighted sum of registered losses. A loss of weight 0 is computed, to be looked at, and not learnt from."""

    weights: Mapping[str, float]
    temperature: float = 1.0
    beta: float = 0.5
    """``jsd``: the teacher's share of the mixture."""
    skew: float = 0.1
    """``skew_kl``: the teacher's share of what it is compared with."""
    top_k: int = 100
    """``top_k``: the teacher's likeliest tokens that are told apart."""
    samples: int = 50
    """``sampled``: tokens drawn from the teacher."""

    def terms(self) -> "list[tuple[Loss, float, float]]":
        """Each loss, its weight, and the temperature it is taken at."""
        return [(LOSSES[name], weight, self.temperature if LOSSES[name].tempered else 1.0) for name, weight in self.weights.items()]

    @property
    def taught(self) -> bool:
        """Whether any loss looks at the teacher."""
        return any(LOSSES[name].taught for name in self.weights)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a loss may know of its tokens beside the two distributions."""

    targets_C: Tensor
    """The true next tokens."""
    objective: Objective
    draws_C: Tensor | None = None
    """A uniform number in [0, 1) for each token, if the objective samples."""


LossFunction = Callable[[Tensor, Tensor, Given], Found]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A registered loss."""

    name: str
    title: str
    source: str
    """Paper or book."""
    tempered: bool
    """Whether the temperature T softens its distributions. Its value is then multiplied by T^2, which keeps the size of
    its gradients (Hinton et al., 1503.02531, section 2)."""
    taught: bool
    """Whether it looks at the teacher; if not, ``teacher_logp_CV`` may be the student's own."""
    function: LossFunction


LOSSES: dict[str, Loss] = {}
"""Every loss by name."""


def loss(name: str, *, title: str, source: str, tempered: bool = True, taught: bool = True) -> Callable[[LossFunction], LossFunction]:
    """Register the decorated function as the loss ``name``."""

    def register(function: LossFunction) -> LossFunction:
        assert name not in LOSSES, f"two losses are named {name}"
        LOSSES[name] = Loss(name=name, title=title, source=source, tempered=tempered, taught=taught, function=function)
        return function

    return register


@loss("kl", title="Forward KL (teacher || student)", source="Minitron, 2407.14679, section 3")
def forward_kl(student_logp_CV: Tensor, teacher_logp_CV: Tensor, given: Given) -> Found:
    """``sum_v t d``; its gradient is ``s - t``."""
    teacher_p_CV = teacher_logp_CV.exp()
    values_C = torch.linalg.vecdot(teacher_p_CV, teacher_logp_CV - student_logp_CV)
    return values_C, lambda: student_logp_CV.exp().sub_(teacher_p_CV)


@loss("reverse_kl", title="Reverse KL (student || teacher)", source="MiniLLM, 2306.08543")
def reverse_kl(student_logp_CV: Tensor, teacher_logp_CV: Tensor, given: Given) -> Found:
    """``-sum_v s d``; its gradient is ``s (-d - value)``."""
    student_p_CV, gap_CV = student_logp_CV.exp(), student_logp_CV - teacher_logp_CV
    values_C = torch.linalg.vecdot(student_p_CV, gap_CV)
    return values_C, lambda: student_p_CV.mul_(gap_CV.sub_(values_C.unsqueeze(1)))


@loss("jsd", title="Generalised Jensen-Shannon divergence", source="GKD, 2306.13649")
def jensen_shannon(student_logp_CV: Tensor, teacher_logp_CV: Tensor, given: Given) -> Found:
    """``b KL(t || m) + (1 - b) KL(s || m)`` with ``m = b t + (1 - b) s``; its gradient is ``(1 - b) s (log s/m - KL(s || m))``."""
    beta, student_p_CV = given.objective.beta, student_logp_CV.exp()
    gap_CV = teacher_logp_CV - student_logp_CV
    above_CV = _log_mixture(gap_CV, beta)  # log m/s
    student_C = -torch.linalg.vecdot(student_p_CV, above_CV)
    values_C = beta * torch.linalg.vecdot(teacher_logp_CV.exp(), gap_CV - above_CV) + (1 - beta) * student_C
    return values_C.clamp(min=0), lambda: above_CV.add_(student_C.unsqueeze(1)).mul_(student_p_CV).mul_(beta - 1)


@loss("skew_kl", title="Skewed KL (teacher || mixture)", source="DistiLLM, 2402.03898")
def skewed_kl(student_logp_CV: Tensor, teacher_logp_CV: Tensor, given: Given) -> Found:
    """``KL(t || m)`` with ``m = a t + (1 - a) s``; its gradient is ``(1 - a) s (sum_v s t/m - t/m)``."""
    share, gap_CV = given.objective.skew, teacher_logp_CV - student_logp_CV
    gap_CV -= _log_mixture(gap_CV, share)  # log t/m
    values_C = torch.linalg.vecdot(teacher_logp_CV.exp(), gap_CV)

    def gradient() -> Tensor:
        ratio_CV, student_p_CV = gap_CV.exp(), student_logp_CV.exp()
        mean_C1 = torch.linalg.vecdot(student_p_CV, ratio_CV).unsqueeze(1)
        return ratio_CV.sub_(mean_C1).mul_(student_p_CV).mul_(share - 1)

    return values_C.clamp(min=0), gradient


def _log_mixture(gap_CV: Tensor, share: float) -> Tensor:
    """``log(share e^d + 1 - share)``, in logarithms so that no ratio of probabilities overflows."""
    return torch.logaddexp(gap_CV + math.log(share), gap_CV.new_tensor(math.log1p(-share)))


@loss("mse", title="Mean squared error of the logits", source="Kim et al., 2105.08919", tempered=False)
def squared_error(student_logp_CV: Tensor, teacher_logp_CV: Tensor, given: Given) -> Found:
    """Mean over the vocabulary of the squared difference of logits, each model's taken from their mean, nats squared.

    A constant added to all logits changes no distribution and so counts for nothing here. Untempered: at a high temperature
    KL becomes this loss (Hinton et al., equation 4), and no temperature changes it.
    """
    gap_CV = student_logp_CV - teacher_logp_CV
    gap_CV -= gap_CV.mean(-1, keepdim=True)
    return gap_CV.square().mean(-1), lambda: gap_CV.mul_(2 / gap_CV.shape[-1])


@loss("cosine", title="Cosine distance of the probabilities", source="Minitron, 2407.14679, section 3, table 15")
def cosine_distance(student_logp_CV: Tensor, teacher_logp_CV: Tensor, given: Given) -> Found:
    """``1 - cos(t, s) = |t/|t| - s/|s||^2 / 2``, no unit; its gradient is ``s/|s| (cos s/|s| - t/|t|)``, times ``s``."""
    student_p_CV = student_logp_CV.exp()
    length_C1 = torch.linalg.vector_norm(student_p_CV, dim=-1, keepdim=True)
    one_CV, other_CV = student_p_CV / length_C1, torch.nn.functional.normalize(teacher_logp_CV.exp(), dim=-1)
    values_C = (one_CV - other_CV).square_().sum(-1).div_(2)
    return values_C, lambda: one_CV.mul(1 - values_C.unsqueeze(1)).sub_(other_CV).mul_(one_CV)


@loss("top_k", title="Forward KL on the teacher's top k", source="RS-KD, 2503.16870 (ghost token)")
def top_k_kl(student_logp_CV: Tensor, teacher_logp_CV: Tensor, given: Given) -> Found:
    """Forward KL of the teacher's ``top_k`` likeliest tokens, all others together being one more outcome.

    So nothing is scaled up to make good for what is left out, and it never exceeds the whole KL. Its gradient is ``s - t`` on the
    top, and ``s (1 - t'/s')`` elsewhere, with ``t'`` and ``s'`` the masses of the rest.
    """
    top_CK = teacher_logp_CV.topk(min(given.objective.top_k, teacher_logp_CV.shape[-1]), dim=-1).indices
    teacher_top_CK, student_top_CK = teacher_logp_CV.gather(1, top_CK), student_logp_CV.gather(1, top_CK)
    tiny = torch.finfo(student_logp_CV.dtype).tiny
    teacher_rest_C1, student_rest_C1 = (
        logp_CV.exp().scatter_(1, top_CK, 0.0).sum(-1, keepdim=True).clamp_(min=tiny) for logp_CV in (teacher_logp_CV, student_logp_CV)
    )
    rest_C = (teacher_rest_C1 * (teacher_rest_C1.log() - student_rest_C1.log())).squeeze(1)
    values_C = torch.linalg.vecdot(teacher_top_CK.exp(), teacher_top_CK - student_top_CK) + rest_C

    def gradient() -> Tensor:
        grad_CV = student_logp_CV.exp().mul_(1 - teacher_rest_C1 / student_rest_C1)
        return grad_CV.scatter_(1, top_CK, student_top_CK.exp() - teacher_top_CK.exp())

    return values_C.clamp(min=0), gradient


@loss("sampled", title="Forward KL on tokens drawn from the teacher", source="RS-KD, 2503.16870")
def sampled_kl(student_logp_CV: Tensor, teacher_logp_CV: Tensor, given: Given) -> Found:
    """Estimate of forward KL: the mean of ``d`` over ``samples`` draws from the teacher; its gradient is ``s - counts / samples``.

    Value and gradient are right on average (so a value may be below 0). The draws are systematic: one uniform number a token
    shifts a regular grid over the teacher's cumulative distribution, which varies less than independent draws.
    """
    count = given.objective.samples
    assert given.draws_C is not None, "a sampling loss needs its draws"
    cumulative_CV = teacher_logp_CV.double().exp_().cumsum_(-1)
    grid_CS = (torch.arange(count, device=cumulative_CV.device) + given.draws_C.double().unsqueeze(1)) / count * cumulative_CV[:, -1:]
    drawn_CS = torch.searchsorted(cumulative_CV, grid_CS, right=True).clamp_(max=cumulative_CV.shape[1] - 1)
    values_C = (teacher_logp_CV.gather(1, drawn_CS) - student_logp_CV.gather(1, drawn_CS)).mean(-1)

    def gradient() -> Tensor:
        grad_CV = student_logp_CV.exp()
        return grad_CV.scatter_add_(1, drawn_CS, grad_CV.new_full((1, 1), -1 / count).expand_as(drawn_CS))

    return values_C, gradient


@loss("ce", title="Cross-entropy of the true next token", source="ordinary language modelling", tempered=False, taught=False)
def cross_entropy(student_logp_CV: Tensor, teacher_logp_CV: Tensor, given: Given) -> Found:
    """``-log s[target]``; its gradient is ``s`` less one at the target."""
    index_C1 = given.targets_C.clamp(min=0).unsqueeze(1)

    def gradient() -> Tensor:
        grad_CV = student_logp_CV.exp()
        return grad_CV.scatter_add_(1, index_C1, grad_CV.new_full(index_C1.shape, -1.0))

    return -student_logp_CV.gather(1, index_C1).squeeze(1), gradient
