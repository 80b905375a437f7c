"""What the draft makes of the model, in one line beside every page; on the Targets page it follows a slider as the board does."""

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from app import cached
from app.state import Draft
from core.model.card import Card
from core.plan.sizes import problems
from core.report.format import count, delta
from core.specs import Targets

HTML = '<p class="coppice-cut"><span aria-hidden="true">content_cut</span><b></b></p>'


def cut_line(draft: Draft, card: Card) -> None:
    """Draw the line."""
    _component()(data={"name": "cut", "said": cut_said(draft, card)}, key="cut")


def cut_said(draft: Draft, card: Card) -> str:
    """What the draft makes of the model: ``135 M → 96 M, −29 %``."""
    if draft.targets == Targets():
        return "nothing cut yet"
    if problems(card.config, draft.targets):
        return "not possible as set"
    before, after = card.cost.parameters, cached.cost(card.config, draft.targets).parameters
    return f"{count(before)} → {count(after)}, {delta(after / before - 1)}"


@st.cache_resource
def _component() -> Callable[..., object]:
    """The component, registered once."""
    js, css = ((Path(__file__).parent / f"cut.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return st.components.v2.component("coppice_cut", html=HTML, js=js, css=css, isolate_styles=False)
