"""What the literature and this project's own study say of the draft's cut, beside the sliders; one click follows it."""

import streamlit as st

from app import state
from app.ui import folded
from core.model.card import Card
from core.plan.advice import Advice, Situation, advice
from core.specs import DistillSpec


def advice_view(card: Card) -> None:
    """Draw all advice that applies to the draft."""
    draft = state.draft()
    found = advice(Situation(config=card.config, targets=draft.targets, rank=draft.rank, steps=DistillSpec().steps))
    if not found:
        return
    if fold := folded(f"Advice on this cut ({len(found)})", "lightbulb", "advice"):
        with fold:
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
            on_click=state.update_draft,
            kwargs=changes,
            help="Changes the draft accordingly; undo takes it back.",
        )
