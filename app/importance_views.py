"""The views of the importance page, from stored scores: layers, heads, neurons, embedding channels. None calls a model."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import streamlit as st

from app import cached, charts, ranking, selection, state, unit_detail
from app.subject import Subject
from app.ui import beside
from core.report import importance_figures as figures
from core.report import width_figures
from core.report.format import listed, number
from core.score.agreement import spearman
from core.score.criteria import criteria_of
from core.specs import RankSpec

DRAWER = 215
"""Width of the part beside a chart, in pixels: its buttons need that much in any window."""

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
    units = selection.chosen(subject, "layers")
    picture = figures.layer_bars(found, subject.masks["layers"], pinned_L=subject.pinned("layers"), selected=[layer for (layer,) in units])
    st.caption(picture.alt + ("" if score_L is None else _layers_undecided(subject)))
    chart, detail = beside(DRAWER)
    with chart:
        charts.show(
            picture, "layers", lambda area: selection.choose("layers", [(layer,) for layer in area.columns(subject.card.dims.layers)])
        )
    with detail, st.container(border=True):
        values_L = score_L if score_L is not None else next(iter(found.values()))
        selection.drawer(subject, "layers", values_L, lambda unit: _layer_facts(subject, found, unit[0]))
    if len(found) > 1:
        first, second = list(found)[:2]
        titles = [criteria_of("layers")[name].title for name in (first, second)]
        alike = number(spearman(found[first][None], found[second][None]), digits=2)
        st.caption(f"{titles[0]} and {titles[1].lower()} rank the layers alike with Spearman's ρ = {alike}.")
    # Once a layer is chosen: this is the first view that is opened, and must stand there at once.
    if state.recall("chosen_layers") and len(units) == 1 and score_L is not None:
        unit_detail.show(subject, "layers", 0, units[0][0], score_L[None])


def _layer_facts(subject: Subject, found: dict[str, np.ndarray], layer: int) -> None:
    """What every shown criterion says of one layer, and its fate."""
    for name, score_L in found.items():
        said = number(float(score_L[layer])) if np.isfinite(score_L[layer]) else "protected"
        rank = 1 + int((score_L > score_L[layer]).sum())
        st.metric(criteria_of("layers")[name].title, said, f"rank {rank} of {len(score_L)}", delta_color="off", delta_arrow="off")
    unit_detail.fate(subject, "layers", 0, layer)


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
    units, undecided_LH = selection.chosen(subject, "heads"), subject.undecided("heads")
    L, H = score_LH.shape
    chart, detail = beside(DRAWER)
    with chart:
        overlay = st.toggle("Show what the draft cuts", value=True, key="w_overlay", persist_state="session")
        picture = figures.head_map(
            score_LH, subject.masks["heads"], group=subject.card.dims.group, within_layer=scale.within, selected=units,  # type: ignore[arg-type]
            undecided_LH=undecided_LH, pinned_LH=subject.pinned("heads"), overlay=overlay,
        )  # fmt: skip
        st.caption(picture.alt + _undecided_said(subject, "heads", undecided_LH, "a dot marks them"))
        charts.show(
            picture, "heads", lambda area: selection.choose("heads", [(layer, head) for layer in area.columns(L) for head in area.rows(H)])
        )
    with detail, st.container(border=True):
        _head_steps(units[0], L, H)
        selection.drawer(subject, "heads", score_LH, lambda unit: _head_facts(subject, picture.table, *unit))
    if len(units) == 1:
        layer, head = units[0]
        unit_detail.show(subject, "heads", layer, head, score_LH)


def _head_steps(unit: tuple[int, ...], L: int, H: int) -> None:
    """From head to head with the arrow keys."""
    layer, head = unit
    with st.container(horizontal=True):
        st.number_input("Layer", 0, L - 1, **state.bind("head_layer", layer, lambda value: _move("heads", layer=value)))
        st.number_input("Head", 0, H - 1, **state.bind("head_head", head, lambda value: _move("heads", number=value)))


def _move(axis: str, layer: int | None = None, number: int | None = None) -> None:
    """Select one unit: that at the place of the first selected one, but in another layer, or of another number."""
    old_layer, old_number = (state.recall(f"chosen_{axis}") or [(0, 0)])[0]
    selection.choose(axis, [(old_layer if layer is None else layer, old_number if number is None else number)])


def _head_facts(subject: Subject, table: pd.DataFrame, layer: int, head: int) -> None:
    """What is known of one head."""
    row = table[(table["layer"] == layer) & (table["head"] == head)].iloc[0]
    unit_detail.facts(subject, "heads", layer, head, row["importance"])
    st.metric("Percentile of all heads", f"{row['percentile']:.0f}")


def neurons(subject: Subject) -> None:
    """FFN neurons: every layer sorted, one layer's curve, and one neuron."""
    scale = _Scale("neurons")
    score_LF = ranking.choose(subject, "neurons", scale.draw)
    if score_LF is None:
        return
    L, F = score_LF.shape
    kept_count, undecided_LF, pinned_LF = subject.kept_count("neurons"), subject.undecided("neurons"), subject.pinned("neurons")
    units = selection.chosen(subject, "neurons")
    layer, unit = units[0]
    order_U = np.argsort(-score_LF[layer], kind="stable")
    places = {one: np.argsort(np.argsort(-score_LF[one], kind="stable")) for one in {one for one, _ in units}}
    chart, detail = beside(DRAWER)
    with chart:
        picture = width_figures.neuron_map(
            score_LF, kept_count, subject.masks["layers"], within_layer=scale.within, pinned_LF=pinned_LF,
            selected=[(one, int(places[one][number])) for one, number in units],
        )  # fmt: skip
        st.caption(picture.alt + _undecided_said(subject, "neurons", undecided_LF, "one layer's are shaded below"))
        charts.show(picture, "neurons", lambda area: _choose_slices(area, score_LF))
    with detail, st.container(border=True):
        with st.container(horizontal=True):
            st.number_input("Layer", 0, L - 1, **state.bind("neuron_layer", layer, lambda value: _move("neurons", layer=value)))
            st.number_input("Neuron", 0, F - 1, **state.bind("neuron_unit", unit, lambda value: _move("neurons", number=value)))
        selection.drawer(
            subject, "neurons", score_LF, lambda one: unit_detail.facts(subject, "neurons", one[0], one[1], float(score_LF[one]))
        )
    st.subheader(f"Layer {layer}", anchor=False)
    picked = [number for one, number in units if one == layer]
    _curve_and_histogram(
        score_LF[layer], kept_count, "neurons", None if undecided_LF is None else undecided_LF[layer], pinned_LF[layer], picked,
        lambda area: selection.choose("neurons", [(layer, int(order_U[place - 1])) for place in area.columns(F + 1) if place]),
    )  # fmt: skip
    if len(units) == 1:
        unit_detail.show(subject, "neurons", layer, unit, score_LF)


