"""What a target slider comes to at each of its sizes, told to the browser before anybody moves it: then its numbers wait for nobody.

Once the pointer or the focus comes to a slider, the browser asks, and Python answers for each of its sizes by the very function that
draws the board. The browser (ahead.js) shows the answer of the size where the slider stands; it computes nothing. The server's own
answer to the move follows and is the same.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from app import board, cached, state
from app.cut import cut_said
from app.state import Draft
from app.target_form import moved, offered
from core.errors import UserError
from core.model.card import Card
from core.plan.plan import plan_problems
from core.score.store import Scores

KEY = "ahead"


@st.fragment(key=state.AHEAD)
def ahead(card: Card, scores: Scores | None) -> None:
    """Answer for the slider that was asked about last, if any was."""
    draft, axis = state.draft(), str((st.session_state.get(KEY) or {}).get("axis"))
    choices = offered(card, draft.targets)
    found = {}
    if axis in choices and not plan_problems(card.config, draft.targets, draft.rank, draft.pins):
        with contextlib.suppress(UserError):  # a ranking that was not measured: the page itself says so
            found = table(card, scores, draft, axis, choices[axis])
    _component()(data={"name": KEY, "axes": list(choices), **found}, key=KEY, on_axis_change=lambda: None)


def table(card: Card, scores: Scores | None, draft: Draft, axis: str, sizes: list[int]) -> dict[str, Any]:
    """The board's data as they are, and what of them each size of an axis changes; sizes that cannot be built are left out."""
    base = answer(card, scores, draft)
    found = {}
    for size in sizes:
        then = replace(draft, targets=moved(card.dims, draft.targets, axis, size))
        if not plan_problems(card.config, then.targets, then.rank, then.pins):
            found[str(size)] = _changed(base, answer(card, scores, then))
    return {"axis": axis, "base": base, "answers": found}


def answer(card: Card, scores: Scores | None, draft: Draft) -> dict[str, Any]:
    """What is shown of a draft whose targets are possible: the board's data, and the line beside the page.

    Raises:
        UserError: the ranking's criterion was not measured.
    """
    return board.told(card, draft, cached.outlook(scores, draft) if scores else None) | {"cut": cut_said(draft, card)}


def _changed(base: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """What differs, one level deep for tables of values."""
    return {
        key: _changed(base[key], value) if isinstance(value, dict) and isinstance(base[key], dict) else value
        for key, value in then.items()
        if value != base[key]
    }


@st.cache_resource
def _component() -> Callable[..., object]:
    """The component, registered once."""
    js = (Path(__file__).parent / "ahead.js").read_text(encoding="utf-8")
    return st.components.v2.component("coppice_ahead", html='<span class="coppice-ahead" hidden></span>', js=js, isolate_styles=False)
