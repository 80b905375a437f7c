"""Scores on disk, under the name of all that determines them. No torch: the dashboard reads them here.

A score folder holds ``moments.npz`` (see ``core.score.aggregate``) and ``meta.json`` (what was scored, on what, when). Its name is
the hash of the weights, the calibration tokens, the score spec and the version below, so nothing stale can be read.
"""

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError
from core.files import content_hash, read_arrays, read_json, replacing, write_json
from core.model.dims import Dims
from core.score.aggregate import aggregate
from core.specs import RankSpec, ScoreSpec
from core.workspace import room

VERSION = 1
"""Raised whenever a formula or the layout changes, which renames every score."""


def score_key(model_fingerprint: str, calibration_hash: str, spec: ScoreSpec) -> str:
    """Name of the scores of these weights on these calibration tokens. The batch size does not change a score."""
    settings = {name: value for name, value in spec.to_dict().items() if name != "batch_size"}
    return content_hash({"version": VERSION, "model": model_fingerprint, "calibration": calibration_hash, "score": settings})


@dataclass(frozen=True)
class Scores:
    """Stored importance of one model on one calibration set."""

    folder: Path
    meta: dict[str, Any]
    """``model``, ``dims``, ``data``, ``score``, ``blocks``, ``tokens``, ``teacher_loss``, ``created``, ``seconds``."""

    @property
    def key(self) -> str:
        """The name under which the scores are stored."""
        return self.folder.name

    @cached_property
    def dims(self) -> Dims:
        """Dimensions of the scored model."""
        return Dims(**self.meta["dims"])

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything stored.

        Raises:
            UserError: the file is damaged.
        """
        return read_arrays(self.folder / "moments.npz", f"Delete {self.folder} and score again.")

    def heads(self, rank: RankSpec) -> np.ndarray:
        """Importance of every head, ``[L, H]``."""
        return self._aggregate("heads", rank)

    def neurons(self, rank: RankSpec) -> np.ndarray:
        """Importance of every FFN neuron, ``[L, F]``."""
        return self._aggregate("neurons", rank)

    def channels(self, rank: RankSpec) -> np.ndarray:
        """Importance of every embedding channel, ``[D]``: the sum over all normalisation sites."""
        return self._aggregate("channels", rank).sum(0)

    def layers(self, depth: str) -> np.ndarray:
        """Importance of every layer, ``[L]``: ``bi`` 1 - cos, or ``ppl`` the rise of the loss without it, nats a token.

        Raises:
            UserError: the losses were not measured.
        """
        if depth == "bi":
            return self.arrays["distance"] / self.count
        if not self.has_losses:
            raise UserError(
                "These scores hold no loss after removing each layer. Score again with ppl_blocks above 0, or rank layers by block importance."
            )
        return self.arrays["losses"][1:] - self.arrays["losses"][0]

    @property
    def has_losses(self) -> bool:
        """Whether the loss without each layer was measured."""
        return bool(self.arrays["losses"].size)

    @property
    def count(self) -> int:
        """Calibration blocks behind the moments."""
        return int(self.arrays["count"])

    def _aggregate(self, axis: str, rank: RankSpec) -> np.ndarray:
        return aggregate(self.arrays[axis], self.count, batch=rank.batch, sequence=rank.sequence)


def load(key: str) -> Scores:
    """Open stored scores.

    Raises:
        UserError: there are none of this name, or they are damaged.
    """
    folder = room("scores") / key
    try:
        return Scores(folder, read_json(folder / "meta.json"))
    except FileNotFoundError:
        raise UserError(f"There are no scores {key!r} in {folder.parent}. Compute them first.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{folder / 'meta.json'} is damaged ({error}). Delete {folder} and score again.") from error


def find(model_fingerprint: str, calibration_hash: str, spec: ScoreSpec) -> Scores | None:
    """The stored scores of exactly this model, text and spec, if there are any."""
    key = score_key(model_fingerprint, calibration_hash, spec)
    return load(key) if (room("scores") / key / "meta.json").exists() else None


def all_scores() -> list[Scores]:
    """All stored scores, newest first; folders that are not scores are passed over."""
    found = [load(path.parent.name) for path in room("scores").glob("b2-*/meta.json")]
    return sorted(found, key=lambda scores: scores.meta["created"], reverse=True)


def save(key: str, arrays: dict[str, np.ndarray], dims: Dims, meta: dict[str, Any]) -> Scores:
    """Store scores; whole or not at all."""
    folder = room("scores") / key
    if not folder.exists():
        with replacing(folder) as temporary:
            temporary.mkdir()
            np.savez_compressed(temporary / "moments.npz", **arrays)  # type: ignore[arg-type]
            write_json(temporary / "meta.json", {**meta, "version": VERSION, "dims": dataclasses.asdict(dims)})
    return load(key)
