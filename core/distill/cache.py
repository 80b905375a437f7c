"""The teacher's final hidden states of the training blocks, on disk: its logits are then one matrix product away, for ever.

A block is kept when it was first needed, and never computed again: not in the next epoch, not by another student, not by a run
that resumes or repeats. What it is kept under names the teacher's weights, the blocks, the stored format and the one computed in,
so nothing stale can be read. Needs no torch, so that a page can say how large it will be.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError
from core.files import content_hash, replacing, require_free, write_json, writing_to
from core.model.packages import exclusively
from core.progress import Progress, Silent
from core.workspace import room

VERSION = 1
"""Of the procedure; raising it makes all states anew."""

STORED: dict[str, np.dtype[Any]] = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(np.uint16)}
"""Number format -> how numpy holds it; bfloat16 as its bits."""


def cache_bytes(blocks: int, seq_len: int, hidden: int, number_format: str) -> int:
    """Size of the states of so many blocks, in bytes."""
    return blocks * seq_len * hidden * STORED[number_format].itemsize


def cache_key(teacher_fingerprint: str, blocks_NT: np.ndarray, number_format: str, computed: str) -> str:
    """Name a cache by all that determines it; ``computed`` is the format that the teacher computes in."""
    blocks = content_hash(np.ascontiguousarray(blocks_NT, dtype=np.int32).tobytes())
    return content_hash([VERSION, teacher_fingerprint, list(blocks_NT.shape), blocks, number_format, computed])


@dataclass(frozen=True, kw_only=True)
class StateCache:
    """The states of one set of blocks, ``[N, T, E]``, some of them there already. Several processes may fill it together."""

    path: Path
    """A folder with ``states.bin`` and ``there.bin``, which has a byte a block."""
    shape: tuple[int, int, int]
    number_format: str

    @classmethod
    def open(cls, key: str, shape: tuple[int, int, int], number_format: str, progress: Progress | None = None) -> "StateCache":
        """The cache of this name, made empty if it is not there."""
        cache = cls(path=room("teacher") / key, shape=shape, number_format=number_format)
        with exclusively(f"teacher-{key}", progress or Silent()):
            if not cache.path.exists():
                with replacing(cache.path) as folder:
                    folder.mkdir()
                    (folder / "states.bin").touch()
                    (folder / "there.bin").write_bytes(bytes(shape[0]))
                    write_json(folder / "meta.json", {"shape": shape, "format": number_format})
        return cache

    def require_room(self, blocks: np.ndarray) -> None:
        """Refuse before the first is written what the disk cannot hold of ``blocks``.

        Raises:
            UserError: it cannot.
        """
        require_free(self.path, int((~self.there[blocks]).sum()) * self._block_bytes)

    @property
    def there(self) -> np.ndarray:
        """Which blocks are there, ``[N]`` bool, as things stand now.

        Raises:
            UserError: the cache is damaged.
        """
        there_N = np.fromfile(self.path / "there.bin", dtype=np.uint8).astype(bool)
        last = int(np.flatnonzero(there_N)[-1]) if there_N.any() else -1
        if len(there_N) != self.shape[0] or (self.path / "states.bin").stat().st_size < (last + 1) * self._block_bytes:
            raise UserError(f"The teacher's stored states in {self.path} are damaged. Delete that folder; they will be made again.")
        return there_N

    def read(self, block: int) -> np.ndarray:
        """The states of a block that is there, ``[T, E]``, in the format they are stored in."""
        count = self.shape[1] * self.shape[2]
        offset = block * self._block_bytes
        return np.fromfile(self.path / "states.bin", dtype=STORED[self.number_format], count=count, offset=offset).reshape(self.shape[1:])

    def write(self, block: int, states_TE: np.ndarray) -> None:
        """Keep the states of a block: first the numbers, all of them on the disk, and only then the word that they are there.

        Raises:
            UserError: the disk is full; what was there stays valid.
        """
        data = np.ascontiguousarray(states_TE, dtype=STORED[self.number_format])
        assert data.shape == self.shape[1:], f"states of shape {data.shape} do not fit {self.shape}"
        with writing_to(self.path):
            for name, offset, content in (("states.bin", block * self._block_bytes, data.tobytes()), ("there.bin", block, b"\1")):
                with (self.path / name).open("r+b") as file:
                    file.seek(offset)
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())

    @property
    def _block_bytes(self) -> int:
        return cache_bytes(1, *self.shape[1:], self.number_format)
