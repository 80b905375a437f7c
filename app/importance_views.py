"""The four views of the importance page, from stored scores: layers, heads, neurons, embedding channels. None calls a model."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from app import cached, charts, state
from app.state import Draft
from core.errors import UserError
from core.model.card import Card
from core.report import importance_figures as figures
from core.report import width_figures
from core.report.agreement import overlap, spearman
from core.report.format import number, percent, plural
from core.score.store import Scores
from core.specs import AGGREGATIONS, RankSpec

AGGREGATION_NAMES = {"mean": "Mean", "l2": "L2", "var": "Variance"}
WITHIN, ACROSS = "Within its layer", "Across layers"
DEPTH_NAMES = {"bi": "Block importance", "ppl": "Loss when removed"}


@dataclass(frozen=True)
class Subject:
    """What a view looks at."""

    draft: Draft
    card: Card
    scores: Scores
    masks: dict[str, np.ndarray]
    """Axis -> what the draft keeps, see ``core.plan.plan.keep_masks``; all True if its targets are not possible."""


def subject_of(draft: Draft, card: Card, scores: Scores) -> Subject:
    """Bring draft, scores and what is kept together."""
    try:
        masks = cached.masks(scores, scores.key, card.config, draft.targets, draft.rank)
    except UserError as error:
        st.warning(f"{error} Until then everything is shown as kept.", icon=":material/warning:")
        dims = card.dims
        shapes = {
            "layers": (dims.layers,),
            "channels": (dims.hidden,),
            "heads": (dims.layers, dims.heads),
            "neurons": (dims.layers, dims.ffn),
        }
        masks = {name: np.ones(shape, bool) for name, shape in shapes.items()}
    return Subject(draft, card, scores, masks)


def layers(subject: Subject) -> None:
    """Depth: what each layer does, and what its loss costs."""
    measures = ("bi", "ppl") if subject.scores.has_losses else ("bi",)
    st.segmented_control(
        "The draft removes layers by", measures, format_func=DEPTH_NAMES.__getitem__, required=True,
        help="Block importance comes with the scoring; the loss when removed is slower to measure and closer to what matters.",
        **state.bind("depth", subject.draft.rank.depth, lambda depth: _rank(depth=depth)),
    )  # fmt: skip
    found = {measure: subject.scores.layers(measure) for measure in measures}
    picture = figures.layer_bars(found, subject.masks["layers"])
    st.caption(picture.alt)
    charts.show(picture, "layers")
    if len(found) == 2:
        st.caption(
            f"The two measures rank the layers alike with Spearman's ρ = {number(spearman(found['bi'][None], found['ppl'][None]), digits=2)}."
        )


def heads(subject: Subject) -> None:
    """Attention heads: a map to click, and the story of the head that was clicked."""
    score_LH = subject.scores.heads(subject.draft.rank)
    scale = _controls(subject, subject.scores.heads, subject.masks["layers"], int(subject.masks["heads"].sum(axis=1).max()), "heads")
    chosen = [tuple(pair) for pair in state.recall("heads", [(0, 0)])]
    chosen = [(layer, head) for layer, head in chosen if layer < score_LH.shape[0] and head < score_LH.shape[1]] or [(0, 0)]
    chart, detail = st.columns([4, 1], gap="medium")
    with chart:
        picture = figures.head_map(
            score_LH, subject.masks["heads"], group=subject.card.dims.group, within_layer=scale == WITHIN, selected=tuple(chosen)
        )
        st.caption(picture.alt)
        charts.show_selectable(picture, "heads", lambda points: state.remember("heads", points))
    with detail:
        _head_detail(picture.table, chosen)


def _head_detail(table: pd.DataFrame, chosen: list[tuple[int, int]]) -> None:
    """What is known of the chosen head, with the keyboard's way to choose one; of several, their sum."""
    last_layer, last_head = int(table["layer"].max()), int(table["head"].max())
    layer, head = chosen[0]
    with st.container(border=True):
        with st.container(horizontal=True):
            st.number_input(
                "Layer", 0, last_layer, **state.bind("head_layer", layer, lambda value: state.remember("heads", [(value, head)]))
            )
            st.number_input("Head", 0, last_head, **state.bind("head_head", head, lambda value: state.remember("heads", [(layer, value)])))
        if len(chosen) > 1:
            rows = table.set_index(["layer", "head"]).loc[chosen]
            st.metric("Selected", plural(len(rows), "head"))
            st.metric("Pruned by the draft", plural(int((~rows["kept"]).sum()), "head"))
            st.metric("Share of all importance", percent(rows["importance"].sum() / table["importance"].sum()))
            return
        row = table[(table["layer"] == layer) & (table["head"] == head)].iloc[0]
        st.metric("Importance", number(row["importance"]))
        st.metric("Rank in its layer", f"{row['rank in layer']} of {last_head + 1}")
        st.metric("Percentile of all heads", f"{row['percentile']:.0f}")
        if row["kept"]:
            st.badge("kept by the draft", icon=":material/check:", color="green")
        else:
            st.badge("pruned by the draft", icon=":material/close:", color="gray")
    st.caption("Click a cell; or choose Box Select above the map and drag over several.")


