"""The views of the importance page, from stored scores: layers, heads, neurons, embedding channels. None calls a model."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import streamlit as st

from app import cached, charts, ranking, state, unit_detail
from app.subject import Subject
from core.report import importance_figures as figures
from core.report import width_figures
from core.report.format import listed, number, percent, plural
from core.score.agreement import spearman
from core.score.criteria import criteria_of
from core.specs import RankSpec

WITHIN, ACROSS = "Within its layer", "Across layers"

UNSURE = (
    " How sure this cut is cannot be told, so nothing is marked: criteria from weights, covariances and greedy removal are computed on the whole text "
    "at once, and others need two parts of the text or more."
)


def layers(subject: Subject) -> None:
    """Depth: what each layer does, and what its loss costs."""
    score_L = ranking.choose(subject, "layers", lambda: _protection(subject))
    found = {} if score_L is None else {subject.draft.rank.depth: score_L}
    for name in ("bi", "ppl"):
        if name not in found and name in subject.scores.offered("layers"):
            found[name] = cached.importance(subject.scores, "layers", RankSpec(depth=name), subject.removed)
    picture = figures.layer_bars(found, subject.masks["layers"])
    st.caption(picture.alt + ("" if score_L is None else _layers_undecided(subject)))
    charts.show(picture, "layers")
    if len(found) > 1:
        first, second = list(found)[:2]
        titles = [criteria_of("layers")[name].title for name in (first, second)]
        alike = number(spearman(found[first][None], found[second][None]), digits=2)
        st.caption(f"{titles[0]} and {titles[1].lower()} rank the layers alike with Spearman's ρ = {alike}.")


def _protection(subject: Subject) -> None:
    """Layers at either end that are never removed."""
    rank, most = subject.draft.rank, subject.card.dims.layers
    for field, label in (("protect_first", "Protect first"), ("protect_last", "Protect last")):
        st.number_input(
            label, 0, most, step=1, width=140, help="Layers at this end that are never removed.",
            **state.bind(field, min(getattr(rank, field), most), _rank_setter(field)),
        )  # fmt: skip


def _rank_setter(field: str) -> Callable[[int], None]:
    return lambda value: ranking.set_rank(**{field: value})


def _layers_undecided(subject: Subject) -> str:
    """Which layers might as well be on the other side of the cut."""
    undecided_1L = subject.undecided("layers")
    if not subject.removed or subject.complaint:
        return ""
    if undecided_1L is None:
        return UNSURE
    numbers = [str(layer) for layer in np.flatnonzero(undecided_1L[0])]
    return (
        f" Within the noise of the cut: {'layer' if len(numbers) == 1 else 'layers'} {listed(numbers)}."
        if numbers
        else " The cut is clear of the noise."
    )


def heads(subject: Subject) -> None:
    """Attention heads: a map to click, and the story of the head that was clicked."""
    scale = _Scale("heads")
    score_LH = ranking.choose(subject, "heads", scale.draw)
    if score_LH is None:
        return
    chosen = [tuple(pair) for pair in state.recall("heads", [(0, 0)])]
    chosen = [(layer, head) for layer, head in chosen if layer < score_LH.shape[0] and head < score_LH.shape[1]] or [(0, 0)]
    undecided_LH = subject.undecided("heads")
    chart, detail = st.columns([4, 1], gap="medium")
    with chart:
        picture = figures.head_map(
            score_LH, subject.masks["heads"], group=subject.card.dims.group, within_layer=scale.within, selected=tuple(chosen),
            undecided_LH=undecided_LH,
        )  # fmt: skip
        st.caption(picture.alt + _undecided_said(subject, "heads", undecided_LH, "a dot marks them"))
        charts.show_selectable(picture, "heads", lambda points: state.remember("heads", points))
    with detail:
        _head_detail(subject, picture.table, chosen)
    if len(chosen) == 1:
        layer, head = chosen[0]
        unit_detail.show(subject, "heads", layer, head, score_LH)


def _head_detail(subject: Subject, table: pd.DataFrame, chosen: list[tuple[int, int]]) -> None:
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
        unit_detail.facts(subject, "heads", layer, head, row["importance"])
        st.metric("Percentile of all heads", f"{row['percentile']:.0f}")
    st.caption("Click a cell; or choose Box Select above the map and drag over several.")


def neurons(subject: Subject) -> None:
    """FFN neurons: every layer sorted, one layer's curve, and one neuron."""
    scale = _Scale("neurons")
    score_LF = ranking.choose(subject, "neurons", scale.draw)
    if score_LF is None:
        return
    kept_count, undecided_LF = subject.kept_count("neurons"), subject.undecided("neurons")
    picture = width_figures.neuron_map(score_LF, kept_count, subject.masks["layers"], within_layer=scale.within)
    st.caption(picture.alt + _undecided_said(subject, "neurons", undecided_LF, "one layer's are shaded below"))
    charts.show(picture, "neurons")
    st.subheader("One layer", anchor=False)
    layer = min(int(state.recall("neuron_layer", 0)), len(score_LF) - 1)
    st.slider("Layer", 0, len(score_LF) - 1, **state.bind("neuron_layer", layer, lambda value: state.remember("neuron_layer", value)))
    _curve_and_histogram(score_LF[layer], kept_count, "neurons", None if undecided_LF is None else undecided_LF[layer])
    st.subheader("One neuron", anchor=False)
    unit_detail.choose(subject, "neurons", layer, score_LF)


def channels(subject: Subject) -> None:
    """Embedding channels: one ranking for the whole network, and one channel."""
    score_D = ranking.choose(subject, "channels")
    if score_D is None:
        return
    undecided_1D = subject.undecided("channels")
    _curve_and_histogram(score_D, subject.kept_count("channels"), "channels", None if undecided_1D is None else undecided_1D[0])
    st.subheader("One channel", anchor=False)
    unit_detail.choose(subject, "channels", 0, score_D[None])


def _curve_and_histogram(score_N: np.ndarray, kept_count: int, unit: str, undecided_N: np.ndarray | None) -> None:
    curve = width_figures.cut_curve(score_N, kept_count, unit, undecided_N)
    st.caption(curve.alt + (UNSURE if undecided_N is None and kept_count < len(score_N) else ""))
    left, right = st.columns(2, gap="medium")
    with left:
        charts.show(curve, f"{unit}_curve")
    with right:
        charts.show(width_figures.score_histogram(score_N, kept_count, unit), f"{unit}_histogram")


def _undecided_said(subject: Subject, axis: str, undecided_RU: np.ndarray | None, where: str) -> str:
    """How many units might as well be on the other side of the cut."""
    units = subject.masks[axis].shape[-1]
    if subject.kept_count(axis) == units:
        return ""
    if undecided_RU is None:
        return UNSURE
    many = int(undecided_RU.sum())
    by_group = " Heads are cut by groups, so a head's group counts too." if axis == "heads" and subject.card.dims.group > 1 else ""
    return f" For {many} of {subject.units(axis)} the cut is within the noise{f' ({where})' if many else ''}.{by_group}"


class _Scale:
    """The switch of what a map's colours compare."""

    def __init__(self, name: str) -> None:
        self.name, self.within = name, True

    def draw(self) -> None:
        """Draw the switch, and take its answer."""
        chosen = st.segmented_control(
            "Colour compares", [WITHIN, ACROSS], default=WITHIN, required=True, key=f"w_scale_{self.name}", persist_state="session"
        )
        self.within = chosen == WITHIN
