"""Scoring a checkpoint on its calibration blocks: resumable, and stored so that it is never done twice."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from core.data.blocks import Blocks
from core.files import read_arrays, replacing
from core.model.checkpoint import check_map, load_model
from core.model.device import pick
from core.model.dims import dims_of
from core.model.source import fingerprint
from core.progress import Progress
from core.score.depth import losses_without
from core.score.store import Scores, find, save, score_key
from core.score.width import WidthAccumulator
from core.specs import ScoreSpec
from core.workspace import room


def score(folder: Path, blocks: Blocks, spec: ScoreSpec, progress: Progress, device: str = "auto", name: str = "") -> Scores:
    """Return the importance of a checkpoint's units on ``blocks``' calibration set, computing it if it is not stored.

    What was computed before an interruption is taken up again, batch by batch.

    Raises:
        UserError: the model does not fit its family's map, or its activations are not finite.
        Stopped: the user asked for it.
    """
    model_name = fingerprint(folder)
    if stored := find(model_name, blocks.meta["sets"]["calibration"]["sha256"], spec):
        progress.step("score", 1, 1, cached=True)
        return stored
    key = score_key(model_name, blocks.meta["sets"]["calibration"]["sha256"], spec)
    model = load_model(folder, pick(device))
    check_map(model)
    began = time.monotonic()
    arrays = compute(model, blocks.calibration_NT, spec, progress, room("partial") / f"{key}.npz")
    meta = {
        "model": name or str(folder), "model_fingerprint": model_name, "score": spec.to_dict(), "data": blocks.meta["spec"], "blocks": len(blocks.calibration_NT),
        "tokens": int(blocks.calibration_NT.size), "teacher_loss": float(arrays["losses"][0]) if arrays["losses"].size else None,
        "created": time.time(), "seconds": time.monotonic() - began,
    }  # fmt: skip
    scores = save(key, arrays, dims_of(model.config.to_dict()), meta)
    (room("partial") / f"{key}.npz").unlink(missing_ok=True)
    return scores


def compute(
    model: PreTrainedModel, calibration_NT: np.ndarray, spec: ScoreSpec, progress: Progress, partial: Path | None = None
) -> dict[str, np.ndarray]:
    """Compute all importance of a loaded model.

    Returns:
        ``heads``, ``neurons``, ``channels`` (moments, see ``core.score.aggregate``), ``distance`` ``[L]``, ``count``, and ``losses``
        ``[1 + L]``: the loss of the whole model and without each layer, nats a token, empty if not asked for.
    """
    config = model.config.to_dict()
    accumulator = WidthAccumulator(config, spec.neuron_site)
    losses: list[float] = []
    if partial is not None and partial.exists():
        losses = _take_up(accumulator, partial)
    total = len(calibration_NT) + spec.ppl_blocks * (accumulator.dims.layers + 1) * bool(spec.ppl_blocks)
    for ids_BT in _batches(model, calibration_NT[accumulator.count :], spec.batch_size):
        accumulator.feed(model, ids_BT)
        _keep(accumulator, losses, partial)
        progress.step("score", accumulator.count, total, part="activations")
    return accumulator.arrays() | {
        "losses": _removal_losses(model, config, calibration_NT, spec, progress, total, losses, lambda: _keep(accumulator, losses, partial))
    }


def _removal_losses(
    model: PreTrainedModel,
    config: dict[str, Any],
    calibration_NT: np.ndarray,
    spec: ScoreSpec,
    progress: Progress,
    total: int,
    losses: list[float],
    keep: Any,
) -> np.ndarray:
    """Mean loss of the whole model and without each layer, over the first ``ppl_blocks`` blocks; ``losses`` grows block by block."""
    used_NT = calibration_NT[: spec.ppl_blocks]
    depth = dims_of(config).layers + 1
    for ids_BT in _batches(model, used_NT[len(losses) // depth :], 1):
        for i, loss in enumerate(losses_without(model, config, ids_BT)):
            losses.append(loss)
            progress.step("score", len(calibration_NT) + len(losses), total, part="layer removal", layer=i - 1, loss=loss)
        keep()
    return np.array(losses).reshape(-1, depth).mean(0) if losses else np.zeros(0)


def _batches(model: PreTrainedModel, blocks_NT: np.ndarray, size: int) -> Iterator[torch.Tensor]:
    """Batches of token blocks on the model's device."""
    for start in range(0, len(blocks_NT), size):
        yield torch.from_numpy(np.asarray(blocks_NT[start : start + size], dtype=np.int64)).to(model.device)


def _keep(accumulator: WidthAccumulator, losses: list[float], partial: Path | None) -> None:
    """Save how far the scoring has come."""
    if partial is not None:
        with replacing(partial) as temporary:
            np.savez(temporary, **accumulator.arrays(), partial_losses=np.array(losses))  # type: ignore[arg-type]


def _take_up(accumulator: WidthAccumulator, partial: Path) -> list[float]:
    """Go on from a saved partial scoring; return its losses."""
    arrays = read_arrays(partial, "Delete it; the scoring then starts afresh.")
    accumulator.restore(arrays)
    return [float(loss) for loss in arrays["partial_losses"]]