def _choose_slices(area: charts.Area, score_LF: np.ndarray) -> None:
    """Select the neurons behind slices of the map; of several layers those of each."""
    places = list(width_figures.places_between(area.y0, area.y1, score_LF.shape[1]))
    layers_ = area.columns(len(score_LF))
    selection.choose(
        "neurons", [(layer, int(unit)) for layer in layers_ for unit in np.sort(np.argsort(-score_LF[layer], kind="stable")[places])]
    )


def channels(subject: Subject) -> None:
    """Embedding channels: one ranking for the whole network, and one channel."""
    score_D = ranking.choose(subject, "channels")
    if score_D is None:
        return
    undecided_1D, units = subject.undecided("channels"), selection.chosen(subject, "channels")
    order_D = np.argsort(-score_D, kind="stable")
    charts_, detail = beside(DRAWER)
    with charts_:
        _curve_and_histogram(
            score_D, subject.kept_count("channels"), "channels", None if undecided_1D is None else undecided_1D[0],
            subject.pinned("channels"), [number for (number,) in units],
            lambda area: selection.choose("channels", [(int(order_D[place - 1]),) for place in area.columns(len(order_D) + 1) if place]),
        )  # fmt: skip
    with detail, st.container(border=True):
        last = len(score_D) - 1
        st.number_input(
            "Channel", 0, last, **state.bind("channel_unit", units[0][0], lambda value: selection.choose("channels", [(value,)]))
        )
        selection.drawer(subject, "channels", score_D, lambda one: unit_detail.facts(subject, "channels", 0, one[0], float(score_D[one])))
    if len(units) == 1:
        unit_detail.show(subject, "channels", 0, units[0][0], score_D[None])


def _curve_and_histogram(
    score_N: np.ndarray,
    kept_count: int,
    unit: str,
    undecided_N: np.ndarray | None,
    pinned_N: np.ndarray,
    selected: list[int],
    chosen: Callable[[charts.Area], None],
) -> None:
    """The sorted scores, to click and to box, and how they are spread."""
    curve = width_figures.cut_curve(score_N, kept_count, unit, undecided_N, pinned_N=pinned_N, selected=selected)
    st.caption(curve.alt + (UNSURE if undecided_N is None and kept_count < len(score_N) else ""))
    left, right = st.columns(2, gap="medium")
    with left:
        charts.show(curve, f"{unit}_curve", chosen)
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
