"""What the literature and this project's own study say of the draft's cut, beside the sliders; one click follows it."""

import streamlit as st

from app import state
from app.ui import folded
from core.model.card import Card
from core.plan.advice import Advice, Situation, advice
from core.specs import DistillSpec, Targets


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
