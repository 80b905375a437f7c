"""A decoder taken apart into its body and its output head, so that logits are only ever made a few tokens at a time.

With a vocabulary of 50 000, the logits of 2 000 tokens take 400 MB in float32, and touching fresh memory of that size costs
a CPU about as much as the matrix product that fills it. So one buffer of at most ``BUFFER_BYTES`` is made and used over
and over, and what follows the product runs on a few rows at a time, which stay in the processor's cache.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

BUFFER_BYTES = 48 * 2**20
"""Size of the logits buffer: large enough for an efficient matrix product, small enough for a laptop."""

STRIP_BYTES = 3 * 2**20
"""Logits on which element-wise work is done at once: about what a processor's cache holds."""

TILE = (512, 2048)
"""Tokens and vocabulary whose logits a CPU makes at once where only their sum is wanted: 4 MB, which stay in its cache."""

WIDE_TILE = (4096, 16384)
"""The same for an accelerator, which wants large products."""

IGNORED = -100
"""The target of a position that does not count."""


def wide(values: Tensor) -> Tensor:
    """In float32, or in float64 where the model itself is: sums must not be coarser than what they are made of."""
    return values if values.dtype == torch.float64 else values.float()


def body(model: PreTrainedModel) -> nn.Module:
    """The decoder without its head; its output has ``.last_hidden_state`` ``[B, T, D]``, final norm applied."""
    return model.get_decoder()


def head_weight(model: PreTrainedModel) -> Tensor:
    """The output head's weight ``[V, D]``; the embedding's own where they are tied."""
    head = model.get_output_embeddings()
    assert getattr(head, "bias", None) is None, "an output head with a bias needs its own arithmetic"
    return head.weight


def hidden_states(model: PreTrainedModel, tokens_BT: Tensor) -> Tensor:
    """Final hidden states ``[B, T, D]`` of packed blocks: every token counts, no key-value cache is made."""
    return body(model)(input_ids=tokens_BT, use_cache=False).last_hidden_state


def rows_within(budget_bytes: int, vocabulary: int) -> int:
    """How many tokens' float32 logits fit into ``budget_bytes``; at least one."""
    return max(1, budget_bytes // (4 * vocabulary))


def strips(logits_CV: Tensor) -> Iterator[slice]:
    """Slices of a few rows, small enough for the cache."""
    count, vocabulary = logits_CV.shape
    size = rows_within(STRIP_BYTES, vocabulary)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def logits_in_chunks(hidden_ND: Tensor, weight_VD: Tensor, chunk: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Yield the rows of a chunk of tokens and their logits ``[C, V]``, in the weight's dtype.

    All chunks share one buffer: it may be overwritten, and the next chunk does overwrite it. ``chunk`` is the number of
    tokens; by default as many as ``BUFFER_BYTES`` holds.
    """
    count, vocabulary = hidden_ND.shape[0], weight_VD.shape[0]
    size = min(chunk or rows_within(BUFFER_BYTES, vocabulary), count)
    buffer_CV = weight_VD.new_empty(size, vocabulary)
    for start in range(0, count, size or 1):
        rows = slice(start, min(start + size, count))
        logits_CV = buffer_CV[: rows.stop - rows.start]
        torch.mm(hidden_ND[rows].to(weight_VD.dtype), weight_VD.T, out=logits_CV)
        yield rows, logits_CV


@torch.no_grad()
def log_partition(hidden_ND: Tensor, weight_VD: Tensor, tile: tuple[int, int] | None = None) -> Tensor:
    """log of the sum over the vocabulary of exp(logit), ``[N]`` float32 (float64 if the weight is), no gradient.

    It is all of the vocabulary that a loss needs: a token's cross-entropy is this less its own logit. So logits are made a
    ``tile`` of (tokens, vocabulary) at a time, and summed up before they leave the processor's cache.
    """
    rows, columns = tile or (TILE if hidden_ND.device.type == "cpu" else WIDE_TILE)
    partition_N = wide(weight_VD.new_empty(0)).new_full((len(hidden_ND),), -torch.inf)
    buffer = weight_VD.new_empty(min(rows, len(hidden_ND)) * min(columns, len(weight_VD)))
    for some_ND, some_N in zip(hidden_ND.to(weight_VD.dtype).split(rows), partition_N.split(rows), strict=True):
        for part_VD in weight_VD.split(columns):
            logits_CV = buffer[: len(some_ND) * len(part_VD)].view(len(some_ND), len(part_VD))
            torch.mm(some_ND, part_VD.T, out=logits_CV)
            torch.logaddexp(some_N, torch.logsumexp(wide(logits_CV), dim=1), out=some_N)
    return partition_N


@torch.no_grad()
def token_losses(hidden_BTD: Tensor, weight_VD: Tensor, targets_BT: Tensor, tile: tuple[int, int] | None = None) -> Tensor:
    """Cross-entropy in nats of predicting ``targets_BT[b, t]`` from ``hidden_BTD[b, t]``: ``[B, T]`` float32 (float64 if the weight is), no gradient.

    The caller aligns the two (hidden states of tokens 0..T-2, targets 1..T-1). A target of -100 gives 0.
    """
    hidden_ND, targets_N = hidden_BTD.flatten(0, 1), targets_BT.flatten()
    partition_N = log_partition(hidden_ND, weight_VD, tile)
    own_N = (hidden_ND.to(weight_VD.dtype) * weight_VD[targets_N.clamp(min=0)]).sum(1, dtype=partition_N.dtype)
    return torch.where(targets_N == IGNORED, 0.0, partition_N - own_N).view(targets_BT.shape)
