"""The draft's model for pages that cannot do without it: its card, or why there is none and the way to one."""

from typing import NoReturn

import streamlit as st

from app import cached, state
from app.state import Draft
from app.ui import empty_state
from core.errors import UserError
from core.model.card import Card


def card_of(draft: Draft) -> Card:
    """The card of the draft's model; where there is none, say why, lead to the first page, and end this one."""
    if cached.must_fetch(draft.model):
        _lead_on("download", "The embedded model is not here yet", "It is fetched once, on the first page.", "Go there")
    try:
        return cached.card(draft.model)
    except UserError as error:
        _lead_on("link_off", "This model cannot be read", str(error), "Choose another model")


def _lead_on(icon: str, title: str, why: str, way: str) -> NoReturn:
    if empty_state(icon, title, why, way, "to_model"):
        state.go("model")
    st.stop()
