"""Where finished units of passes wait for the rest of their pass: files for whoever resumes or works beside, or this process's memory."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from core.files import read_arrays, replacing
from core.workspace import room

Arrays = dict[str, np.ndarray]


class Shelf(Protocol):
    """Units by the name of their pass and their number."""

    def lacks(self, name: str, unit: int) -> bool:
        """Whether a unit of a pass is wanted, and is not there yet."""

    def put(self, name: str, unit: int, arrays: Arrays) -> None:
        """Keep a finished unit, whole or not at all."""

    def take(self, name: str, units: int) -> list[Arrays]:
        """All units of a pass."""


class Memory:
    """A shelf of this process alone."""

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = wanted
        self._units: dict[tuple[str, int], Arrays] = {}

    def lacks(self, name: str, unit: int) -> bool:
        """See ``Shelf``."""
        return name in self._wanted and (name, unit) not in self._units

    def put(self, name: str, unit: int, arrays: Arrays) -> None:
        """See ``Shelf``."""
        self._units[name, unit] = arrays

    def take(self, name: str, units: int) -> list[Arrays]:
        """All units of a pass, which are let go of."""
        return [self._units.pop((name, unit)) for unit in range(units)]


class Files:
    """A shelf in the workspace, a file a unit."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        """Look at the passes that are wanted: name -> the key under which each will be stored."""
        self._keys = keys

    def lacks(self, name: str, unit: int) -> bool:
        """See ``Shelf``."""
        return name in self._keys and not self._path(name, unit).exists()

    def put(self, name: str, unit: int, arrays: Arrays) -> None:
        """See ``Shelf``."""
        with replacing(self._path(name, unit)) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def take(self, name: str, units: int) -> list[Arrays]:
        """All units of a pass, read.

        Raises:
            UserError: one is damaged.
        """
        return [read_arrays(self._path(name, unit), "Delete it and score again.") for unit in range(units)]

    def clear(self, name: str, units: int) -> None:
        """Delete the units of a pass that is stored as a whole."""
        for unit in range(units):
            self._path(name, unit).unlink(missing_ok=True)  # two runs may have computed the same

    def _path(self, name: str, unit: int) -> Path:
        return room("partial") / f"{self._keys[name]}-{unit}.npz"
