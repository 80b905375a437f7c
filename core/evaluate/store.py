"""What was measured of a model under a plan, on disk under the name of all that determines it. No torch: the dashboard reads it.

A figure belongs to the weights, the tokens it was measured on, and what was kept; a draft that was measured once is never measured
again, whichever way led to it. The teacher's final hidden states are kept in the same manner, for they serve every plan.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core.files import content_hash, read_json, write_json
from core.workspace import room

VERSION = 1
"""Raised whenever what is measured, or how, changes."""

TEACHER = "teacher"
"""In the place of what is kept: the uncut model."""

Figures = dict[str, Any]
"""What ``core.evaluate.measure.measure`` returns."""


def key_of(weights: str, tokens: str, what: str) -> str:
    """Name of the figures of ``weights`` (their fingerprint), under ``what`` (``kept``, or ``TEACHER``), on ``tokens`` (their hash)."""
    return content_hash({"version": VERSION, "weights": weights, "tokens": tokens, "what": what})


def kept(masks: Mapping[str, np.ndarray]) -> str:
    """Name of what is kept: ``core.plan.plan.keep_masks``, whatever ranking, targets or pins led there."""
    return content_hash({name: [list(mask.shape), np.packbits(mask).tobytes().hex()] for name, mask in sorted(masks.items())})


def tokens_hash(blocks_NT: np.ndarray) -> str:
    """Name of token blocks by what is in them."""
    return content_hash(str(blocks_NT.shape).encode() + np.ascontiguousarray(blocks_NT, dtype=np.int32).tobytes())


def find(weights: str, tokens: str, what: str) -> Figures | None:
    """The stored figures, if there are any; a damaged file counts as none."""
    try:
        found = read_json(_file(key_of(weights, tokens, what)))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def find_all(weights: str, texts: Mapping[str, str], what: str) -> dict[str, Figures] | None:
    """The stored figures on several texts (name -> hash of its tokens), or None if one of them is missing."""
    found = {name: figures for name, tokens in texts.items() if (figures := find(weights, tokens, what)) is not None}
    return found if len(found) == len(texts) else None


def save(weights: str, tokens: str, what: str, figures: Figures) -> None:
    """Store figures, whole or not at all."""
    write_json(_file(key_of(weights, tokens, what)), figures)


def states_file(weights: str, tokens: str) -> Path:
    """Where the teacher's final hidden states on these tokens are kept."""
    return room("states") / f"{key_of(weights, tokens, TEACHER)}.npy"


def _file(key: str) -> Path:
    return room("measured") / f"{key}.json"
