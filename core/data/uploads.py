"""A text that a person hands over as a file's name and content: looked at at once, and kept under the hash of its content."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

from core.data.corpus import PLAIN, TABLES
from core.errors import UserError
from core.files import replacing
from core.workspace import room

ALLOWED = (*PLAIN, *TABLES)
LONGEST_NAME = 80


def keep(name: str, content: bytes, column: str) -> tuple[Path, str]:
    """Store a text in the workspace, where it can be named like any other local file.

    Only its beginning is looked at; reading all of it tells of what is wrong further on.

    Args:
        name: the file's name, whose suffix says what it is.
        column: the column that should hold the text, for files that have columns.

    Returns:
        Where it lies, and the column of it that holds text: ``column``, or where that does not, the first that does.

    Raises:
        UserError: the file is of another kind, empty, not UTF-8, damaged, or has no column of text.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in ALLOWED:
        raise UserError(
            f"{name} is of a kind that is not read ({suffix or 'no suffix'}). Allowed are {', '.join(ALLOWED)}; convert it to one of these."
        )
    if not content.strip():
        raise UserError(f"{name} is empty ({len(content)} bytes without any text). Choose a file that holds text.")
    columns = _columns(name, suffix, content)
    path = room("uploads") / hashlib.sha256(content).hexdigest()[:16] / Path(name).name[-LONGEST_NAME:]
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return path, column if column in columns or not columns else columns[0]


def _columns(name: str, suffix: str, content: bytes) -> list[str]:
    """The columns that hold text; none for a plain text."""
    if suffix == ".parquet":
        columns = _of_parquet(name, content)
    else:
        text = _decoded(name, content)
        if suffix in PLAIN:
            return []
        columns = [key for key, value in _first_row(name, suffix, text).items() if isinstance(value, str)]
    if not columns:
        raise UserError(f'{name} has no column of text in its first row. Choose a file with one, such as lines like {{"text": "…"}}.')
    return columns


def _decoded(name: str, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} is not UTF-8 text: byte {error.start} cannot be decoded. Choose a text file, or convert this one to UTF-8."
        ) from None
    if "\0" in text:
        raise UserError(f"{name} is not UTF-8 text: it holds NUL bytes. Choose a text file, or convert this one to UTF-8.")
    return text


def _first_row(name: str, suffix: str, text: str) -> dict[str, Any]:
    """The first row of lines of JSON, or of one JSON list."""
    whole = suffix == ".json" and text.lstrip().startswith("[")
    try:
        found = json.loads(text if whole else text.lstrip().split("\n", 1)[0])
    except json.JSONDecodeError as error:
        raise UserError(
            f"{name} cannot be read as {suffix[1:]}: {error.msg} in its line {error.lineno}. Repair or convert the file."
        ) from None
    row = next(iter(found), None) if isinstance(found, list) else found
    if not isinstance(row, dict):
        raise UserError(f'{name} has no columns: its first row is not an object. Each row must be one, such as {{"text": "…"}}.')
    return row


def _of_parquet(name: str, content: bytes) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(io.BytesIO(content))
    except (pa.ArrowException, OSError):
        raise UserError(f"{name} cannot be read as parquet: it is damaged or of another kind. Repair or convert the file.") from None
    return [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
