"""Tokens a second: reading a prompt (prefill) and writing one token after the other (decode).

Only ratios between models measured together mean anything on a machine that does other work too, so the repetitions of all
models are interleaved, and each model is represented by its median.
"""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from core.errors import UserError
from core.evaluate.measure import evaluating
from core.progress import Progress, Silent

PHASE = "speed"
DECODED_TOKENS = 16


def tokens_per_second(
    models: Mapping[str, PreTrainedModel], seq_len: int = 512, repeats: int = 5, progress: Progress | None = None
) -> dict[str, dict[str, Any]]:
    """Measure several models against each other, batch size 1.

    Returns:
        For each name ``prefill`` and ``decode`` (medians, tokens a second), and ``prefill_range`` and ``decode_range``
        (slowest and fastest repetition).

    Raises:
        UserError: the sequence does not fit into a model's context.
        Stopped: progress asked for it.
    """
    progress = progress or Silent()
    for name, model in models.items():
        if seq_len + DECODED_TOKENS > (context := model.config.max_position_embeddings):
            raise UserError(f"Timing {seq_len} + {DECODED_TOKENS} tokens exceeds the context of {context} tokens of {name}. Lower seq_len.")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for turn in range(repeats + 1):
        for name, model in models.items():
            measured = _time(model, seq_len)
            if turn:  # the first round only warms up
                times[name].append(measured)
        progress.step(PHASE, turn, repeats)
    return {name: _summary(seq_len, seconds) for name, seconds in times.items()}


def _time(model: PreTrainedModel, seq_len: int) -> tuple[float, float]:
    """Seconds to read ``seq_len`` tokens, and then to write ``DECODED_TOKENS``."""
    tokens_1T = (torch.arange(seq_len, device=model.device) * 7919 % model.config.vocab_size).unsqueeze(0)
    with evaluating(model):
        start = _now(model)
        output = model(input_ids=tokens_1T, use_cache=True, logits_to_keep=1)
        read = _now(model)
        for _ in range(DECODED_TOKENS):
            token_11 = output.logits[:, -1:].argmax(-1)
            output = model(input_ids=token_11, past_key_values=output.past_key_values, use_cache=True)
        return read - start, _now(model) - read


def _now(model: PreTrainedModel) -> float:
    """The clock, once the device has finished what it was given."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    elif model.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _summary(seq_len: int, seconds: list[tuple[float, float]]) -> dict[str, Any]:
    rates = {"prefill": [seq_len / read for read, _ in seconds], "decode": [DECODED_TOKENS / wrote for _, wrote in seconds]}
    medians = {kind: statistics.median(values) for kind, values in rates.items()}
    return medians | {f"{kind}_range": [min(values), max(values)] for kind, values in rates.items()}
