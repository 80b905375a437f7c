"""The same prompts through every model, side by side, each marked where it leaves the teacher's words."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from app import ui
from core.report import format as fmt
from core.report.run_figures import ROLES, role_title
from core.report.tables import common_start

ICONS = {"teacher": "star", "pruned": "radio_button_unchecked", "distilled": "radio_button_checked"}
"""The same marks as in the picture."""


def show(generations: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Every prompt of generations.json's data, through the roles that answered it."""
    answers = generations.get("answers") or {}
    beside(generations.get("prompts") or [], {role_title(role, results): (role, answers[role]) for role in ROLES if answers.get(role)})


def beside(prompts: Sequence[str], columns: Mapping[str, tuple[str, Sequence[str]]]) -> None:
    """Prompts with their answers side by side: title of a column -> role and a text for each prompt; the teacher's first."""
    for i, prompt in enumerate(prompts):
        _one({title: (role, texts[i]) for title, (role, texts) in columns.items()}, prompt)


def _one(answers: Mapping[str, tuple[str, str]], prompt: str) -> None:
    """One prompt, continued by every model; what follows a text's first departure from the teacher's is marked."""
    st.markdown(f"**{plain(prompt)}**")
    teacher = next((text for role, text in answers.values() if role == "teacher"), None)
    for column, (title, (role, text)) in zip(st.columns(max(1, len(answers))), answers.items(), strict=False):
        with column.container(border=True, height="stretch"):
            shared = len(text) if teacher is None or role == "teacher" else common_start(teacher, text)
            st.caption(f":material/{ICONS.get(role, 'radio_button_checked')}: {plain(title)}")
            st.markdown(
                plain(text[:shared])
                + (f" :orange[:material/call_split:] :orange-background[{plain(text[shared:])}]" if text[shared:].strip() else "")
            )
            if role != "teacher" and teacher is not None:
                st.caption("The same as the teacher." if shared == len(text) else _parting(text[:shared]))


def _parting(shared: str) -> str:
    """How far a text goes with the teacher's."""
    words = len(shared.split())
    return f"With the teacher for {fmt.plural(words, 'word')}." if words else "Differs from the first word on."


def plain(text: str) -> str:
    """A model's text as text: nothing in it is read as Markdown, and it stays one paragraph."""
    return ui.plain(text.strip().replace("\n", " ↵ "))
