"""An uploaded text is kept by its content and read like any local file; what cannot be read is refused in one sentence."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.data import uploads
from core.data.corpus import documents
from core.errors import UserError
from core.specs import TextSpec

LINE = json.dumps({"id": 1, "body": "One story."}) + "\n"


def parquet(**columns: list[object]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        ("own.txt", b"One story.", "text"),
        ("own.md", "\ufeffOne story.".encode(), "text"),
        ("own.jsonl", LINE.encode(), "body"),
        ("OWN.JSONL", b'\n{"text": "One story.", "body": "no"}\n', "text"),
        ("own.json", b'[\n {"id": 1, "body": "One story."}\n]', "body"),
        ("own.parquet", parquet(id=[1], body=["One story."]), "body"),
    ],
)
def test_what_is_kept_is_read_like_any_other_text(name: str, content: bytes, column: str) -> None:
    path, found = uploads.keep(name, content, "text")
    assert (path.name, found) == (name, column)
    assert list(documents(TextSpec(source=str(path), column=found))) == ["One story."]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("own.pdf", b"%PDF", r"\.pdf.*Allowed are \.txt"),
        ("own", b"text", "no suffix"),
        ("own.txt", b"", "is empty"),
        ("own.txt", b" \n", "is empty"),
        ("own.txt", "Zürich".encode("latin-1"), "not UTF-8"),
        ("own.md", b"a\0b", "NUL"),
        ("own.jsonl", b"not json", "cannot be read as jsonl"),
        ("own.jsonl", b"[1, 2]", "not an object"),
        ("own.jsonl", b'{"id": 1}', "no column of text"),
        ("own.json", b"[]", "not an object"),
        ("own.parquet", b"PAR1 not really", "cannot be read as parquet"),
        ("own.parquet", parquet(id=[1]), "no column of text"),
    ],
)
def test_what_cannot_be_read_is_refused_and_not_kept(name: str, content: bytes, told: str) -> None:
    with pytest.raises(UserError, match=told):
        uploads.keep(name, content, "text")
    assert not list(uploads.room("uploads").rglob("own*"))


def test_the_same_content_is_kept_once_and_a_name_cannot_leave_the_room() -> None:
    first, _ = uploads.keep("../../own.txt", b"One story.", "text")
    again, _ = uploads.keep("own.txt", b"One story.", "text")
    other, _ = uploads.keep("own.txt", b"Another.", "text")
    assert first == again != other
    assert first.parent.parent == uploads.room("uploads")
