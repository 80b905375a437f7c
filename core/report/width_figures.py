"""Importance of neurons and embedding channels as pictures: many units, so each is shown by its place in the sorted order.

Layers run from left to right, most important units on top or first; a dashed line parts what the draft keeps from what it cuts.
L layers, F neurons of a layer, N units of one kind, Q quantiles.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core.plan.pins import steered
from core.report.format import number
from core.report.picture import (
    NEUTRAL,
    SELECTED,
    SERIES,
    Picture,
    add_pins,
    log_colours,
    log_ticks,
    pin_words,
    pins_said,
    plain,
    shades,
    ticks,
)

BINS = 256
"""Quantiles of a layer's neurons that the map shows."""


def neuron_map(
    score_LF: np.ndarray,
    kept_count: int,
    kept_L: np.ndarray,
    *,
    within_layer: bool = True,
    pinned_LF: np.ndarray | None = None,
    selected: Sequence[tuple[int, int]] = (),
) -> Picture:
    """Layers x sorted quantiles of their neurons, most important on top, with the line below which the draft cuts.

    Args:
        score_LF: importance.
        kept_count: neurons that the draft keeps in every kept layer.
        kept_L: False where the draft removes the whole layer; such columns are faded and crossed.
        pinned_LF: 1 for a neuron that is pinned to stay, -1 for one pinned to go.
        selected: (layer, place in the sorted order) pairs to ring.
    """
    L, F = score_LF.shape
    sorted_LF = -np.sort(-score_LF, axis=1)
    bins_LQ = binned(sorted_LF)
    shade_LQ, meaning = shades(bins_LQ, within_layer)
    step = 100 / bins_LQ.shape[1]
    colour_LQ, scale = log_colours(shade_LQ, meaning)
    figure = go.Figure()
    for kept, opacity in ((True, 1.0), (False, 0.3)):
        figure.add_heatmap(
            z=np.where((kept_L == kept)[:, None], colour_LQ, np.nan).T.astype(np.float32), y0=step / 2, dy=step, coloraxis="coloraxis", opacity=opacity,
            customdata=shade_LQ.T.astype(np.float32), xgap=2, hoverongaps=False,
            hovertemplate="layer %{x}<br>top %{y:.0f} % of its neurons<br>%{customdata:.3g}<extra></extra>",
        )  # fmt: skip
    gone = np.repeat(np.flatnonzero(~kept_L), 3)
    cross = {"symbol": "x-thin", "size": 10, "line": {"width": 1.5, "color": NEUTRAL}}
    figure.add_scatter(
        x=gone, y=np.tile([25.0, 50.0, 75.0], len(gone) // 3), mode="markers", name="removed", marker=cross, hoverinfo="skip"
    )
    if pinned_LF is not None and pinned_LF.any():
        _mark_pins(figure, score_LF, pinned_LF, step)
    _ring_places(figure, selected, F, step)
    plain(figure, 440).update_layout(coloraxis=scale, margin={"t": 40})
    if kept_count < F:
        figure.add_hline(y=100 * kept_count / F, line={"color": SELECTED, "width": 2, "dash": "dash"})
        said = {"text": f"below the dashed line: cut, {kept_count} of {F} stay", "font": {"color": SELECTED}, "showarrow": False}
        figure.add_annotation(said, x=1, xref="paper", xanchor="right", y=1, yref="paper", yanchor="bottom")
    figure.update_xaxes(title_text="layer", tickvals=ticks(L, 32), range=[-0.5, L - 0.5])
    figure.update_yaxes(title_text="neurons, most important first (%)", range=[100, 0], showgrid=False)
    share_L = kept_share(score_LF, kept_count, pinned_LF, sorted_LF)
    alt = _neurons_said(share_L[kept_L], len(kept_L), kept_count, F) + pins_said(pinned_LF, "neuron")
    return Picture(figure=figure, alt=alt, table=_neuron_table(sorted_LF, np.where(kept_L, share_L, 0.0), pinned_LF))


def _mark_pins(figure: go.Figure, score_LF: np.ndarray, pinned_LF: np.ndarray, step: float) -> None:
    """Mark the slices that hold pinned neurons; a slice that holds both kinds carries both marks."""
    place_LF = np.argsort(np.argsort(-score_LF, axis=1, kind="stable"), axis=1)
    for sign in (1, -1):
        layer_N, unit_N = np.nonzero(pinned_LF == sign)
        slices = np.unique(np.stack([layer_N, place_LF[layer_N, unit_N] * 100 // (step * score_LF.shape[1])]), axis=1)
        add_pins(figure, slices[0] + 0.2 * sign, (slices[1] + 0.5) * step, np.full(slices.shape[1], sign))


def _ring_places(figure: go.Figure, selected: Sequence[tuple[int, int]], F: int, step: float) -> None:
    """A ring around the slices of each layer that hold what is selected."""
    for layer in sorted({layer for layer, _ in selected}):
        slices = [place * 100 // (step * F) for column, place in selected if column == layer]
        figure.add_shape(
            type="rect", x0=layer - 0.5, x1=layer + 0.5, y0=min(slices) * step, y1=(max(slices) + 1) * step, name="selected",
            line={"color": SELECTED, "width": 2},
        )  # fmt: skip


def slice_edges(units: int, bins: int = BINS) -> np.ndarray:
    """Where the equal slices of a sorted row of units begin, and its end; no more slices than units."""
    return np.linspace(0, units, min(bins, units) + 1).astype(int)


def places_between(y0: float, y1: float, units: int) -> range:
    """Places of the units whose slice of the neuron map has its middle between two heights, in percent."""
    edges = slice_edges(units)
    middle = (np.arange(len(edges) - 1) + 0.5) * 100 / (len(edges) - 1)
    inside = np.flatnonzero((middle >= y0 - 1e-6) & (middle <= y1 + 1e-6))
    return range(edges[inside[0]], edges[inside[-1] + 1]) if len(inside) else range(0)


def binned(sorted_LF: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Means of equal slices of each sorted row, ``[L, bins]``; no more bins than columns."""
    edges = slice_edges(sorted_LF.shape[1], bins)
    return np.add.reduceat(sorted_LF, edges[:-1], axis=1) / np.diff(edges)


def _neuron_table(sorted_LF: np.ndarray, share_L: np.ndarray, pinned_LF: np.ndarray | None) -> pd.DataFrame:
    last = sorted_LF.shape[1] - 1
    quantiles = {f"{q} %": sorted_LF[:, round(last * (100 - q) / 100)] for q in (0, 25, 50, 75, 100)}
    pins = {} if pinned_LF is None else {"pinned": (pinned_LF != 0).sum(axis=1)}
    return pd.DataFrame({"layer": np.arange(len(share_L))} | quantiles | {"importance kept (%)": 100 * share_L} | pins)


def kept_share(
    score_LN: np.ndarray, kept_count: int, pinned_LN: np.ndarray | None = None, sorted_LN: np.ndarray | None = None
) -> np.ndarray:
    """Part of each row's total importance that the ``kept_count`` units hold which stay, ``[L]``, in [0, 1].

    Args:
        sorted_LN: the scores sorted from large to small, if they are there already.
    """
    if pinned_LN is None or not pinned_LN.any():
        kept_LK = (-np.sort(-score_LN, axis=1) if sorted_LN is None else sorted_LN)[:, :kept_count]
    else:
        kept_LK = np.take_along_axis(score_LN, np.argsort(-steered(score_LN, pinned_LN), axis=1, kind="stable")[:, :kept_count], axis=1)
    return kept_LK.sum(axis=1) / np.maximum(score_LN.sum(axis=1), 1e-30)


def _neurons_said(share_L: np.ndarray, layers: int, kept_count: int, F: int) -> str:
    if kept_count == F:
        return f"Neurons of {layers} layers sorted by importance. The draft keeps all of every layer that stays."
    return (
        f"Neurons of {layers} layers sorted by importance. Keeping {kept_count} of {F} keeps between "
        f"{100 * share_L.min(initial=1):.0f} and {100 * share_L.max(initial=0):.0f} % of a layer's importance."
    )


def cut_curve(
    score_N: np.ndarray,
    kept_count: int,
    unit: str,
    undecided_N: np.ndarray | None = None,
    *,
    pinned_N: np.ndarray | None = None,
    selected: Sequence[int] = (),
) -> Picture:
    """Scores from large to small with the cut between what stays and what goes.

    Args:
        unit: the plural noun.
        undecided_N: units that might as well be on the other side of the cut; the places from the first to the last are shaded,
            with a stroke for each.
        pinned_N: 1 for a unit that is pinned to stay, -1 for one pinned to go.
        selected: units to ring.
    """
    N, pinned_N = len(score_N), np.zeros(len(score_N), np.int8) if pinned_N is None else pinned_N
    order = np.argsort(-score_N, kind="stable")
    kept_N = np.zeros(N, bool)
    kept_N[np.argsort(-steered(score_N, pinned_N), kind="stable")[:kept_count]] = True
    table = pd.DataFrame({"place": np.arange(1, N + 1), "index": order, "importance": score_N[order], "kept": kept_N[order]})
    cut = (
        int(table["place"][(kept_N & (pinned_N == 0))[order]].max()) if pinned_N.any() and (kept_N & (pinned_N == 0)).any() else kept_count
    )
    figure = go.Figure()
    if undecided_N is not None:
        table["undecided"] = undecided_N[order]
        _mark_undecided(figure, np.flatnonzero(undecided_N[order]) + 1)
    for part, dash, word in ((slice(0, cut), "solid", "kept"), (slice(max(cut - 1, 0), N), "dot", "pruned")):
        figure.add_scatter(
            x=table["place"][part], y=table["importance"][part], mode="lines", line={"dash": dash, "width": 2, "color": NEUTRAL if word == "pruned" else SERIES},
            name=word, customdata=order[part], hovertemplate=f"place %{{x}}, number %{{customdata}}, {word}<br>importance %{{y:.4g}}<extra></extra>",
        )  # fmt: skip
    if pinned_N.any():
        table["pinned"] = pin_words(pinned_N[order])
    add_pins(figure, table["place"].to_numpy(), score_N[order], pinned_N[order])
    _ring_units(figure, order, score_N, selected)
    plain(figure, 300)
    if kept_count < N:
        _mark_cut(figure, cut + 0.5, f"cut: {kept_count} of {N} stay")
    figure.update_xaxes(title_text=f"{unit}, most important first", range=[0, N + 1])
    figure.update_yaxes(title_text="importance", rangemode="tozero")
    share = float(score_N[kept_N].sum() / max(score_N.sum(), 1e-30))
    return Picture(
        figure=figure, alt=_curve_said(N, share, kept_count, unit, undecided_N) + pins_said(pinned_N, unit.rstrip("s")), table=table
    )


def _ring_units(figure: go.Figure, order: np.ndarray, score_N: np.ndarray, selected: Sequence[int]) -> None:
    """A ring around the places of what is selected."""
    if not len(selected):
        return
    place_N = np.argsort(order)[list(selected)]
    ring = {"symbol": "circle-open", "size": 12, "color": SELECTED, "line": {"width": 2.5}}
    figure.add_scatter(x=place_N + 1, y=score_N[list(selected)], mode="markers", marker=ring, name="selected", hoverinfo="skip")


def _curve_said(N: int, share: float, kept_count: int, unit: str, undecided_N: np.ndarray | None) -> str:
    said = f"The {kept_count} that the draft keeps hold {100 * share:.0f} % of the total." if kept_count < N else "The draft keeps all."
    noise = ""
    if undecided_N is not None and kept_count < N:
        noise = f" For {int(undecided_N.sum())} of them the cut is within the noise{' (shaded)' if undecided_N.any() else ''}."
    return f"Importance of {N} {unit}, sorted. {said}{noise}"


def _mark_undecided(figure: go.Figure, place_N: np.ndarray) -> None:
    """Shade from the first to the last of these places, with a stroke at the foot for each."""
    if not len(place_N):
        return
    figure.add_vrect(
        x0=place_N[0] - 0.5, x1=place_N[-1] + 0.5, fillcolor=SELECTED, opacity=0.12, line_width=0, layer="below", name="undecided"
    )
    strokes = {"symbol": "line-ns-open", "size": 8, "color": SELECTED, "line": {"width": 1}}
    figure.add_scatter(x=place_N, y=np.zeros(len(place_N)), mode="markers", marker=strokes, name="undecided", hoverinfo="skip")


def score_histogram(score_N: np.ndarray, kept_count: int, unit: str) -> Picture:
    """How many units have which score, on a logarithmic scale, with the lowest score that stays."""
    count, edges = np.histogram(np.log10(np.maximum(score_N, 1e-12)), bins=48)
    middle, threshold = (edges[1:] + edges[:-1]) / 2, np.log10(max(-np.sort(-score_N)[kept_count - 1], 1e-12))
    figure = go.Figure(
        go.Bar(
            x=10**middle, y=count, marker={"color": SERIES}, hovertemplate=f"importance about %{{x:.3g}}<br>%{{y}} {unit}<extra></extra>"
        )
    )
    figure.update_traces(width=10 ** edges[1:] - 10 ** edges[:-1])
    plain(figure, 300).update_layout(bargap=0)
    if kept_count < len(score_N):
        _mark_cut(figure, 10**threshold, f"cut at {number(10**threshold)}", log=True)
    values = log_ticks(10 ** edges[0], 10 ** edges[-1])
    figure.update_xaxes(title_text="importance (logarithmic)", type="log")
    if len(values) > 1:
        figure.update_xaxes(tickvals=values, ticktext=[f"{value:g}" for value in values])
    figure.update_yaxes(title_text=unit)
    alt = f"Histogram of the importance of {len(score_N)} {unit}; most lie near {number(float(10 ** middle[np.argmax(count)]))}."
    return Picture(figure=figure, alt=alt, table=pd.DataFrame({"from": 10 ** edges[:-1], "to": 10 ** edges[1:], unit: count}))


def _mark_cut(figure: go.Figure, x: float, text: str, log: bool = False) -> None:
    figure.add_vline(x=x, line={"color": SELECTED, "width": 2, "dash": "dash"})
    figure.add_annotation(
        x=np.log10(x) if log else x,
        y=1,
        yref="paper",
        text=text,
        showarrow=False,
        xanchor="right",
        xshift=-6,
        yanchor="top",
        font={"color": SELECTED},
    )
