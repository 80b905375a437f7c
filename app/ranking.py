"""How the draft ranks an axis: the criterion, what it measures, and how activations are condensed. None costs a model call."""

import dataclasses
import re
from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np
import streamlit as st

from app import cached, state
from app.subject import Subject
from core.errors import UserError
from core.report.format import listed, number, percent
from core.score.agreement import overlap, spearman
from core.score.confidence import rows
from core.score.criteria import criteria_of
from core.score.passes import PASSES
from core.specs import AGGREGATIONS, NO_PINS, RankSpec

AGGREGATION_NAMES = {"mean": "Mean", "l2": "L2", "var": "Variance"}
QUESTIONS = {
    "layers": "The draft removes layers by", "heads": "The draft ranks heads by", "neurons": "The draft ranks neurons by",
    "channels": "The draft ranks channels by",
}  # fmt: skip


def choose(subject: Subject, axis: str, *more: Callable[[], None]) -> np.ndarray | None:
    """Choose criterion and aggregation of an axis, and say what they mean.

    Args:
        more: draws further controls in the same line.

    Returns:
        The importance that follows; None, and a message on the page, if it cannot be told.
    """
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        _criterion(subject, axis)
        found = subject.criterion(axis)
        if found and found.aggregated:
            _aggregation(subject.draft.rank)
        for draw in more:
            draw()
    if found:
        st.markdown(f":gray[:small[{found.says}]] :small[{linked(found.paper)}.]")  # no caption: its links would be too faint to read
    if unmeasured := _unmeasured(subject, axis):
        st.caption(f":material/info: Not measured: {unmeasured}.")
    return _answer(subject, axis)


def _criterion(subject: Subject, axis: str) -> None:
    """A box of the criteria that can be answered, and of the draft's even if it cannot."""
    present, known = subject.draft.rank.criterion(axis), criteria_of(axis)
    offered = subject.scores.offered(axis)

    def write(name: str) -> str:
        title = known[name].title if name in known else name
        return title if name in offered else f"{title} (not measured)"

    st.selectbox(
        QUESTIONS[axis], list(dict.fromkeys((*offered, present))), format_func=write, width=250,
        **state.bind(f"criterion_{axis}", present, lambda name: state.update_draft(rank=state.draft().rank.by(axis, name))),
    )  # fmt: skip


def _aggregation(rank: RankSpec) -> None:
    for field, label in (("batch", "Over the blocks"), ("sequence", "Over the tokens of a block")):
        st.segmented_control(
            label, AGGREGATIONS, format_func=AGGREGATION_NAMES.__getitem__, required=True,
            **state.bind(field, getattr(rank, field), _setter(field)),
        )  # fmt: skip


def _setter(field: str) -> Callable[[Any], None]:
    return lambda value: set_rank(**{field: value})


def set_rank(**changes: Any) -> None:
    """Change fields of the draft's ranking."""
    state.update_draft(rank=dataclasses.replace(state.draft().rank, **changes))


def linked(paper: str) -> str:
    """A source with its arXiv numbers as links."""
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", paper)


def _unmeasured(subject: Subject, axis: str) -> str:
    """The criteria whose pass was not made, and what to ask for to have them."""
    missing = [found for found in criteria_of(axis).values() if not subject.scores.has(found.needs)]
    groups = groupby(missing, key=lambda found: found.needs)
    return "; ".join(f"{listed([found.title for found in group])} (score again {_advice(needs)})" for needs, group in groups)


def _advice(needs: str) -> str:
    return PASSES[needs].advice.replace("_", " ")


def _answer(subject: Subject, axis: str) -> np.ndarray | None:
    """The importance, with what the draft cannot do said above it; None if it cannot be told."""
    try:
        score = subject.importance(axis)
    except UserError as error:
        st.warning(
            f"{error} Or choose another criterion. Until then everything is shown as kept.",
            title="This ranking was not measured",
            icon=":material/science:",
        )
        return None
    if subject.complaint:
        st.warning(f"{subject.complaint} Until then everything is shown as kept.", icon=":material/warning:")
        if subject.draft.pins != NO_PINS:
            st.button("Clear all pins", key="clear_pins", icon=":material/keep_off:", on_click=state.update_draft, kwargs={"pins": NO_PINS})
    if axis != "layers":
        st.caption(_ranking_said(subject, axis, score))
    return score


def _ranking_said(subject: Subject, axis: str, score: np.ndarray) -> str:
    """How a ranking differs from the default."""
    default = RankSpec()
    then = cached.importance(subject.scores, axis, default, 1)
    if np.array_equal(score, then):
        return "This is the default: activations, by their L2 norm over the blocks of the mean over tokens."
    kept_L = subject.masks["layers"] if score.ndim == 2 else slice(None)
    now_LN, then_LN, kept_count = rows(score)[kept_L], rows(then)[kept_L], subject.kept_count(axis)
    kept = ""
    if kept_count < now_LN.shape[1]:
        kept = f" Of what the draft keeps, {percent(overlap(now_LN, then_LN, kept_count))} would be kept by the default too."
    alike = number(spearman(now_LN, then_LN), digits=2)
    return f"Against the default (activations, L2, mean), the rankings correlate with Spearman's ρ = {alike}.{kept}"
