"""Documents, whatever a text comes from: an embedded text, a local file, or a data set of the hub.

Each source is read as a stream that ``max_documents`` bounds. What cannot be read is refused with a sentence that says what
was found instead; the libraries' own errors are translated here and nowhere else.
"""

import codecs
import contextlib
import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import content_hash, file_hash
from core.model.embedded import ensure_text
from core.progress import Progress
from core.specs import EMBEDDED_TEXTS, MIX, MIXED_TEXTS, TextSpec

PLAIN = (".txt", ".md")
TABLES = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
"""File suffixes that have columns, and the reader of the ``datasets`` library for each."""
FOREIGN = (".csv", ".tsv", ".html", ".htm", ".xml", ".pdf", ".doc", ".docx", ".rtf", ".gz", ".zip", ".zst", ".bz2", ".xz", ".arrow")
"""Suffixes that mean a file rather than a hub id, though we do not read them."""
DOCUMENT_CHARACTERS = 8000
"""About how long the documents are into which a plain text is split."""


def documents(text: TextSpec, progress: Progress | None = None) -> Iterator[str]:
    """Yield the documents of a text in their own order, none of them blank, from at most ``max_documents`` rows; those of a mix in turn.

    Raises:
        UserError: the file or data set is missing, empty, not text, unreadable, or has no such column.
    """
    streams = [_never_empty(part, itertools.islice(_rows(part, progress), part.max_documents)) for part in parts(text)]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*streams))
    return (document for document in in_turn if document is not None)


def parts(text: TextSpec) -> tuple[TextSpec, ...]:
    """The texts that a mix consists of; any other text is its own only part."""
    return tuple(dataclasses.replace(text, source=name) for name in MIXED_TEXTS) if text.source == MIX else (text,)


def domain(text: TextSpec) -> str:
    """A short name for what kind of text it is: the embedded name, the file's stem, or the hub id."""
    if kind_of(text) == "file":
        return Path(text.source).stem
    return text.source + (f"/{text.config}" if text.config else "")


def kind_of(text: TextSpec) -> str:
    """``embedded``, ``file`` or ``hub``."""
    if text.source in (*EMBEDDED_TEXTS, MIX):
        return "embedded"
    path = Path(text.source).expanduser()
    local = path.suffix.lower() in (*PLAIN, *TABLES, *FOREIGN) or path.exists() or text.source.startswith((".", "/", "~"))
    return "file" if local else "hub"


def text_fingerprint(text: TextSpec, progress: Progress | None = None) -> str:
    """Name a text by its content; a hub data set by id, configuration, split and, where the hub answers, revision.

    Raises:
        UserError: a local file is missing.
    """
    kind = kind_of(text)
    if text.source == MIX:
        return content_hash([text_fingerprint(part, progress) for part in parts(text)])
    if kind == "hub":
        return content_hash({"id": text.source, "config": text.config, "split": text.split, "revision": _revision(text.source)})
    return "sha256-" + file_hash(ensure_text(text.source, progress) if kind == "embedded" else _checked_path(text))


def _rows(text: TextSpec, progress: Progress | None) -> Iterator[str]:
    """The text of every row, blank ones too."""
    kind = kind_of(text)
    if kind == "embedded":
        return _embedded(ensure_text(text.source, progress))
    if kind == "hub":
        return _column(text, _hub_rows(text))
    path = _checked_path(text)
    if path.suffix.lower() in PLAIN:
        return _plain(path)
    if path.suffix.lower() != ".parquet":
        _refuse_binary(path)
    return _column(text, _file_rows(path))


def _never_empty(text: TextSpec, rows: Iterator[str]) -> Iterator[str]:
    """The rows that are not blank; a text without any is refused."""
    some = False
    for row in rows:
        if row.strip():
            some = True
            yield row
    if not some:
        raise UserError(f"{text.source} holds no text{_within(text)}: all of its rows are blank. Choose another text, column or split.")


def _within(text: TextSpec) -> str:
    """Where in the source was looked, in words."""
    return "" if kind_of(text) == "embedded" or Path(text.source).suffix.lower() in PLAIN else f" in column {text.column!r}"


