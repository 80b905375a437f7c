"""One head, neuron or channel: its place with what is within the noise, what every criterion says of it, and its neighbours."""

import numpy as np
import pandas as pd
import streamlit as st

from app import charts
from app.subject import Subject
from core.plan.pins import NOUNS
from core.report.agreement_figures import unit_profile
from core.report.format import number
from core.score.agreement import ranks
from core.score.criteria import criteria_of

AROUND = 2
"""Neighbours in rank on either side."""


def facts(subject: Subject, axis: str, row: int, unit: int, score: float) -> None:
    """Importance, rank and fate of a unit, as metrics."""
    mask = subject.masks[axis]
    st.metric("Importance", number(score), width="content")
    rank, _, reach = rank_said(subject, axis, row, unit).partition(", ")
    label = "Rank in its layer" if mask.ndim == 2 else "Rank"
    st.metric(label, rank, reach or None, delta_color="off", delta_arrow="off", width="content")
    fate(subject, axis, row, unit)


def fate(subject: Subject, axis: str, row: int, unit: int) -> None:
    """Whether the draft keeps a unit."""
    mask = subject.masks[axis]
    if mask[row, unit] if mask.ndim == 2 else mask[unit]:
        st.badge("kept by the draft", icon=":material/check:", color="green")
    else:
        st.badge("pruned by the draft", icon=":material/close:", color="gray")


def rank_said(subject: Subject, axis: str, row: int, unit: int) -> str:
    """A unit's rank, with its interval where that is known: ``3, within 2 to 5``, or ``3, sure``."""
    found = subject.confidence(axis)
    if found is None:
        return str(subject.ranks(axis)[subject.draft.rank.criterion(axis)][row, unit])
    low, high = _interval(float(found.low_RU[row, unit]), float(found.high_RU[row, unit]))
    return f"{found.rank_RU[row, unit]}, {'sure' if low == high else f'within {low} to {high}'}"


def _interval(low: float, high: float) -> tuple[int, int]:
    """The whole ranks that an interval reaches."""
    return int(np.ceil(low - 1e-9)), int(np.floor(high + 1e-9))


def show(subject: Subject, axis: str, row: int, unit: int, score_RU: np.ndarray) -> None:
    """What every criterion says of a unit, and who stands beside it in the draft's ranking."""
    where = f"layer {row}, " if subject.masks[axis].ndim == 2 else ""
    left, right = st.columns([3, 2], gap="large")
    with left:
        said = f"{where}{NOUNS[axis]} {unit} as every criterion sees it"
        st.markdown(f"**{said[0].upper()}{said[1:]}**")
        names, rank_C, low_C, high_C = standing(subject, axis, row, unit)
        about, found = criteria_of(axis), subject.criterion(axis)
        picture = unit_profile(
            [about[name].title for name in names], rank_C, low_C, high_C, score_RU.shape[1], subject.kept_count(axis),
            chosen=found.title if found else "",
        )  # fmt: skip
        st.caption(picture.alt)
        charts.show(picture, f"{axis}_profile")
    with right:
        st.markdown("**Its neighbours in rank**")
        st.table(neighbours(subject, axis, row, unit, score_RU), border="horizontal", hide_index=True, alt="Units next to it in rank")


def standing(subject: Subject, axis: str, row: int, unit: int) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Criteria that can be answered, and the unit's rank under each with its interval; NaN where that is not known."""
    found, low, high = subject.ranks(axis), [], []
    for name in found:
        sure = subject.confidence(axis, name)
        low.append(sure.low_RU[row, unit] if sure else np.nan)
        high.append(sure.high_RU[row, unit] if sure else np.nan)
    return list(found), np.array([rank_RU[row, unit] for rank_RU in found.values()]), np.array(low), np.array(high)


def neighbours(subject: Subject, axis: str, row: int, unit: int, score_RU: np.ndarray) -> pd.DataFrame:
    """The units around one in the draft's ranking of its row, most important first."""
    score_U, mask_U = score_RU[row], np.atleast_2d(subject.masks[axis])[row]
    place = int(ranks(score_U[None])[0, unit]) - 1
    order_U = np.argsort(-score_U, kind="stable")
    first = max(min(place - AROUND, len(order_U) - 2 * AROUND - 1), 0)
    shown = order_U[first : first + 2 * AROUND + 1]
    return pd.DataFrame(
        {
            "Rank": [rank_said(subject, axis, row, int(other)) for other in shown],
            NOUNS[axis].capitalize(): [f"{other} ←" if other == unit else str(other) for other in shown],
            "Importance": [number(float(score_U[other])) for other in shown],
            "Draft": ["keeps" if mask_U[other] else "cuts" for other in shown],
        }
    )
