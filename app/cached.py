"""The only place with caches: what the pages read again and again, each bounded, each keyed by all that determines it."""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from app.state import Draft
from core.data import blocks
from core.errors import UserError
from core.model import card as cards
from core.model.card import Card
from core.model.cost import Cost, cost_of
from core.model.dims import dims_of, resized
from core.model.source import config_path, fingerprint
from core.plan.plan import Plan, keep_masks, kept_share, make_plan
from core.plan.presets import Preset
from core.plan.presets import presets as find_presets
from core.runs.folder import Run, all_runs
from core.runs.status import Status
from core.score import store
from core.score.store import Scores
from core.specs import EMBEDDED_MODEL, EMBEDDED_TEXTS, DataSpec, RankSpec, RunSpec, Targets, TextSpec
from core.workspace import home

RETRY_SECONDS = 60
"""A model id that the hub did not give is asked for again after this time, not at every click."""


def card(model: str) -> Card:
    """A model's card.

    Raises:
        UserError: there is no such model, or its config is unusable.
    """
    found = _card_or_complaint(model, str(home()), _stamp(model))
    if isinstance(found, str):
        raise UserError(found)
    return found


@st.cache_data(max_entries=32, ttl=RETRY_SECONDS, show_spinner="Reading the model's configuration")
def _card_or_complaint(model: str, workspace: str, stamp: int | None) -> Card | str:
    try:
        return cards.card(model)
    except UserError as error:
        return str(error)


def _stamp(model: str) -> int | None:
    """When a local model's config.json last changed; None for a hub model, 0 if there is none."""
    if model != EMBEDDED_MODEL and not Path(model).expanduser().is_dir():
        return None
    try:
        return config_path(model).stat().st_mtime_ns
    except (UserError, FileNotFoundError):
        return 0


def must_fetch(model: str) -> bool:
    """Whether this is the embedded model and it is not here yet."""
    return model == EMBEDDED_MODEL and not _stamp(model)


def find_scores(draft: Draft) -> Scores | None:
    """The stored scores of the draft's model as its weights are now, on the draft's calibration text as it is now, or None.

    They are looked up by the tokens themselves where blocks were made for the draft's text settings, else by those settings.
    """
    try:
        folder = card(draft.model).folder
        weights = fingerprint(folder)
        made = blocks.find(draft.data, folder) if any(folder.glob("tokenizer*")) else None
    except UserError:
        return None
    if made is not None and not _changed_since(draft.data.text, made.meta["created"]):
        found = store.find(weights, made.meta["sets"]["calibration"]["sha256"], draft.score)
        return _scores(str(found.folder)) if found else None
    wanted = _score_settings(draft.data, draft.score.to_dict())
    for found in store.all_scores():
        settings = _score_settings(DataSpec.from_dict(found.meta["data"]), found.meta["score"])
        if settings == wanted and not _changed_since(draft.data.text, found.meta["created"]) and found.meta["model_fingerprint"] == weights:
            return _scores(str(found.folder))
    return None


def _score_settings(data: DataSpec, score: dict[str, Any]) -> tuple[Any, ...]:
    """What of the specs determines a score: all but the batch size and the texts that are only measured on."""
    return dataclasses.replace(data, elsewhere=()), score["neuron_site"], score["ppl_blocks"]


def _changed_since(text: TextSpec, moment: float) -> bool:
    """Whether a local text was written after ``moment``."""
    path = Path(text.source).expanduser()
    return text.source not in EMBEDDED_TEXTS and path.is_file() and path.stat().st_mtime > moment


@st.cache_resource(max_entries=4)
def _scores(folder: str) -> Scores:
    """Opened scores; shared by all sessions, and nobody writes to them."""
    return store.load(Path(folder).name)


@st.cache_data(max_entries=64, show_spinner=False)
def plan(_scores: Scores, key: str, config: dict[str, Any], targets: Targets, rank: RankSpec) -> Plan:
    """What the draft keeps; ``key`` names the scores.

    Raises:
        UserError: the targets are not possible.
    """
    return make_plan(_scores, config, targets, rank)


@st.cache_data(max_entries=16, show_spinner=False)
def masks(_scores: Scores, key: str, config: dict[str, Any], targets: Targets, rank: RankSpec) -> dict[str, np.ndarray]:
    """What the draft keeps, as booleans over the uncut model; see ``keep_masks``.

    Raises:
        UserError: the targets are not possible.
    """
    return keep_masks(plan(_scores, key, config, targets, rank))


@st.cache_data(max_entries=64, show_spinner=False)
def shares(_scores: Scores, key: str, config: dict[str, Any], targets: Targets, rank: RankSpec) -> dict[str, float]:
    """Part of the importance that the draft keeps, by axis.

    Raises:
        UserError: the targets are not possible.
    """
    return kept_share(plan(_scores, key, config, targets, rank), _scores)


@st.cache_data(max_entries=16, show_spinner=False)
def presets(config: dict[str, Any]) -> tuple[Preset, ...]:
    """The presets that a model allows; finding them counts some hundred candidates."""
    return find_presets(config)


def cost(config: dict[str, Any], targets: Targets) -> Cost:
    """What the model costs when cut to ``targets``: plain arithmetic, a few milliseconds."""
    return cost_of(config, resized(dims_of(config), targets))


@dataclass(frozen=True)
class KnownRun:
    """A run as it stood at one look."""

    run: Run
    spec: RunSpec
    status: Status


def known_runs() -> list[KnownRun]:
    """All runs newest first, each looked at once; those that were just deleted or cannot be understood are passed over."""
    found = []
    for run in all_runs():
        with contextlib.suppress(UserError):
            known = _run(str(run.path))
            found.append(KnownRun(known, known.spec, known.status()))
    return found


@st.cache_resource(max_entries=512)
def _run(path: str) -> Run:
    """A run whose spec, which never changes, is read once."""
    return Run(Path(path))