def neurons(subject: Subject) -> None:
    """FFN neurons: every layer sorted, and one layer's curve."""
    score_LF = subject.scores.neurons(subject.draft.rank)
    kept_L, kept_count = subject.masks["layers"], int(subject.masks["neurons"].sum(axis=1).max())
    scale = _controls(subject, subject.scores.neurons, kept_L, kept_count, "neurons")
    picture = width_figures.neuron_map(score_LF, kept_count, kept_L, within_layer=scale == WITHIN)
    st.caption(picture.alt)
    charts.show(picture, "neurons")
    st.subheader("One layer", anchor=False)
    layer = min(int(state.recall("neuron_layer", 0)), len(score_LF) - 1)
    st.slider("Layer", 0, len(score_LF) - 1, **state.bind("neuron_layer", layer, lambda value: state.remember("neuron_layer", value)))
    _curve_and_histogram(score_LF[layer], kept_count, "neurons")


def channels(subject: Subject) -> None:
    """Embedding channels: one ranking for the whole network."""
    score_D, kept_count = subject.scores.channels(subject.draft.rank), int(subject.masks["channels"].sum())
    _controls(subject, lambda rank: subject.scores.channels(rank)[None], np.ones(1, bool), kept_count)
    _curve_and_histogram(score_D, kept_count, "channels")


def _curve_and_histogram(score_N: np.ndarray, kept_count: int, unit: str) -> None:
    curve, histogram = width_figures.cut_curve(score_N, kept_count, unit), width_figures.score_histogram(score_N, kept_count, unit)
    st.caption(curve.alt)
    left, right = st.columns(2, gap="medium")
    with left:
        charts.show(curve, f"{unit}_curve")
    with right:
        charts.show(histogram, f"{unit}_histogram")


def _controls(
    subject: Subject, score: Callable[[RankSpec], np.ndarray], kept_L: np.ndarray, kept_count: int, scaled: str | None = None
) -> str:
    """Choose how activations are condensed, and see what that does to the ranking; costs no model call.

    Returns:
        What colours compare, for a view that is named in ``scaled``.
    """
    rank = subject.draft.rank
    with st.container(horizontal=True, gap="large", vertical_alignment="bottom"):
        for field, label in (("batch", "Over the blocks"), ("sequence", "Over the tokens of a block")):
            st.segmented_control(
                label, AGGREGATIONS, format_func=AGGREGATION_NAMES.__getitem__, required=True,
                **state.bind(field, getattr(rank, field), _rank_setter(field)),
            )  # fmt: skip
        scale = st.segmented_control(
            "Colour compares", [WITHIN, ACROSS], default=WITHIN, required=True, key=f"w_scale_{scaled}", persist_state="session"
        ) if scaled else WITHIN  # fmt: skip
    st.caption(_ranking_said(rank, score, kept_L, kept_count))
    return str(scale)


def _ranking_said(rank: RankSpec, score: Callable[[RankSpec], np.ndarray], kept_L: np.ndarray, kept_count: int) -> str:
    """What an aggregation does to the ranking, against the default."""
    default = RankSpec()
    if (rank.batch, rank.sequence) == (default.batch, default.sequence):
        return "The default aggregation: L2 over the blocks of the mean over tokens."
    now_LN, then_LN = score(rank)[kept_L], score(default)[kept_L]
    same = overlap(now_LN, then_LN, kept_count) if kept_count < now_LN.shape[1] else None
    kept = "" if same is None else f" Of what the draft keeps, {percent(same)} would be kept by the default too."
    alike = number(spearman(now_LN, then_LN), digits=2)
    return f"Against the default (L2, mean), the rankings correlate with Spearman's ρ = {alike}.{kept}"


def _rank_setter(field: str) -> Callable[[str], None]:
    return lambda value: _rank(**{field: value})


def _rank(**changes: str) -> None:
    state.update_draft(rank=dataclasses.replace(state.draft().rank, **changes))
