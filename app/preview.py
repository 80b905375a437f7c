"""A first look at the text: its opening documents, and how much of it there is once it is cut into blocks. No model, no torch."""

import itertools
import json
from pathlib import Path

import pandas as pd
import streamlit as st

from app.forms import TEXT_NAMES
from app.state import Draft
from core.data import blocks, corpus
from core.errors import UserError
from core.model.card import Card
from core.report.format import count
from core.specs import TextSpec
from core.workspace import home

SETS = {"calibration": "Calibration", "train": "Training"}
DOCUMENTS, CHARACTERS, TOKENS = 3, 320, 96


def show(draft: Draft, card: Card) -> None:
    """Draw samples of the calibration text, and the counts of the blocks if they are made."""
    made = _made(draft, card)
    if made is not None:
        rows = [(SETS.get(name, name), row) for name, row in made.meta["sets"].items()]
        rows += [(f"Held out: {TEXT_NAMES.get(name, name)}", row) for name, row in made.meta["heldout"].items()]
        frame = pd.DataFrame(
            [
                {"Set": name, "Blocks": count(row["blocks"]), "Tokens": count(row["tokens"]), "Documents": count(row["documents"])}
                for name, row in rows
            ]
        )
        st.table(frame, border="horizontal", hide_index=True, alt="Blocks, tokens and documents of each set")
        for note in made.meta["notes"]:
            st.caption(f":material/info: {note}")
    documents = made.meta["sets"]["calibration"]["samples"] if made is not None else _first_documents(draft.data.text)
    for document in documents:
        shortened = " ".join(document[:CHARACTERS].split())
        st.text(shortened + (" …" if len(document) >= CHARACTERS - 20 else ""))
    if not documents:
        st.caption("Samples appear here once the text has been read, with the first scoring.")
    if made is not None:
        _tokens(made, card)


def _tokens(made: blocks.Blocks, card: Card) -> None:
    """A calibration block as the model reads it, token by token."""
    blocks_, length = made.calibration_NT.shape
    block = int(st.number_input("Calibration block", 1, blocks_, key="w_block", width=200))
    pieces = _pieces(str(card.folder), made.fingerprint, block - 1)
    if pieces is None:
        st.caption("The tokens cannot be shown: this model's folder has no tokenizer.json.")
        return
    st.caption(f"The first {min(TOKENS, length)} of its {length} tokens, parted by │; ↵ is a line break.")
    st.code("│".join(pieces), language=None, wrap_lines=True)


@st.cache_data(max_entries=64, show_spinner=False)
def _pieces(folder: str, key: str, block: int) -> list[str] | None:
    """The first tokens of a block as text; None without a tokenizer that can be read without transformers."""
    from tokenizers import Tokenizer

    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        return None
    tokenizer = Tokenizer.from_file(str(path))
    tokens = blocks.load(key).calibration_NT[block, :TOKENS].tolist()
    return [tokenizer.decode([token], skip_special_tokens=False).replace("\n", "↵") for token in tokens]


def _made(draft: Draft, card: Card) -> blocks.Blocks | None:
    """The blocks of these settings, if they are made; none either while the model's tokenizer is not here."""
    try:
        return blocks.find(draft.data, card.folder)
    except UserError:
        return None


@st.cache_data(max_entries=16, ttl=300, show_spinner=False)
def _first_documents(text: TextSpec) -> list[str]:
    """The opening documents of a text that lies here and can be read without a library, else none."""
    path = Path(text.source).expanduser()
    try:
        if corpus.kind_of(text) == "embedded":
            each = [_lines(home() / "texts" / f"{part.source}.jsonl", "text") for part in corpus.parts(text)]
            return [document for turn in itertools.zip_longest(*each) for document in turn if document][:DOCUMENTS]
        if path.suffix.lower() == ".jsonl":
            return _lines(path, text.column)
        if path.suffix.lower() in corpus.PLAIN:
            return list(itertools.islice(corpus.documents(text), DOCUMENTS))
    except (OSError, UnicodeDecodeError, UserError):
        return []
    return []


def _lines(path: Path, column: str) -> list[str]:
    """The texts of the first lines of a JSONL file; lines that have none are passed over."""
    with path.open(encoding="utf-8") as file:
        rows = [_row(line) for line in itertools.islice(file, DOCUMENTS)]
    return [text for row in rows if isinstance(text := row.get(column), str)]


def _row(line: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) else {}
