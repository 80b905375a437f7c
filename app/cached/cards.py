"""Models' cards, and what plain arithmetic on a configuration says of them."""

from pathlib import Path
from typing import Any

import streamlit as st

from core.errors import UserError
from core.model import card as cards
from core.model.card import Card
from core.model.cost import Cost, cost_of
from core.model.dims import dims_of, resized
from core.model.source import config_path
from core.plan.presets import Preset
from core.plan.presets import presets as find_presets
from core.search.space import possible
from core.specs import EMBEDDED_MODEL, Pins, RankSpec, SearchSpec, Targets
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


@st.cache_resource(max_entries=32, ttl=RETRY_SECONDS, show_spinner="Reading the model's configuration")
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


@st.cache_data(max_entries=16, show_spinner=False)
def presets(config: dict[str, Any]) -> tuple[Preset, ...]:
    """The presets that a model allows; finding them counts some hundred candidates."""
    return find_presets(config)


@st.cache_data(max_entries=64, show_spinner=False)
def pool_size(config: dict[str, Any], spec: SearchSpec, rank: RankSpec, pins: Pins) -> int | str:
    """How many sizes a search has to choose from, or why there is none."""
    try:
        return len(possible(config, spec, rank, pins))
    except UserError as error:
        return str(error)


def cost(config: dict[str, Any], targets: Targets) -> Cost:
    """What the model costs when cut to ``targets``: plain arithmetic, a few milliseconds."""
    return cost_of(config, resized(dims_of(config), targets))