def _checked_path(text: TextSpec) -> Path:
    """The local file, known to be there, of a kind that is read, and not empty."""
    path = Path(text.source).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder. Give one file in it: .txt, .md, .jsonl, .json or .parquet.")
    if not path.is_file():
        raise UserError(
            f"There is no file {path}. Give an existing .txt, .md, .jsonl, .json or .parquet file, or an embedded text: {', '.join((*EMBEDDED_TEXTS, MIX))}."
        )
    if path.suffix.lower() not in (*PLAIN, *TABLES):
        raise UserError(
            f"{path} is of a kind that is not read ({path.suffix or 'no suffix'}). Allowed are .txt, .md, .jsonl, .json and .parquet; convert it to one of these."
        )
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes). Choose a file that holds text.")
    return path


def _embedded(path: Path) -> Iterator[str]:
    """The texts of a file made by ``ensure_text``."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def _plain(path: Path) -> Iterator[str]:
    """A plain file, split at blank lines into documents of about ``DOCUMENT_CHARACTERS``; without any, at line ends or words."""
    piece: list[str] = []
    size = 0
    for line in _lines(path):
        if size >= 2 * DOCUMENT_CHARACTERS or (size >= DOCUMENT_CHARACTERS and not line.strip()):
            yield "".join(piece).strip()
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    yield "".join(piece).strip()


def _lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, none longer than ``DOCUMENT_CHARACTERS``."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            while line := file.readline(DOCUMENT_CHARACTERS):
                if "\0" in line:
                    raise UserError(_binary(path, "it holds NUL bytes"))
                yield line
    except UnicodeDecodeError as error:
        raise UserError(_binary(path, f"byte {error.start} of a read cannot be decoded")) from None


def _binary(path: Path, reason: str) -> str:
    return f"{path} is not UTF-8 text: {reason}. Choose a text file, or convert this one to UTF-8."


def _refuse_binary(path: Path) -> None:
    """Refuse a file whose beginning is not UTF-8 text."""
    with path.open("rb") as file:
        start = file.read(1 << 20)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError as error:
        raise UserError(_binary(path, f"byte {error.start} cannot be decoded")) from None
    if b"\0" in start:
        raise UserError(_binary(path, "it holds NUL bytes"))


def _file_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a local table, streamed."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        yield from load_dataset(TABLES[path.suffix.lower()], data_files=str(path.absolute()), split="train", streaming=True)
    except (DatasetsError, ValueError, TypeError, KeyError, OSError) as error:
        raise UserError(f"{path} cannot be read as {path.suffix.lower()[1:]}: {_first_line(error)}. Repair or convert the file.") from error


def _hub_rows(text: TextSpec) -> Iterator[dict[str, Any]]:
    """The rows of a hub data set, streamed."""
    import httpx2
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    advice = (
        "A local file can be given instead (.txt, .md, .jsonl, .json or .parquet), or an embedded text: "
        + ", ".join((*EMBEDDED_TEXTS, MIX))
        + "."
    )
    try:
        yield from load_dataset(text.source, text.config, split=text.split, streaming=True)
    except (DatasetsError, ValueError, RuntimeError, OSError, httpx2.HTTPError) as error:
        place = f"{text.source!r}" + (f", configuration {text.config!r}" if text.config else "") + f", split {text.split!r}"
        raise UserError(f"The data set {place} could not be read from the hub: {_first_line(error)}. {advice}") from error


def _first_line(error: BaseException) -> str:
    """The most telling line of a library's error: that of its cause if it wraps one."""
    inner = error.__cause__ or error
    lines = str(inner).strip().splitlines() or [type(inner).__name__]
    return lines[0].rstrip(".")[:300]


def _column(text: TextSpec, rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """One column of some rows, which must be there and hold text; missing values count as blank."""
    for number, row in enumerate(rows):
        if text.column not in row:
            raise UserError(f"{text.source} has no column {text.column!r}. Its columns are: {', '.join(map(str, row))}.")
        value = row[text.column]
        if value is not None and not isinstance(value, str):
            raise UserError(
                f"Column {text.column!r} of {text.source} is not text: row {number} holds {type(value).__name__}. {_text_columns(row)}"
            )
        yield value or ""


def _text_columns(row: dict[str, Any]) -> str:
    """Which columns could be meant."""
    names = [name for name, value in row.items() if isinstance(value, str)]
    return f"Columns that hold text: {', '.join(names)}." if names else "No column of it holds text."


def _revision(name: str) -> str | None:
    """The commit that a hub data set is at, or None if the hub does not say."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    with contextlib.suppress(HfHubHTTPError, HFValidationError, httpx2.HTTPError, OSError, ValueError):
        return HfApi().dataset_info(name, timeout=10).sha
    return None
