"""How well a model predicts held-out text, and how far it is from the teacher: one pass, both heads chunk by chunk.

Losses are nats a token. The teacher's side is computed once, as final hidden states (``D`` numbers a token instead of ``V``),
and serves every student and every measurement during training.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.errors import UserError
from core.model.head import BUFFER_BYTES, head_weight, hidden_states, logits_in_chunks, rows_within, strips
from core.progress import Progress, Silent

PHASE = "measure"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a teacher says about a set of blocks: its final hidden states ``[N, T, D]`` on the CPU, and its head ``[V, D]``."""

    states_NTD: Tensor
    head_VD: Tensor


def reference(model: PreTrainedModel, blocks_NT: np.ndarray, *, batch_size: int = 4, progress: Progress | None = None) -> Reference:
    """Ask the teacher once, for many calls of ``measure``."""
    return Reference(
        states_NTD=final_states(model, blocks_NT, batch_size=batch_size, progress=progress), head_VD=head_weight(model).detach()
    )


def final_states(model: PreTrainedModel, blocks_NT: np.ndarray, *, batch_size: int = 4, progress: Progress | None = None) -> Tensor:
    """Final hidden states of all blocks, ``[N, T, D]`` on the CPU in the model's dtype.

    Raises:
        UserError: they are not finite numbers.
        Stopped: progress asked for it.
    """
    progress = progress or Silent()
    parts = []
    with evaluating(model):
        for rows, tokens_BT in _batches(model, blocks_NT, batch_size):
            parts.append(hidden_states(model, tokens_BT).cpu())
            progress.step(PHASE, rows.stop, len(blocks_NT))
    states_NTD = torch.cat(parts)
    if bad := int((~torch.isfinite(states_NTD)).any(-1).sum()):
        raise UserError(
            f"The final hidden states of the model in {model.name_or_path} are not finite numbers at {bad} of {blocks_NT.size} tokens, so nothing "
            "can be compared with it. Its weights are damaged; fetch them again."
        )
    return states_NTD


