"""A run's diary: ``events.jsonl``, one JSON object a line, only ever appended to.

The worker writes it, every page and command reads it by byte offset. A crash may leave half a line: the next writer starts
on a fresh one, and readers pass over what is not JSON. Line forms: ``{"time", "phase", "done", "total", **metrics}``,
``{"time", "note"}`` and ``{"time", "segment"}`` (each start or resume).
"""

import json
import math
import time
from pathlib import Path
from typing import Any, Self

from core.files import writing_to

Event = dict[str, Any]


class EventLog:
    """The writing end. Each event reaches the operating system at once, so that a killed worker loses none."""

    def __init__(self, path: Path) -> None:
        """Open ``path`` for appending.

        Raises:
            UserError: it cannot be written.
        """
        self.path = path
        with writing_to(path):
            torn = _ends_torn(path)
            self._file = path.open("ab", buffering=0)
            if torn:
                self._file.write(b"\n")

    def append(self, **fields: Any) -> None:
        """Write one event, stamped with the time in seconds since 1970.

        Raises:
            UserError: the disk is full.
        """
        line = json.dumps({"time": time.time(), **plain(fields)}, ensure_ascii=False, allow_nan=False)
        with writing_to(self.path):
            self._file.write(line.encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Read the events that begin at byte ``offset``; return them and the offset from which to go on.

    A last line that is still being written is left for the next call. A file that became shorter than ``offset`` is read
    from its start. A file that does not exist yet has no events.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            offset = offset if offset <= size else 0
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], 0
    whole = data[: data.rfind(b"\n") + 1]
    events = (_parse(line) for line in whole.splitlines())
    return [event for event in events if event is not None], offset + len(whole)


def plain(value: Any) -> Any:
    """Turn NumPy and torch numbers and arrays into plain JSON data; what is not finite becomes None, as JSON has no name for it."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _ends_torn(path: Path) -> bool:
    """Say whether the last line lacks its end, which is what a crash in mid-write leaves."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) != b"\n"
