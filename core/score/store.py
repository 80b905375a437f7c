"""Scores on disk, under the name of all that determines them. No torch: the dashboard reads them here.

A pass over the text (``core.score.passes``) is one file in the workspace's ``passes``, named by the hash of the weights, the
calibration tokens, the settings that it looks at, and the version below. Scores are a folder with a ``meta.json`` that names
the passes which a spec asked for; scores that ask for more share the passes that are there. Nothing stale can be read.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError
from core.files import content_hash, read_arrays, read_json, replacing, write_json
from core.model.dims import Dims
from core.score import criteria
from core.score.aggregate import merge
from core.score.criteria.registry import find as find_criterion
from core.score.passes import Pass, naming, settings_of
from core.specs import RankSpec, ScoreSpec
from core.workspace import room

VERSION = 3
"""Raised whenever a formula or the layout changes, which renames every score and every pass."""


def score_key(model_fingerprint: str, calibration_hash: str, spec: ScoreSpec) -> str:
    """Name of the scores of these weights on these calibration tokens. The batch size does not change a score."""
    settings = naming({name: value for name, value in spec.to_dict().items() if name != "batch_size"})
    return content_hash({"version": VERSION, "model": model_fingerprint, "calibration": calibration_hash, "score": settings})


def pass_key(model_fingerprint: str, calibration_hash: str, item: Pass, spec: ScoreSpec) -> str:
    """Name of one pass of them."""
    settings = {"pass": item.name, **settings_of(item, spec)}
    return content_hash({"version": VERSION, "model": model_fingerprint, "calibration": calibration_hash, **settings})


def pass_file(key: str) -> Path:
    """Where a pass is stored."""
    return room("passes") / f"{key}.npz"


@dataclass(frozen=True)
class Scores:
    """Stored importance of one model on one calibration set, or what some of its shards say of it."""

    folder: Path
    meta: dict[str, Any]
    """``model``, ``dims``, ``data``, ``score``, ``passes``, ``blocks``, ``tokens``, ``teacher_loss``, ``created``, ``seconds``, ``version``."""
    shards: tuple[int, ...] | None = None
    """The shards to look at; None for all."""
    _opened: dict[str, dict[str, np.ndarray]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def key(self) -> str:
        """The name under which the scores are stored."""
        return self.folder.name

    @cached_property
    def dims(self) -> Dims:
        """Dimensions of the scored model."""
        return Dims(**self.meta["dims"])

    @property
    def num_shards(self) -> int:
        """Parts of the calibration set that were scored each by itself."""
        return int(self.meta["score"]["shards"])

    def on(self, shards: tuple[int, ...]) -> "Scores":
        """The same scores as these shards alone tell them."""
        return dataclasses.replace(self, shards=shards)

    def has(self, pass_name: str) -> bool:
        """Whether a pass was made."""
        return pass_name in self.meta["passes"]

    def importance(self, axis: str, rank: RankSpec, removed: int = 1) -> np.ndarray:
        """Importance of all units of an axis under a ranking.

        Args:
            axis: ``heads`` gives ``[L, H]``, ``neurons`` ``[L, F]``, ``channels`` ``[D]``, ``layers`` ``[L]``.
            removed: layers that will go, which decides between runs of layers; protected layers are infinite.

        Raises:
            UserError: the criterion does not exist, or was not measured.
        """
        found = find_criterion(axis, rank.criterion(axis))
        if not self.has(found.needs):
            raise UserError(criteria.missing(found))
        if axis != "layers":
            return found.compute(self, rank)
        free_L = np.ones(self.dims.layers, bool)
        free_L[: rank.protect_first] = free_L[max(self.dims.layers - rank.protect_last, 0) :] = False
        return np.where(free_L, found.compute(self, criteria.Depth(removed=removed, free_L=free_L)), np.inf)

    def offered(self, axis: str) -> dict[str, criteria.Criterion]:
        """The criteria of an axis that these scores can answer."""
        return {name: found for name, found in criteria.criteria_of(axis).items() if self.has(found.needs)}

    def moments(self, site: str, pass_name: str = "activations") -> tuple[np.ndarray, int]:
        """Moments ``[4, 2, places, units]`` of the shards, merged in their order, and the blocks behind them."""
        arrays, total, count = self.arrays(pass_name), None, 0
        for shard in self._chosen(len(arrays["count"])):
            new, more = arrays[site][shard], int(arrays["count"][shard])
            total, count = (new, more) if total is None else (merge(total, count, new, more), count + more)
        assert total is not None
        return total, count

    def mean(self, pass_name: str, name: str) -> np.ndarray:
        """Mean over blocks of an array whose rows are blocks, or are shards and have a ``count`` beside them."""
        arrays = self.arrays(pass_name)
        rows, weights = arrays[name], arrays.get("count", np.ones(len(arrays[name])))
        chosen = self._chosen(len(rows)) if "count" in arrays else self._blocks(len(rows))
        return np.average(rows[chosen], axis=0, weights=weights[chosen])

    def array(self, pass_name: str, name: str) -> np.ndarray:
        """An array as it is stored, whatever the shards."""
        return self.arrays(pass_name)[name]

    def arrays(self, pass_name: str) -> Mapping[str, np.ndarray]:
        """Everything that a pass found.

        Raises:
            UserError: it was not made, or its file is damaged or gone.
        """
        if pass_name not in self._opened:
            if not self.has(pass_name):
                raise UserError(f"These scores lack the pass {pass_name!r}.")
            path = pass_file(self.meta["passes"][pass_name])
            self._opened[pass_name] = read_arrays(path, "Delete it, if it is there, and score again.")
        return self._opened[pass_name]

    def _chosen(self, shards: int) -> list[int]:
        return list(range(shards)) if self.shards is None else list(self.shards)

    def _blocks(self, blocks: int) -> list[int]:
        """Rows that belong to the chosen shards: block b is in shard b modulo their number."""
        return [block for block in range(blocks) if block % self.num_shards in self._chosen(self.num_shards)]


def load(key: str) -> Scores:
    """Open stored scores.

    Raises:
        UserError: there are none of this name, they are damaged, or another version of Coppice made them.
    """
    folder = room("scores") / key
    try:
        meta = read_json(folder / "meta.json")
        version = meta.get("version")
    except FileNotFoundError:
        raise UserError(f"There are no scores {key!r} in {folder.parent}. Compute them first.") from None
    except (ValueError, AttributeError) as error:  # no JSON, or no object
        raise UserError(f"{folder / 'meta.json'} is damaged ({error}). Delete {folder} and score again.") from error
    if version != VERSION:
        raise UserError(
            f"The scores {key!r} were made by another version of Coppice (layout {version}, this one reads {VERSION}). Score again."
        )
    return Scores(folder, meta)


def find(model_fingerprint: str, calibration_hash: str, spec: ScoreSpec) -> Scores | None:
    """The stored scores of exactly this model, text and spec, if there are any and all their passes are there."""
    key = score_key(model_fingerprint, calibration_hash, spec)
    if not (room("scores") / key / "meta.json").exists():
        return None
    scores = load(key)
    return scores if all(pass_file(name).exists() for name in scores.meta["passes"].values()) else None


def all_scores() -> list[Scores]:
    """All stored scores of this version, newest first; folders that are not scores, or are damaged, are passed over."""
    found = []
    for path in room("scores").glob("b2-*/meta.json"):
        with contextlib.suppress(UserError):
            found.append(load(path.parent.name))
    return sorted(found, key=lambda scores: scores.meta["created"], reverse=True)


def save_pass(key: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Store one pass; whole or not at all. Compression would save a seventh and make opening several times slower."""
    with replacing(pass_file(key)) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def save(key: str, passes: Mapping[str, str], dims: Dims, meta: Mapping[str, Any]) -> Scores:
    """Store scores that are made of these passes (name -> key)."""
    data = {**meta, "version": VERSION, "passes": dict(passes), "dims": dataclasses.asdict(dims)}
    write_json(room("scores") / key / "meta.json", data)
    return load(key)
