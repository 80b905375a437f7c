"""What the literature and this project's own study say of the draft's cut, beside the sliders; one click follows it."""

from typing import Any

import streamlit as st

from app import distill_form, state
from app.ui import folded
from core.model.card import Card
from core.plan.advice import Advice, Situation, advice
from core.specs import DistillSpec, Targets

PAGES = {"kind": "distill", "distill": "distill", "search": "candidates", "model": "model"}
"""First part of a setting's name -> the page on which it is made."""
NEW = "new"
"""What the pages with forms call the run that is not made yet."""


def advice_view(card: Card) -> None:
    """Draw all advice that applies to the draft."""
    draft = state.draft()
    found = advice(Situation(config=card.config, targets=draft.targets, rank=draft.rank, steps=DistillSpec().steps))
    if fold := folded("Advice on this cut", "lightbulb", "advice"):
        with fold:
            if not found:
                st.markdown("Nothing speaks against it." if draft.targets != Targets() else "Nothing is cut yet.")
            for name, said in found.items():
                _row(name, said)


def _row(name: str, said: Advice) -> None:
    words, action = st.columns([5, 1], vertical_alignment="center")
    words.markdown(f"**{said.says}**  \n{said.why} :gray[:small[{said.source}]]")
    changes = {key: value for key, value in (("targets", said.targets), ("rank", said.rank)) if value is not None}
    if changes:
        action.button(
            "Apply",
            key=f"advice_{name}",
            on_click=state.replace_draft,
            kwargs=changes,
            help="Changes the draft accordingly; undo takes it back.",
        )
    elif said.settings:
        page = PAGES[next(iter(said.settings)).partition(".")[0]]
        label, help_ = (
            ("Choose", "Opens the page where the model is chosen.")
            if page == "model"
            else ("Apply", "Sets the form accordingly, and opens it.")
        )
        if action.button(label, key=f"advice_{name}", help=help_):
            st.session_state.update(widgets_of(said))
            state.set_run_id(NEW)  # the forms, not the runs that were looked at last
            state.remember("search_run", NEW)
            state.go(page)


def widgets_of(said: Advice) -> dict[str, Any]:
    """Key and value of every field of a form that follows the advice."""
    found: dict[str, Any] = {}
    for name, value in said.settings.items():
        part, _, field = name.partition(".")
        if name == "distill.intermediate":
            found |= (
                {"w_states_mode": distill_form.CHOSEN, "w_intermediate": list(value)} if value else {"w_states_mode": distill_form.NONE}
            )
        elif part != "model":
            found[f"w_{part}_{field}" if part == "search" else f"w_{field or part}"] = value
    return found
