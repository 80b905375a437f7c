"""Documents from files: what is read, what is refused, and in which words."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from core.data import corpus
from core.errors import UserError
from core.specs import MIXED_TEXTS, TextSpec


def texts(path: Path, **fields: object) -> list[str]:
    return list(corpus.documents(TextSpec(source=str(path), **fields)))  # type: ignore[arg-type]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    """The same rows in whichever format the suffix names."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_a_table_gives_its_column_row_by_row_without_the_blank_ones(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"table{suffix}", [{"body": "one"}, {"body": " "}, {"body": None}, {"body": "two – ü"}])
    assert texts(path, column="body") == ["one", "two – ü"]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".txt"])
def test_no_more_documents_are_read_than_asked(tmp_path: Path, suffix: str) -> None:
    if suffix == ".txt":
        path = tmp_path / "a.txt"
        path.write_text(("word " * 2000 + "\n\n") * 9)
    else:
        path = write(tmp_path / f"a{suffix}", [{"text": f"number {i}"} for i in range(9)])
    assert len(texts(path, max_documents=4)) == 4


@pytest.mark.parametrize("separator", ["\n\n", "\n", " "])
def test_a_plain_file_is_split_into_documents_and_no_word_is_lost(tmp_path: Path, separator: str) -> None:
    words = [f"w{i}" for i in range(20000)]
    path = tmp_path / "book.txt"
    path.write_text("".join(word + (separator if i % 50 == 49 else " ") for i, word in enumerate(words)), encoding="utf-8-sig")
    found = texts(path)
    assert len(found) > 5
    assert max(map(len, found)) <= 3 * corpus.DOCUMENT_CHARACTERS
    if separator != " ":  # a line that has no end is cut anywhere
        assert " ".join(found).split() == words
    assert "".join("".join(found).split()) == "".join(words)


@pytest.mark.parametrize(
    ("name", "content", "column", "said"),
    [
        ("absent.txt", None, "text", "There is no file"),
        ("absent.csv", None, "text", "There is no file"),
        ("empty.txt", b"", "text", "is empty (0 bytes)"),
        ("blank.txt", b" \n\n \n", "text", "holds no text"),
        ("nul.txt", b"some\0thing", "text", "NUL bytes"),
        ("latin.txt", "caf\xe9 ol\xe9".encode("latin-1"), "text", "is not UTF-8 text"),
        ("latin.jsonl", '{"text": "caf\xe9"}'.encode("latin-1"), "text", "is not UTF-8 text"),
        ("broken.jsonl", b'{"text": "one"}\n{"text": ', "text", "cannot be read as jsonl"),
        ("broken.parquet", b"PAR1 or not", "text", "cannot be read as parquet"),
        ("rows.jsonl", b'{"body": "one", "n": 1}\n', "text", "no column 'text'. Its columns are: body, n."),
        ("numbers.jsonl", b'{"body": "one", "n": 1}\n', "n", "is not text: row 0 holds int. Columns that hold text: body."),
        ("page.csv", b"a,b\n", "text", "Allowed are .txt, .md, .jsonl, .json and .parquet"),
        ("page", b"words", "text", "no suffix"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(tmp_path: Path, name: str, content: bytes | None, column: str, said: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        texts(path, column=column)
    assert said in str(caught.value)
    assert name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        texts(tmp_path)


def test_an_unreachable_data_set_says_what_can_be_given_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"'owner/no-such-set', split 'train' could not be read from the hub: .*local file"):
        next(corpus.documents(TextSpec(source="owner/no-such-set")))


def test_the_fingerprint_follows_the_content_and_not_the_name(tmp_path: Path) -> None:
    one, two, other = (tmp_path / name for name in ("one.txt", "two.txt", "other.txt"))
    one.write_text("same")
    two.write_text("same")
    other.write_text("other")
    prints = [corpus.text_fingerprint(TextSpec(source=str(path))) for path in (one, two, other)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("source", "kind", "domain"),
    [
        ("sotu", "embedded", "sotu"),
        ("mix", "embedded", "mix"),
        ("/a/my notes.md", "file", "my notes"),
        ("data.parquet", "file", "data"),
        ("Owner/set-1.1", "hub", "Owner/set-1.1"),
    ],
)
def test_the_kind_and_domain_of_a_text_come_from_its_name(source: str, kind: str, domain: str) -> None:
    assert (corpus.kind_of(TextSpec(source=source)), corpus.domain(TextSpec(source=source))) == (kind, domain)


def test_a_mix_reads_its_texts_in_turn_each_up_to_the_limit(workspace: Path) -> None:
    (workspace / "texts").mkdir()
    for name, count in zip(MIXED_TEXTS, (1, 4, 2, 4, 4), strict=True):
        rows = [json.dumps({"text": f"{name} {i}"}) for i in range(count)]
        (workspace / "texts" / f"{name}.jsonl").write_text("\n".join(rows))
    one, two, three, four, five = MIXED_TEXTS
    expected = [f"{one} 0", f"{two} 0", f"{three} 0", f"{four} 0", f"{five} 0", f"{two} 1", f"{three} 1", f"{four} 1", f"{five} 1",
                f"{two} 2", f"{four} 2", f"{five} 2"]  # fmt: skip
    assert list(corpus.documents(TextSpec(source="mix", max_documents=3))) == expected
