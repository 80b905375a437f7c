"""Files that are either whole or absent, and names made from what is in them.

Everything that Coppice keeps on disk is written beside its final name and renamed into place, so a reader, a crash or a
full disk never meets half a file.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError

HASH_TAG = "b2-"
"""Prefix of every content hash: names the algorithm, so that a later one can live beside it."""


def canonical_json(value: Any) -> str:
    """Write ``value`` as JSON with sorted keys and no spaces. Changing this form changes every hash."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(value: Any, *, length: int = 20) -> str:
    """Name a JSON-able value (or bytes) by what it holds: ``b2-`` and ``length`` hexadecimal digits."""
    data = value if isinstance(value, bytes) else canonical_json(value).encode()
    return HASH_TAG + hashlib.blake2b(data, digest_size=32).hexdigest()[:length]


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Hash a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def read_json(path: Path) -> Any:
    """Read a JSON file, or raise ``FileNotFoundError`` or ``json.JSONDecodeError``."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_arrays(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Read a whole ``.npz`` file.

    Raises:
        UserError: it is missing or damaged; the message ends with ``remedy``.
    """
    try:
        with np.load(path) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is missing or damaged ({error}). {remedy}") from error


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place if the block ends well, and vanishes if not.

    Works for a file and for a folder (the block may create either). An existing folder is never replaced.

    Raises:
        UserError: the disk is full or the place cannot be written.
    """
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield temporary / path.name
            os.replace(temporary / path.name, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write at ``path`` into a sentence for the user."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(
                f"The disk that holds {path} is full. Free some space there, then start again; nothing was left half-written."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"{path} cannot be written ({error.strerror}). Choose a folder that you may write to.") from error
        raise


def require_free(path: Path, needed_bytes: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        UserError: less than ``needed_bytes`` are free where ``path`` will be.
    """
    place = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise UserError(
            f"Not enough disk space at {place}: {needed_bytes / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free. Free some, or move the workspace with COPPICE_WORKSPACE."
        )


def tree_bytes(path: Path) -> int:
    """Add up the sizes of all files below ``path``, in bytes."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
