"""A tiny model on disk and blocks for it, as ``score`` takes them."""

from pathlib import Path
from typing import Any

import numpy as np

from core.data.blocks import Blocks
from core.progress import Silent, Stopped
from core.score.scoring import score
from core.score.store import Scores
from core.specs import DataSpec, ScoreSpec
from core.workspace import room
from tests.tiny import random_blocks, random_documents, save_tiny

ALL = ScoreSpec(
    shards=3, ppl_blocks=2, gradient_blocks=4, covariances=True, ridge=0.03, pre_activation=True, windows=(1, 2), greedy=2, batch_size=2
)
"""Every pass, a few of the units of which are of more than one batch."""


def saved_model(folder: Path) -> Path:
    """A tiny checkpoint."""
    return save_tiny(folder, num_hidden_layers=3)


def blocks_for_scoring(count: int = 5, seed: int = 0) -> Blocks:
    """Random calibration blocks, and no others."""
    meta: dict[str, Any] = {"spec": DataSpec().to_dict(), "sets": {"calibration": {"fingerprint": f"text {count} {seed}"}}, "notes": []}
    nothing, blocks_NT = np.zeros((0, 19), np.int32), random_blocks(count, 19, seed)
    documents_NT = random_documents(blocks_NT.shape, seed)
    return Blocks(
        calibration_NT=blocks_NT, calibration_documents_NT=documents_NT, train_NT=nothing, heldout={}, fingerprint="b2-tiny", meta=meta
    )


def scored(model: Path, spec: ScoreSpec = ALL, progress: Any = None, blocks: Blocks | None = None) -> Scores:
    """Score on the CPU."""
    return score(model, blocks or blocks_for_scoring(), spec, progress or Silent(), device="cpu", name="tiny")


def bits(scores: Scores) -> dict[str, bytes]:
    """All that the passes found, but for the time that they took."""
    return {
        f"{item}.{name}": values.tobytes()
        for item in scores.meta["passes"]
        for name, values in scores.arrays(item).items()
        if name != "seconds"
    }


def parts_left() -> list[str]:
    """Files of units that wait for the rest of their pass."""
    return sorted(path.name for path in room("partial").iterdir())


class Watching(Silent):
    """Progress that keeps what it is told, and asks to stop at one of the steps."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.told: list[tuple[int, int]] = []
        self.stop_at = stop_at

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        self.told.append((done, total))
        if len(self.told) == self.stop_at:
            raise Stopped
