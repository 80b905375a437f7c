"""Intermediate states: what flows inside student and teacher, heard where a norm has just been applied, and how far apart it is.

Minitron's ``L_is`` (arXiv 2407.14679, section 3) is a sum over kinds of states; which layer is held against which is a map
(``core.distill.matching``). Student states of another width go through one linear map, shared by all kinds and layers and learnt
along; it belongs to the training, not to the model.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.distill.matching import Pairs
from core.model.head import body
from core.plan.plan import Plan

Site = tuple[str, int]
"""Kind of state (``query``, ``key`` and ``value`` for attention) and layer."""

PROJECTION = "distill_projection"
"""Name of the shared up-projection among the student's modules while it trains."""

RELATIONS = ("query", "key", "value")
UNSEEN = -1e9
"""Score of a token that comes later; finite, so that what it contributes is 0 and never 0 times infinity."""

EPSILON = 1e-8
"""Keeps a state of length 0 from dividing by it."""


def _norm_after(model: PreTrainedModel, layer: int) -> nn.Module:
    """The norm that reads a layer's output: the next layer's first, or the final one."""
    decoder: Any = body(model)
    return decoder.norm if layer + 1 == len(decoder.layers) else decoder.layers[layer + 1].input_layernorm


def _part(path: str) -> Callable[[PreTrainedModel, int], nn.Module]:
    """Finds a layer's module by its path inside the layer."""
    return lambda model, layer: body(model).get_submodule(f"layers.{layer}.{path}")


PLACES: Mapping[str, Callable[[PreTrainedModel, int], nn.Module]] = {
    "output": _norm_after, "input": _part("post_attention_layernorm"), "embedding": _part("input_layernorm"),
    "query": _part("self_attn.q_proj"), "key": _part("self_attn.k_proj"), "value": _part("self_attn.v_proj"),
}  # fmt: skip
"""Kind of state -> the module whose output it is."""


@contextlib.contextmanager
def listening(model: PreTrainedModel, sites: Sequence[Site]) -> Iterator[dict[Site, Tensor]]:
    """What comes out at ``sites`` during the block, ``[B, T, width]``; nothing is left behind in the model."""
    heard: dict[Site, Tensor] = {}
    handles = [
        PLACES[kind](model, layer).register_forward_hook(lambda _, __, out, site=(kind, layer): heard.__setitem__(site, out))
        for kind, layer in sites
    ]  # fmt: skip
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Which states are held against which, and by which distance."""

    kinds: tuple[str, ...]
    """Of ``output``, ``input``, ``embedding``, ``attention``."""
    pairs: Pairs
    distance: str
    """``cosine`` or ``mse``."""

    def sites(self, side: int) -> list[Site]:
        """Where to listen: ``side`` 0 is the student, 1 the teacher."""
        return [site[side] for kind in self.kinds for site in self._of(kind)]

    def _of(self, kind: str) -> list[tuple[Site, Site]]:
        """Pairs of sites of one kind."""
        if kind == "embedding":
            return [(("embedding", 0), ("embedding", 0))]
        parts = RELATIONS if kind == "attention" else (kind,)
        return [((part, student), (part, teacher)) for student, teacher in self.pairs for part in parts]

    def losses(
        self, student: dict[Site, Tensor], teacher: dict[Site, Tensor], models: tuple[PreTrainedModel, PreTrainedModel], valid_BT: Tensor,
        normaliser: Tensor | float,
    ) -> Tensor:  # fmt: skip
        """The loss of every kind, ``[len(kinds)]``: mean over its pairs, summed over valid tokens, divided by ``normaliser``.

        Differentiable in the student's states and the projection; the teacher is never reached.
        """
        project = getattr(models[0], PROJECTION, nn.Identity())
        found = []
        for kind in self.kinds:
            values = [
                _relation(student[one], teacher[other].detach(), *(_heads(model, one[0]) for model in models))
                if kind == "attention"
                else DISTANCES[self.distance](project(student[one]), teacher[other].detach())
                for one, other in self._of(kind)
            ]
            found.append(torch.stack(values).mean(0)[valid_BT].sum())
        return torch.stack(found) / max(float(normaliser), 1.0)


def _cosine(student_BTE: Tensor, teacher_BTE: Tensor) -> Tensor:
    """``1 - cos``, ``[B, T]``; the paper found it the best for states."""
    return 1 - nn.functional.cosine_similarity(student_BTE.float(), teacher_BTE.float(), dim=-1, eps=EPSILON)


def _normalised_error(student_BTE: Tensor, teacher_BTE: Tensor) -> Tensor:
    """Squared distance over the teacher's squared length, ``[B, T]``: no unit, whatever the scale of a layer."""
    teacher_BTE = teacher_BTE.float()
    return (student_BTE.float() - teacher_BTE).square().sum(-1) / teacher_BTE.square().sum(-1).clamp(min=EPSILON)


DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": _cosine, "mse": _normalised_error}


def _heads(model: PreTrainedModel, part: str) -> int:
    """Heads of the queries, or of the keys and values."""
    config = model.config
    return int(config.num_attention_heads if part == "query" else config.num_key_value_heads)


def _relation(student_BTX: Tensor, teacher_BTY: Tensor, heads: int, teacher_heads: int) -> Tensor:
    """Divergence of how tokens relate to the tokens before them, ``[B, T]`` nats (MiniLMv2, arXiv 2012.15828, section 3.1).

    Queries are related to queries, keys to keys, values to values: ``softmax(A A' / sqrt(size))``, here over what a decoder may
    look back at. All heads are laid end to end and split into as many relation heads as divide both models' own.
    """
    count = math.gcd(heads, teacher_heads)
    student_logp, teacher_logp = (_relations(x, count) for x in (student_BTX, teacher_BTY))
    return (teacher_logp.exp() * (teacher_logp - student_logp)).sum(-1).mean(1)


def _relations(states_BTX: Tensor, count: int) -> Tensor:
    """Log-probabilities of every token over those up to it, ``[B, count, T, T]``."""
    parts_BRTX = states_BTX.float().unflatten(-1, (count, -1)).transpose(1, 2)
    scores = parts_BRTX @ parts_BRTX.transpose(-1, -2) / math.sqrt(parts_BRTX.shape[-1])
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(later, UNSEEN).log_softmax(-1)


def attach_projection(student: PreTrainedModel, teacher_width: int, plan: Plan | None, seed: int) -> None:
    """Give the student its up-projection ``[E, D]``, if the widths differ: made the same way each time, without touching any generator.

    It begins by putting each channel where it was in the teacher, if ``plan`` tells; at random otherwise.
    """
    width = student.config.hidden_size
    if width == teacher_width:
        return
    projection = nn.Linear(width, teacher_width, bias=False, device="meta").to_empty(device=student.device)
    with torch.no_grad():
        if plan is not None and len(plan.channels) == width:
            projection.weight.zero_()[torch.from_numpy(plan.channels).long(), torch.arange(width)] = 1.0
        else:
            generator = torch.Generator().manual_seed(seed)
            projection.weight.copy_(torch.randn(teacher_width, width, generator=generator) / math.sqrt(width))
    student.add_module(PROJECTION, projection)


def detach_projection(student: PreTrainedModel) -> None:
    """Throw the up-projection away."""
    if hasattr(student, PROJECTION):
        delattr(student, PROJECTION)
