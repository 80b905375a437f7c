"""Stored scores and measurements, found by what determines them."""

import dataclasses
from pathlib import Path

import numpy as np
import streamlit as st

from app.cached.cards import card
from app.state import Draft
from core.data import blocks
from core.data.blocks import Blocks
from core.errors import UserError
from core.evaluate import store as measurements
from core.model.source import fingerprint
from core.score import store
from core.score.passes import wanted as wanted_passes
from core.score.store import Scores
from core.specs import EMBEDDED_TEXTS, MIX, DataSpec, ScoreSpec, TextSpec
from core.workspace import home, room


def _place(draft: Draft) -> tuple[str, str | None]:
    """Fingerprint of the draft's weights, and hash of its calibration tokens if blocks of its text as it is now are made.

    Raises:
        UserError: there is no such model.
    """
    folder = card(draft.model).folder
    weights = fingerprint(folder)
    made = _blocks(draft.data, folder)
    if made is None or _changed_since(draft.data.text, made.meta["created"]):
        return weights, None
    return weights, made.meta["sets"]["calibration"]["fingerprint"]


def _blocks(data: DataSpec, folder: Path) -> Blocks | None:
    """The blocks that are made for a text by a model's tokenizer; looked for again only once either could have changed."""
    tokenizer = [(path.name, path.stat().st_mtime_ns) for path in sorted(folder.glob("tokenizer*"))]
    return _found_blocks(data, folder, tokenizer, str(room("blocks")), room("blocks").stat().st_mtime_ns) if tokenizer else None


@st.cache_resource(max_entries=16, show_spinner=False)
def _found_blocks(data: DataSpec, folder: Path, tokenizer: list[tuple[str, int]], place: str, changed: int) -> Blocks | None:
    return blocks.find(data, folder)


def find_scores(draft: Draft) -> Scores | None:
    """The stored scores of the draft's model as its weights are now, on the draft's calibration text as it is now, or None.

    They are looked up by the tokens themselves where blocks were made for the draft's text settings, else by those settings.
    """
    try:
        weights, text = _place(draft)
    except UserError:
        return None
    if text is not None:
        found = store.find(weights, text, draft.score)
        return _scores(str(found.folder)) if found else None
    wanted = _score_settings(draft.data, draft.score)
    for found in store.all_scores():
        settings = _score_settings(DataSpec.from_dict(found.meta["data"]), ScoreSpec.from_dict(found.meta["score"]))
        fresh = not _changed_since(draft.data.text, found.meta["created"]) and found.meta["model_fingerprint"] == weights
        if settings == wanted and fresh and all(store.pass_file(name).exists() for name in found.meta["passes"].values()):
            return _scores(str(found.folder))
    return None


def scores_of_model(draft: Draft) -> list[Scores]:
    """Stored scores of the draft's model as its weights are now, on whatever text and with whatever settings, newest first."""
    try:
        weights = fingerprint(card(draft.model).folder)
    except UserError:
        return []
    return [scores for scores in store.all_scores() if scores.meta["model_fingerprint"] == weights]


@st.cache_data(max_entries=256, show_spinner=False)
def pass_seconds(key: str) -> float | None:
    """How long a stored pass took to compute; None if it is gone."""
    try:
        with np.load(store.pass_file(key)) as file:
            return float(file["seconds"])
    except (OSError, KeyError, ValueError):
        return None


def _score_settings(data: DataSpec, score: ScoreSpec) -> tuple[DataSpec, ScoreSpec]:
    """What of the specs determines a score: all but the batch size and the texts that are only measured on."""
    return dataclasses.replace(data, elsewhere=()), dataclasses.replace(score, batch_size=1)


def made_passes(draft: Draft) -> set[str]:
    """Names of the passes that the draft asks for and that are stored already, for its weights and its text as they are now."""
    try:
        weights, text = _place(draft)
    except UserError:
        return set()
    if text is None:
        return set()
    keys = {item.name: store.pass_key(weights, text, item, draft.score) for item in wanted_passes(draft.score)}
    return {name for name, key in keys.items() if store.pass_file(key).exists()}


def _changed_since(text: TextSpec, moment: float) -> bool:
    """Whether a local text was written after ``moment``."""
    path = Path(text.source).expanduser()
    return text.source not in (*EMBEDDED_TEXTS, MIX) and path.is_file() and path.stat().st_mtime > moment


@st.cache_resource(max_entries=4)
def _scores(folder: str) -> Scores:
    """Opened scores; shared by all sessions, and nobody writes to them."""
    return store.load(Path(folder).name)


def measured(draft: Draft, masks: dict[str, np.ndarray]) -> dict[str, dict[str, measurements.Figures]] | None:
    """Figures of ``teacher`` and ``draft`` on every held-out text, if they were measured for what the draft keeps; see ``core.evaluate``."""
    folder = card(draft.model).folder
    made = _blocks(draft.data, folder)
    if made is None or _changed_since(draft.data.text, made.meta["created"]):
        return None
    texts, weights = _token_hashes(made.fingerprint, str(home())), fingerprint(folder)
    whats = {"teacher": measurements.TEACHER, "draft": measurements.kept(masks)}
    found = {role: measurements.find_all(weights, texts, what) for role, what in whats.items()}
    return None if None in found.values() else found  # type: ignore[return-value]


@st.cache_data(max_entries=32, show_spinner=False)
def _token_hashes(key: str, workspace: str) -> dict[str, str]:
    """Held-out text -> name of its tokens, of made blocks."""
    return {name: measurements.tokens_hash(blocks_NT) for name, blocks_NT in blocks.load(key).heldout.items()}