def measure(
    model: PreTrainedModel,
    blocks_NT: np.ndarray,
    tokenizer: PreTrainedTokenizerBase,
    *,
    teacher: Reference | PreTrainedModel | None = None,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model on packed blocks ``[N, T]``; JSON-able.

    Returns:
        ``loss_nats`` (mean over all ``N x (T-1)`` predicted tokens), ``loss_se_nats`` (its standard error over blocks; None
        for one block), ``perplexity``, ``bits_per_byte`` (over the predicted text, special tokens left out), ``kl_nats``
        (teacher || model) and ``top1_agreement`` (both None without a teacher), ``tokens``, ``bytes`` and ``block_losses``.

    Raises:
        UserError: there is nothing to predict, a head lacks tokens that the tokenizer uses, or the model's numbers are not finite.
        Stopped: progress asked for it.
    """
    progress = progress or Silent()
    if blocks_NT.ndim != 2 or min(blocks_NT.shape[0], blocks_NT.shape[1] - 1) < 1:
        raise UserError(f"Measuring needs at least one block of at least 2 tokens, got blocks of shape {blocks_NT.shape}.")
    if isinstance(teacher, nn.Module):
        teacher = reference(teacher, blocks_NT, batch_size=batch_size, progress=progress)
    sheets = []
    with evaluating(model):
        _check_vocabularies(model, teacher, tokenizer)
        for rows, tokens_BT in _batches(model, blocks_NT, batch_size):
            sheets.append(_examine(model, tokens_BT, teacher, rows))
            progress.step(PHASE, rows.stop, len(blocks_NT))
    return _summary(torch.cat(sheets, dim=1).double(), blocks_NT, tokenizer, teacher is not None)


def _examine(model: PreTrainedModel, tokens_BT: Tensor, teacher: Reference | None, rows: slice) -> Tensor:
    """Loss, KL and agreement of every predicted token of a batch, ``[3, B, T-1]`` on the CPU; zeros where there is no teacher."""
    targets_N = tokens_BT[:, 1:].flatten()
    hidden_ND, head_VD = hidden_states(model, tokens_BT)[:, :-1].flatten(0, 1), head_weight(model)
    sheet_3N = torch.zeros(3, len(targets_N), device=hidden_ND.device)
    size = rows_within(BUFFER_BYTES, max(len(head_VD), len(teacher.head_VD) if teacher else 0))  # the same for heads of other heights
    teacher_chunks = _teacher_chunks(teacher, rows, hidden_ND.device, size) if teacher else None
    for chunk, logits_CV in logits_in_chunks(hidden_ND, head_VD, size):
        sheet_3C, targets_C = sheet_3N[:, chunk], targets_N[chunk]
        teacher_CV = next(teacher_chunks)[1] if teacher_chunks else None
        for strip in strips(logits_CV):
            logp_SV = logits_CV[strip].float().log_softmax(-1)
            sheet_3C[0, strip] = -logp_SV.gather(1, targets_C[strip, None]).squeeze(1)
            if teacher_CV is not None:
                sheet_3C[1:, strip] = _against(teacher_CV[strip].float(), logits_CV[strip].float(), logp_SV)
    return sheet_3N.view(3, len(tokens_BT), -1).cpu()


def _against(teacher_SV: Tensor, logits_SV: Tensor, logp_SV: Tensor) -> Tensor:
    """Divergence and agreement ``[2, S]``; over the tokens that both heads have, where one of them is padded."""
    shared = min(teacher_SV.shape[1], logits_SV.shape[1])
    if shared < max(teacher_SV.shape[1], logits_SV.shape[1]):
        teacher_SV, logits_SV = teacher_SV[:, :shared], logits_SV[:, :shared]
        logp_SV = logits_SV.log_softmax(-1)
    teacher_logp_SV = teacher_SV.log_softmax(-1)
    kl_S = torch.linalg.vecdot(teacher_logp_SV.exp(), teacher_logp_SV - logp_SV)
    return torch.stack([kl_S, (teacher_SV.argmax(-1) == logits_SV.argmax(-1)).float()])


def _teacher_chunks(teacher: Reference, rows: slice, device: torch.device, size: int) -> Iterator[tuple[slice, Tensor]]:
    head_VD = teacher.head_VD.to(device)
    return logits_in_chunks(teacher.states_NTD[rows, :-1].flatten(0, 1).to(device), head_VD, size)


def _summary(sheet_3NT: Tensor, blocks_NT: np.ndarray, tokenizer: PreTrainedTokenizerBase, compared: bool) -> dict[str, Any]:
    """Condense the values of all predicted tokens, ``[3, N, T-1]`` float64."""
    losses_NT, kl_NT, agreement_NT = sheet_3NT
    if bad := int((~torch.isfinite(sheet_3NT)).any(0).sum()):
        raise UserError(
            f"The model's predictions of {bad} of {losses_NT.numel()} held-out tokens are not finite numbers. Its weights are damaged."
        )
    loss, block_losses_N = float(losses_NT.mean()), losses_NT.mean(1)
    is_text_NT = torch.from_numpy(~np.isin(blocks_NT[:, 1:], tokenizer.all_special_ids))
    count = text_bytes(tokenizer, blocks_NT)
    return {
        "loss_nats": loss,
        "loss_se_nats": float(block_losses_N.std() / math.sqrt(len(block_losses_N))) if len(block_losses_N) > 1 else None,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_byte": float(losses_NT[is_text_NT].sum()) / math.log(2) / max(count, 1),
        "kl_nats": float(kl_NT.mean()) if compared else None,
        "top1_agreement": float(agreement_NT.mean()) if compared else None,
        "tokens": losses_NT.numel(),
        "bytes": count,
        "block_losses": block_losses_N.tolist(),
    }


def text_bytes(tokenizer: PreTrainedTokenizerBase, blocks_NT: np.ndarray) -> int:
    """UTF-8 bytes of the text of all tokens but each block's first, special tokens left out."""

    def size(tokens: list[int]) -> int:
        return len(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False).encode())

    # A difference, because some tokenizers drop a space at the start of what they decode.
    return sum(size(block) - size(block[:1]) for block in blocks_NT.tolist())


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients for the block; a model in training returns to it."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _batches(model: PreTrainedModel, blocks_NT: np.ndarray, batch_size: int) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(blocks_NT), batch_size):
        rows = slice(start, min(start + batch_size, len(blocks_NT)))
        yield rows, torch.from_numpy(blocks_NT[rows].astype(np.int64)).to(model.device)


def _check_vocabularies(model: PreTrainedModel, teacher: Reference | None, tokenizer: PreTrainedTokenizerBase) -> None:
    """Heads may be of different heights where the rest is padding."""
    if teacher and (theirs := len(teacher.head_VD)) != (ours := len(head_weight(model))):
        used = max(tokenizer.get_vocab().values()) + 1
        if used > min(ours, theirs):
            raise UserError(f"A model of {ours} tokens cannot be compared with a teacher of {theirs}: their tokenizer uses {used}.")
