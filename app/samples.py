"""The same prompts through every model, side by side, each marked where it leaves the teacher's words."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.report import format as fmt
from core.report.run_figures import ROLES
from core.report.tables import common_start

ICONS = {"teacher": "star", "pruned": "radio_button_unchecked", "distilled": "radio_button_checked"}
"""The same marks as in the picture."""


def show(generations: Mapping[str, Any]) -> None:
    """Every prompt of generations.json's data."""
    for i, prompt in enumerate(generations.get("prompts") or []):
        _one({role: texts[i] for role in ROLES if (texts := generations["answers"].get(role))}, prompt)


def _one(answers: Mapping[str, str], prompt: str) -> None:
    """One prompt, continued by every model; what follows a text's first departure from the teacher's is marked."""
    st.markdown(f"**{plain(prompt)}**")
    teacher = answers.get("teacher")
    for column, role in zip(st.columns(max(1, len(answers))), answers, strict=False):
        with column.container(border=True, height="stretch"):
            text = answers[role]
            shared = len(text) if teacher is None or role == "teacher" else common_start(teacher, text)
            st.caption(f":material/{ICONS[role]}: {ROLES[role]}")
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
    escaped = "".join("\\" + char if char in "\\`*_{}[]()#+-.!|~>$:<" else char for char in text)
    return escaped.strip().replace("\n", " ↵ ")
