"""Importance of a layer, or of several, as what the model is without them (Kim et al., Shortened LLaMA, arXiv 2402.02834).

Leaving out layer i changes nothing before it, so the hidden states that enter layer i + 1 in its stead are taken from one
ordinary forward pass, and only the layers behind it run again: half the work of L full passes. Of the output head only the
log-sum over the vocabulary is made (``core.model.head.log_partition``); the divergence from the uncut model comes with it:

    KL(p || q) = sum_v p_v (log p_v - log q_v) = (e . h_p - log Z_p) - (e . h_q - log Z_q),   e = sum_v p_v w_v

where h are the two final hidden states, w_v the rows of the head and e, the uncut model's expected row, is made once.

What is left is the head for every candidate, a fifth of a small model with a large vocabulary. ``share`` below 1 judges candidates on a
seeded random part of the tokens, drawn without replacement, and adds the mean rise there to the whole model's loss on all tokens; the
standard error of n of N tokens is sd / sqrt(n) sqrt(1 - n/N) (Cochran, Sampling Techniques, theorem 2.2).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.model.head import head_weight, log_partition, logits_in_chunks, strips, wide
from core.score.batch import Batch, drawn
from core.score.sites import Sites, modules_at, sites_of


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What a model that lacks some layers does, mean over a batch's next tokens (of the same document)."""

    loss: float
    """Cross-entropy, nats a token."""
    kl: float
    """KL(uncut || this), nats a token."""
    loss_error: float = 0.0
    """Standard error of the loss's rise, nats a token; 0 where all tokens were judged."""
    kl_error: float = 0.0
    """Standard error of the KL."""


@dataclass
class Prefix:
    """One batch's ordinary forward pass: what entered each layer, and the arguments that came with it."""

    entered: list[Tensor]
    """``[B, T, D]`` for every layer, and last what left the last one, before the final norm."""
    arguments: list[dict[str, Any]]
    """Positions and masks, which may differ from layer to layer."""


class Remover:
    """A batch of blocks in a model that loses layers: what each loss would cost, and the state after it."""

    def __init__(self, model: PreTrainedModel, config: dict[str, Any], batch: Batch, share: float = 1.0) -> None:
        """Run the whole model once.

        Args:
            share: part of the tokens on which models without layers are judged, see ``core.score.batch.drawn``.
        """
        self.model, self.sites, self.batch = model, sites_of(config), batch
        self.head_VD = head_weight(model)
        self.drawn_N = drawn(int(batch.predicts.sum()), share, seed=int(batch.ids_BT.sum())).to(batch.ids_BT.device)
        with torch.no_grad():
            prefix = run_prefix(model, self.sites, batch)
            self.arguments, self.entered = prefix.arguments, prefix.entered
            self.present = list(range(len(prefix.arguments)))
            """The layers that are still there; ``entered`` holds what enters each, and last what leaves the last."""
            every_N = torch.arange(int(batch.predicts.sum()), device=batch.ids_BT.device)
            self.whole = self._judge_whole(self._normed(self.entered[-1], every_N))

    def without(self, start: int, length: int = 1) -> Damage:
        """The damage of leaving out ``length`` of the present layers from place ``start`` on."""
        with torch.no_grad():
            hidden_BTD = self.entered[start]
            for layer in self.present[start + length :]:
                hidden_BTD = self._run(layer, hidden_BTD)
            return self._judge(hidden_BTD)

    def remove(self, place: int) -> None:
        """Take the layer at a place out for good; only what comes behind it is run again."""
        del self.present[place]
        del self.entered[place + 1 :]
        with torch.no_grad():
            for layer in self.present[place:]:
                self.entered.append(self._run(layer, self.entered[-1]))

    def angles(self) -> Tensor:
        """Angles between what enters the layers, see ``angles_between``."""
        return angles_between([self.batch.counting(state_BTD) for state_BTD in self.entered])

    def _run(self, layer: int, hidden_BTD: Tensor) -> Tensor:
        output = self.model.get_submodule(self.sites.layers[layer])(hidden_BTD, **self.arguments[layer])
        return output[0] if isinstance(output, tuple) else output

    def _judge(self, hidden_BTD: Tensor) -> Damage:
        """Loss and divergence of the last layer's output."""
        hidden_ND = self._normed(hidden_BTD, self.drawn_N)
        partition_N = log_partition(hidden_ND, self.head_VD).cpu().double()
        rise_N = partition_N - _dot(hidden_ND, self._target_ND) - self._losses_N
        kl_N = self._negative_entropy_N - _dot(hidden_ND, self._expected_ND) + partition_N
        return Damage(
            loss=self.whole.loss + rise_N.mean().item(), kl=kl_N.mean().item(),
            loss_error=self._error(rise_N), kl_error=self._error(kl_N),
        )  # fmt: skip

    def _error(self, values_N: Tensor) -> float:
        """Standard error of the mean of the drawn tokens as that of all."""
        rest = 1 - len(values_N) / int(self.batch.predicts.sum())
        return math.sqrt(rest / len(values_N)) * values_N.std().item() if rest else 0.0

    def _judge_whole(self, hidden_ND: Tensor) -> Damage:
        """The uncut model's own loss; keeps what the others are compared with."""
        targets_N = self.batch.ids_BT[:, 1:][self.batch.predicts]
        self._target_ND, self._expected_ND = self.head_VD[targets_N], torch.empty_like(hidden_ND)
        partition_N = wide(hidden_ND.new_empty(0)).new_empty(len(hidden_ND))
        for rows, logits_CV in logits_in_chunks(hidden_ND, self.head_VD):
            partition_N[rows] = torch.cat([torch.logsumexp(wide(logits_CV[strip]), dim=1) for strip in strips(logits_CV)])
            self._expected_ND[rows] = (wide(logits_CV) - partition_N[rows, None]).exp_().to(self.head_VD.dtype) @ self.head_VD
        partition_N = partition_N.cpu().double()
        negative_entropy_N = _dot(hidden_ND, self._expected_ND) - partition_N
        losses_N, drawn_N = partition_N - _dot(hidden_ND, self._target_ND), self.drawn_N.cpu()
        self._negative_entropy_N, self._losses_N = negative_entropy_N[drawn_N], losses_N[drawn_N]
        self._target_ND, self._expected_ND = self._target_ND[self.drawn_N], self._expected_ND[self.drawn_N]
        return Damage(loss=losses_N.mean().item(), kl=0.0)

    def _normed(self, hidden_BTD: Tensor, rows_N: Tensor) -> Tensor:
        """Final hidden states ``[N, D]`` of these of the tokens that have a next one to predict."""
        return self.model.get_submodule(self.sites.final_norm)(hidden_BTD[:, :-1][self.batch.predicts][rows_N])


