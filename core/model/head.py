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

IGNORED = -100
"""The target of a position that does not count."""


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
def token_losses(hidden_BTD: Tensor, weight_VD: Tensor, targets_BT: Tensor, chunk: int | None = None) -> Tensor:
    """Cross-entropy in nats of predicting ``targets_BT[b, t]`` from ``hidden_BTD[b, t]``: ``[B, T]`` float32, no gradient.

    The caller aligns the two (hidden states of tokens 0..T-2, targets 1..T-1). A target of -100 gives 0.
    """
    hidden_ND, targets_N = hidden_BTD.flatten(0, 1), targets_BT.flatten()
    losses_N = torch.empty(len(targets_N), dtype=torch.float32, device=hidden_ND.device)
    for rows, logits_CV in logits_in_chunks(hidden_ND, weight_VD, chunk):
        targets_C, losses_C = targets_N[rows], losses_N[rows]
        for strip in strips(logits_CV):
            losses_C[strip] = nn.functional.cross_entropy(
                logits_CV[strip].float(), targets_C[strip], ignore_index=IGNORED, reduction="none"
            )
    return losses_N.view(targets_BT.shape)
