"""A limit instead of sizes: what shall stay within what, and the button that moves the sliders there."""

from dataclasses import replace
from typing import Any

import streamlit as st

from app import state
from app.state import bind
from core.errors import UserError
from core.model.card import Card
from core.model.dims import resized
from core.plan.goals import MEASURES, limit_of, reach, value_of
from core.plan.sizes import NAMES
from core.report import format as fmt
from core.specs import Goal

WORDS = {
    "parameters": "Parameters", "non_embedding": "Parameters without embedding", "weights": "Weights, bfloat16", "memory": "Weights and KV cache",
    "flops": "FLOPs a token",
}  # fmt: skip
SHRINKS = {
    "ffn": "FFN", "depth": "Layers", "width": "Hidden size and FFN", "balanced": "Layers and FFN", "attention": "KV heads and FFN",
    "all": "Everything",
}  # fmt: skip


def goal_form(card: Card) -> None:
    """Draw the goal of the draft, how its sizes stand to it, and a button that finds the sizes."""
    goal = state.draft().goal
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input("Stay within", placeholder="80%, 100M, 200MB", width=150, help="A number with its unit, or a share of the whole model.",
                      **bind("goal_at_most", goal.at_most, lambda text: _change(at_most=text.strip())))  # fmt: skip
        st.selectbox("of", list(MEASURES), format_func=WORDS.__getitem__, width=230,
                     **bind("goal_measure", goal.measure, lambda name: _change(measure=name)))  # fmt: skip
        st.selectbox("by cutting", list(SHRINKS), format_func=SHRINKS.__getitem__, width=190,
                     help="These shrink in proportion; what the limit still allows goes to the FFN. Memory counts 4096 tokens of KV cache.",
                     **bind("goal_shape", goal.shape, lambda name: _change(shape=name)))  # fmt: skip
        st.button("Find sizes", icon=":material/my_location:", key="goal_find", on_click=_find, args=(card,), disabled=not goal.at_most,
                  help="Moves the sliders to the largest model of this shape within the limit.")  # fmt: skip
    _tell(card)


def _change(**fields: Any) -> None:
    state.update_draft(goal=replace(state.draft().goal, **fields))


def _found(goal: Goal) -> Goal:
    """The goal in the steps that the sliders are set to."""
    return replace(goal, multiple=1 if state.recall("any_size", False) else 64)


def _find(card: Card) -> None:
    """Move the targets to the goal; a limit that cannot be met is told instead."""
    draft = state.draft()
    try:
        found = reach(card.config, _found(draft.goal))
    except UserError as error:
        state.remember("goal_problem", str(error))
        return
    whole = {key: size for key, size in found.to_dict().items() if size != getattr(card.dims, NAMES[key])}
    state.update_draft(targets=type(found)(**whole))


@st.fragment(key=state.GOAL)
def _tell(card: Card) -> None:
    """How the draft's sizes stand to the limit, if there is one."""
    draft = state.draft()
    goal = draft.goal
    if not goal.at_most:
        return
    try:
        limit, now = limit_of(card.config, goal), value_of(card.config, resized(card.dims, draft.targets), goal)
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    if problem := state.recall("goal_problem"):
        st.error(problem, icon=":material/block:")
        state.remember("goal_problem", None)
    write = fmt.size if goal.measure in ("weights", "memory") else fmt.count
    part, icon = now / limit, ":material/check_circle:" if now <= limit else ":material/arrow_upward:"
    said = f"{fmt.percent(1 - part)} below" if now <= limit else f"{fmt.percent(part - 1)} above"
    st.caption(f"{icon} {WORDS[goal.measure]}: {write(now)}, {said} the limit of {write(limit)}.")