def _dot(first_ND: Tensor, second_ND: Tensor) -> Tensor:
    """Row by row, ``[N]`` on the CPU; in float64 where the device has it."""
    wide = torch.float32 if first_ND.device.type == "mps" else torch.float64
    return (first_ND.to(wide) * second_ND.to(wide)).sum(1).cpu().double()


def losses_without(model: PreTrainedModel, config: dict[str, Any], batch: Batch, share: float = 1.0) -> Iterator[Damage]:
    """Yield the uncut model's loss, then the damage without layer 0, 1, ..."""
    remover = Remover(model, config, batch, share)
    yield remover.whole
    for i in range(len(remover.present)):
        yield remover.without(i)


def greedy_removal(removers: list[Remover], told: Callable[[int, float], None], *, lazy: bool = False) -> Iterator[tuple[int, float]]:
    """Remove the layer whose absence costs least, over and over (as in BlockPruner, arXiv 2406.10594): yield it and the loss after it.

    Args:
        removers: the batches on which losses are measured, equally long; they lose the layers.
        told: called with a layer and its loss after each candidate.
        lazy: try candidates in the order of what they cost when last tried, and no more of them once the next cost more then than the best
            costs now (Minoux's accelerated greedy, 1978). Finds the same as long as no layer costs less when others are gone.
    """
    loss = sum(remover.whole.loss for remover in removers) / len(removers)
    rise = dict.fromkeys(removers[0].present, -math.inf)
    while len(rise) > 1:
        fresh: dict[int, float] = {}
        for layer in sorted(rise, key=rise.__getitem__):
            if lazy and fresh and rise[layer] >= min(fresh.values()):
                break
            place = removers[0].present.index(layer)
            found = sum(remover.without(place).loss for remover in removers) / len(removers)
            fresh[layer] = found - loss
            told(layer, found)
        best = min(fresh, key=lambda layer: (fresh[layer], layer))
        rise |= fresh
        loss += rise.pop(best)
        yield best, loss
        place = removers[0].present.index(best)
        for remover in removers:
            remover.remove(place)


def angles_between(depths: list[Tensor]) -> Tensor:
    """Angular distance between the residual stream at depth i and at depth j, arccos(cos) / pi, mean over tokens: ``[L + 1, L + 1]``.

    Gromov et al., arXiv 2403.17887, equation 7, over all tokens instead of the last one: a block of calibration text has no
    last token that is like a prompt's.

    Args:
        depths: the stream ``[N, D]`` of all tokens that count, at every depth.
    """
    total = torch.zeros(len(depths), len(depths), dtype=torch.float64)
    tokens = 0
    for parts in zip(*(state_ND.split(64) for state_ND in depths), strict=True):
        states_NSD = wide(torch.stack(parts, dim=1))
        states_NSD = nn.functional.normalize(states_NSD, dim=-1)
        cosine_NSS = (states_NSD @ states_NSD.transpose(1, 2)).clamp(-1, 1)
        total += (cosine_NSS.arccos() / torch.pi).cpu().double().sum(0)
        tokens += len(states_NSD)
    return total / tokens


def run_prefix(model: PreTrainedModel, sites: Sites, batch: Batch) -> Prefix:
    """Run the body once and keep what entered every layer."""
    entered: list[Tensor] = []
    arguments: list[dict[str, Any]] = []

    def entering(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        entered.append(args[0])
        arguments.append(kwargs)

    handles = [layer.register_forward_pre_hook(entering, with_kwargs=True) for layer in modules_at(model, sites.layers)]
    handles.append(model.get_submodule(sites.final_norm).register_forward_pre_hook(lambda _, args: entered.append(args[0])))
    try:
        batch.states(model)
    finally:
        for handle in handles:
            handle.remove()
    return Prefix(entered, arguments)
