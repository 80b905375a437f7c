"""The forms of the model page: each field shows the draft's value and writes what the user sets back into the draft."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app import cached, state
from app.state import Draft, bind, update_draft
from core.data import uploads
from core.errors import UserError
from core.model.card import Card
from core.report.format import count
from core.specs import EMBEDDED_MODEL, EMBEDDED_TEXTS, MIX, MIXED_TEXTS, Pins, Targets, TextSpec

EMBEDDED, FOLDER, HUB = "Embedded", "Local folder", "Hub id"
FILE, DATASET = "Local file", "Hub data set"
UPLOAD = "upload_text"
TEXT_NAMES = {
    "wikipedia": "Wikipedia articles", "sotu": "State of the Union addresses", "commons": "House of Commons speeches", "tales": "Grimms' fairy tales",
    "manual": "Mathematical software manual", "code": "Python source code", MIX: "A mix of five domains",
}  # fmt: skip


def model_choice(draft: Draft) -> None:
    """Choose the model. A model that cannot be read is refused with a sentence, and the draft keeps the one it has."""
    present = EMBEDDED if draft.model == EMBEDDED_MODEL else FOLDER if Path(draft.model).expanduser().is_dir() else HUB
    left, right = st.columns([2, 3], vertical_alignment="top")
    kind = left.segmented_control(
        "Model from", [EMBEDDED, FOLDER, HUB], required=True, **bind("model_kind", state.recall("model_kind_chosen", present), _choose_kind)
    )
    if kind == EMBEDDED:
        return
    label, hint = ("Folder", "/path/to/a/model") if kind == FOLDER else ("Hub id", "HuggingFaceTB/SmolLM2-135M")
    shown = state.recall("model_typed", draft.model if kind == present else "")
    right.text_input(label, placeholder=hint, **bind(f"model_{kind}", shown, _try_model))
    if complaint := state.recall("model_complaint"):
        right.error(complaint, icon=":material/error:")


def _choose_kind(kind: str) -> None:
    state.remember("model_kind_chosen", kind)
    state.remember("model_typed", None)
    state.remember("model_complaint", None)
    if kind == EMBEDDED:
        _set_model(EMBEDDED_MODEL)


def _try_model(typed: str) -> None:
    """Take the model if its card can be read, else say why not."""
    typed = typed.strip()
    state.remember("model_typed", typed)
    state.remember("model_complaint", None)
    if not typed:
        return
    try:
        cached.card(typed)
    except UserError as error:
        state.remember("model_complaint", str(error))
    else:
        _set_model(typed)


def _set_model(model: str) -> None:
    """Take another model; sizes and units that were chosen of the old one mean nothing to it."""
    if model != state.draft().model:
        update_draft(model=model, targets=Targets(), pins=Pins())


def build_rows(card: Card) -> pd.DataFrame:
    """The dimensions of a model, a row each, written out."""
    dims = card.dims
    rows = {
        "Family": card.family, "Layers": dims.layers, "Hidden size": dims.hidden, "FFN neurons a layer": dims.ffn,
        "Query heads a layer": dims.heads, "Key-value heads a layer": f"{dims.kv_heads} (groups of {dims.group})", "Head size": dims.head_dim,
        "Vocabulary": f"{dims.vocab:,}", "Output head": "shares the embedding" if card.tied else "its own matrix", "Stored as": card.dtype,
    }  # fmt: skip
    return pd.DataFrame({"": rows.keys(), "value": map(str, rows.values())})


def cuttable_rows(card: Card) -> pd.DataFrame:
    """What can be cut, how much of it there is, and which sizes are possible."""
    return pd.DataFrame([{"What": row.what, "Now": f"{count(row.size)} {row.unit}", "Possible sizes": row.rule} for row in card.cuttable])


def data_choice(draft: Draft) -> None:
    """Choose calibration, training and held-out text."""
    with st.container(border=True):
        source, numbers = st.columns([3, 4], gap="large")
        with source:
            _text_choice(draft.data.text)
            _elsewhere_choice(draft)
        with numbers:
            _sizes(draft)
    for problem in draft.data.problems():
        st.error(problem, icon=":material/error:")


def _text_choice(text: TextSpec) -> None:
    """Where the calibration and training text comes from."""
    present = EMBEDDED if text.source in TEXT_NAMES else FILE if Path(text.source).expanduser().is_file() else DATASET
    kind = st.segmented_control(
        "Text from",
        [EMBEDDED, FILE, DATASET],
        required=True,
        **bind("text_kind", state.recall("text_kind_chosen", present), _choose_text_kind),
    )
    if kind == EMBEDDED:
        st.selectbox(
            "Text", (*EMBEDDED_TEXTS, MIX), format_func=lambda name: TEXT_NAMES[name], **bind("text_name", text.source, _setter("source"))
        )
        return
    shown = text.source if kind == present else ""
    hint = "/path/to/text.jsonl (also .txt, .md, .json, .parquet)" if kind == FILE else "owner/name"
    st.text_input(
        "File" if kind == FILE else "Data set id", placeholder=hint, **bind(f"text_{kind}", state.recall("text_typed", shown), _try_source)
    )
    if kind == FILE:
        st.file_uploader(f"Or upload one, at most {st.get_option('server.maxUploadSize')} MB", key=UPLOAD, on_change=_upload,
                         help=f"{', '.join(uploads.ALLOWED)}. It is kept in the workspace, under the hash of its content.")  # fmt: skip
    if complaint := state.recall("text_complaint"):
        st.error(complaint, icon=":material/error:")
    with st.container(horizontal=True):
        st.text_input("Column with the text", **bind("text_column", text.column, _setter("column")))
        if kind == DATASET:
            st.text_input(
                "Configuration",
                placeholder="default",
                **bind("text_config", text.config or "", lambda value: _set_text(config=value or None)),
            )
            st.text_input("Split", **bind("text_split", text.split, _setter("split")))
    st.number_input(
        "Read at most so many documents", min_value=1, step=500, **bind("text_documents", text.max_documents, _setter("max_documents"))
    )


def _choose_text_kind(kind: str) -> None:
    state.remember("text_kind_chosen", kind)
    state.remember("text_typed", None)
    state.remember("text_complaint", None)
    if kind == EMBEDDED:
        _set_text(source=EMBEDDED_TEXTS[0])


def _try_source(typed: str) -> None:
    """Take the text if it is a readable file or looks like a data set id, else say why not."""
    typed = typed.strip()
    state.remember("text_typed", typed)
    a_path = state.recall("text_kind_chosen") == FILE
    missing = a_path and not Path(typed).expanduser().is_file()
    state.remember(
        "text_complaint",
        f"There is no file {typed!r}. Give the whole path of a .txt, .md, .jsonl, .json or .parquet file." if missing and typed else None,
    )
    if typed and not missing:
        _set_text(source=typed)


def _upload() -> None:
    """Keep an uploaded text and take it, else say why not."""
    file = st.session_state[UPLOAD]
    if file is None:
        return
    state.remember("text_typed", None)
    state.remember("text_complaint", None)
    try:
        path, column = uploads.keep(file.name, file.getvalue(), state.draft().data.text.column)
    except UserError as error:
        state.remember("text_complaint", str(error))
    else:
        _set_text(source=str(path), column=column)


def _setter(name: str) -> Callable[[Any], object]:
    return lambda value: _set_text(**{name: value})


def _set_text(**changes: Any) -> None:
    """Change the calibration text; a text that is calibrated on cannot be held out elsewhere too."""
    data = state.draft().data
    text = dataclasses.replace(data.text, **changes)
    seen = {text.source, *(MIXED_TEXTS if text.source == MIX else ())}
    elsewhere = tuple(other for other in data.elsewhere if other.source not in seen)
    update_draft(data=dataclasses.replace(data, text=text, elsewhere=elsewhere))


def _elsewhere_choice(draft: Draft) -> None:
    """Further held-out texts of other domains."""
    chosen = [text.source for text in draft.data.elsewhere]
    seen = {draft.data.text.source, *(MIXED_TEXTS if draft.data.text.source == MIX else ())}
    names = [name for name in dict.fromkeys((*EMBEDDED_TEXTS, *chosen)) if name not in seen]
    st.multiselect(
        "Held-out texts of other domains", names, accept_new_options=True, format_func=lambda name: TEXT_NAMES.get(name, name),
        placeholder="Choose, or type a path or data set id", help="Only measured on: neither calibration nor training sees them.",
        **bind("elsewhere", chosen, _set_elsewhere),
    )  # fmt: skip


def _set_elsewhere(names: list[str]) -> None:
    data = state.draft().data
    known = {text.source: text for text in data.elsewhere}
    update_draft(data=dataclasses.replace(data, elsewhere=tuple(known.get(name, TextSpec(source=name)) for name in names)))


def _sizes(draft: Draft) -> None:
    """How many blocks of how many tokens."""
    data, tokens = draft.data, draft.data.seq_len
    fields = (
        ("calibration_blocks", "Calibration blocks", f"{count(data.calibration_blocks * tokens)} tokens to measure importance on"),
        ("train_blocks", "Training blocks", f"{count(data.train_blocks * tokens)} tokens to regrow on"),
        ("heldout_blocks", "Held-out blocks", f"{count(data.heldout_blocks * tokens)} tokens of each text to measure quality on"),
        ("seq_len", "Tokens a block", "sequence length"),
        ("seed", "Seed", "same seed, same blocks"),
    )
    with st.grid(3, min_column_width=140):
        for name, label, said in fields:
            least = {"seq_len": 8, "seed": 0}.get(name, 1)
            with st.container(gap="xsmall"):
                st.number_input(label, min_value=least, step=1, **bind(name, getattr(data, name), _data_setter(name)))
                st.caption(said)


def _data_setter(name: str) -> Callable[[Any], object]:
    return lambda value: update_draft(data=dataclasses.replace(state.draft().data, **{name: value}))
