"""A limit instead of sizes: what shall stay within what, and the button that moves the sliders there."""

from dataclasses import replace
from typing import Any

import streamlit as st

from app import cached, state
from app.state import bind
from core.errors import UserError
from core.model.card import Card
from core.model.dims import resized
from core.plan.goals import MEASURES, limit_of, reach, value_of
from core.plan.sizes import NAMES
from core.report import format as fmt
from core.runs.remarks import title
from core.specs import WEIGHT_DTYPES, Goal

WORDS = {
    "parameters": "Parameters", "non_embedding": "Parameters without embedding", "weights": "Weights", "memory": "Weights and KV cache",
    "flops": "FLOPs a token", "reading": "Speed of reading ≈", "writing": "Speed of writing ≈",
}  # fmt: skip
SHRINKS = {
    "ffn": "FFN", "depth": "Layers", "width": "Hidden size and FFN", "balanced": "Layers and FFN", "attention": "KV heads and FFN",
    "all": "Everything",
}  # fmt: skip
ASSUMED = {"dtype": ("weights", "memory", "writing"), "context": ("memory", "flops", "reading", "writing"), "batch": ("memory", "writing")}
"""What a goal assumes -> the measures that depend on it."""
BASIS = {
    "reading": "Estimated by the arithmetic of a prompt that long; a run that cuts measures it.",
    "writing": "Estimated by the bytes of weights and KV cache that a token reads; a run that cuts measures it.",
}
CUTTING = ("prune", "distill")
"""Kinds of run that measure both models side by side."""
ROLES = {"reading": "prefill", "writing": "decode"}
"""Measure -> what a run calls it."""


def goal_form(card: Card) -> None:
    """Draw the goal of the draft, how its sizes stand to it, and a button that finds the sizes."""
    goal = state.draft().goal
    timed = MEASURES[goal.measure].of_time
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input("At least" if timed else "Stay within", placeholder="1.3x" if timed else "80%, 100M, 200MB", width=150,
                      help="Times as fast as the whole model." if timed else "A number with its unit, or a share of the whole model.",
                      **bind("goal_at_most", goal.at_most, lambda text: _change(at_most=text.strip())))  # fmt: skip
        st.selectbox("of", list(MEASURES), format_func=WORDS.__getitem__, width=230, help=BASIS.get(goal.measure),
                     **bind("goal_measure", goal.measure, lambda name: _change(measure=name)))  # fmt: skip
        _assumed(goal)
        st.selectbox("by cutting", list(SHRINKS), format_func=SHRINKS.__getitem__, width=190,
                     help="These shrink in proportion; what the limit still allows goes to the FFN.",
                     **bind("goal_shape", goal.shape, lambda name: _change(shape=name)))  # fmt: skip
        st.button("Find sizes", icon=":material/my_location:", key="goal_find", on_click=_find, args=(card,), disabled=not goal.at_most,
                  help="Moves the sliders to the largest model of this shape within the limit.")  # fmt: skip
    _tell(card)


def _assumed(goal: Goal) -> None:
    """The number format, tokens and sequences that the measure depends on."""
    if goal.measure in ASSUMED["dtype"]:
        st.selectbox("in", WEIGHT_DTYPES, width=120, **bind("goal_dtype", goal.dtype, lambda name: _change(dtype=name)))
    if goal.measure in ASSUMED["context"]:
        st.number_input("Tokens", min_value=1, step=1024, width=130, help="Length of the context or prompt.",
                        **bind("goal_context", goal.context, lambda tokens: _change(context=tokens)))  # fmt: skip
    if goal.measure in ASSUMED["batch"]:
        st.number_input("Sequences", min_value=1, step=1, width=120, help="Held in the KV cache at once.",
                        **bind("goal_batch", goal.batch, lambda sequences: _change(batch=sequences)))  # fmt: skip


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
    if MEASURES[goal.measure].of_time:
        st.caption(_speed_said(card, goal, limit, now))
        return
    write = fmt.size if goal.measure in ("weights", "memory") else fmt.count
    st.caption(f"{_stands(now <= limit)} {WORDS[goal.measure]}: {write(now)}, {_beside(now / limit, 'the limit of ' + write(limit))}.")


def _stands(met: bool) -> str:
    return ":material/check_circle:" if met else ":material/arrow_upward:"


def _beside(part: float, limit: str) -> str:
    return f"{fmt.percent(1 - part)} below {limit}" if part <= 1 else f"{fmt.percent(part - 1)} above {limit}"


def _speed_said(card: Card, goal: Goal, limit: float, now: float) -> str:
    """How many times as fast the draft is thought to be, and what was measured of these sizes."""
    whole = value_of(card.config, card.dims, goal)
    said = f"{_stands(now <= limit)} {WORDS[goal.measure].removesuffix(' ≈')}: ≈ {whole / now:.2f}x, estimated; asked for {whole / limit:.2f}x."
    if (found := measured(card, goal)) is None:
        return f"{said} Not measured yet: a run that cuts to these sizes does."
    times, name = found
    return f"{said} Measured: {times:.2f}x (:material/timer: {name})."


def measured(card: Card, goal: Goal) -> tuple[float, str] | None:
    """Times as fast as the whole model that the newest run of the draft's sizes was, and the run's title; None without any."""
    draft = state.draft()
    dims = resized(card.dims, draft.targets)
    for known in cached.known_runs():
        if known.spec.kind not in CUTTING or known.spec.model != draft.model or resized(card.dims, known.spec.targets) != dims:
            continue
        results = known.run.results()
        speeds = [(results.get(role) or {}).get("tokens_per_second", {}).get(ROLES[goal.measure]) for role in ("pruned", "teacher")]
        if all(speeds):
            return speeds[0] / speeds[1], title(known.run)
    return None
