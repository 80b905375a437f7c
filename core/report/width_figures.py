"""Importance of neurons and embedding channels as pictures: many units, so each is shown by its place in the sorted order.

Layers run from left to right, most important units on top or first; a dashed line parts what the draft keeps from what it cuts.
L layers, F neurons of a layer, N units of one kind, Q quantiles.
"""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core.report.format import number
from core.report.picture import NEUTRAL, SELECTED, SERIES, Picture, log_colours, log_ticks, plain, shades, ticks

BINS = 256
"""Quantiles of a layer's neurons that the map shows."""


def neuron_map(score_LF: np.ndarray, kept_count: int, kept_L: np.ndarray, *, within_layer: bool = True) -> Picture:
    """Layers x sorted quantiles of their neurons, most important on top, with the line below which the draft cuts.

    Args:
        score_LF: importance.
        kept_count: neurons that the draft keeps in every kept layer.
        kept_L: False where the draft removes the whole layer; such columns are faded and crossed.
    """
    L, F = score_LF.shape
    bins_LQ = sorted_bins(score_LF)
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
    plain(figure, 440).update_layout(coloraxis=scale, margin={"t": 40})
    if kept_count < F:
        figure.add_hline(y=100 * kept_count / F, line={"color": SELECTED, "width": 2, "dash": "dash"})
        said = {"text": f"below the dashed line: cut, {kept_count} of {F} stay", "font": {"color": SELECTED}, "showarrow": False}
        figure.add_annotation(said, x=1, xref="paper", xanchor="right", y=1, yref="paper", yanchor="bottom")
    figure.update_xaxes(title_text="layer", tickvals=ticks(L, 32), range=[-0.5, L - 0.5])
    figure.update_yaxes(title_text="neurons, most important first (%)", range=[100, 0], showgrid=False)
    return Picture(figure=figure, alt=_neurons_said(score_LF, kept_count, kept_L), table=_neuron_table(score_LF, kept_count, kept_L))


def sorted_bins(score_LF: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Means of ``bins`` equal slices of each row sorted from large to small, ``[L, bins]``; no more bins than columns."""
    sorted_LF = -np.sort(-score_LF, axis=1)
    edges = np.linspace(0, score_LF.shape[1], min(bins, score_LF.shape[1]) + 1).astype(int)
    return np.add.reduceat(sorted_LF, edges[:-1], axis=1) / np.diff(edges)


def _neuron_table(score_LF: np.ndarray, kept_count: int, kept_L: np.ndarray) -> pd.DataFrame:
    quantiles = {f"{q} %": np.quantile(score_LF, q / 100, axis=1) for q in (0, 25, 50, 75, 100)}
    share = kept_share(score_LF, kept_count)
    return pd.DataFrame({"layer": np.arange(len(kept_L))} | quantiles | {"importance kept (%)": 100 * np.where(kept_L, share, 0.0)})


def kept_share(score_LN: np.ndarray, kept_count: int) -> np.ndarray:
    """Part of each row's total importance that its ``kept_count`` largest units hold, ``[L]``, in [0, 1]."""
    sorted_LN = -np.sort(-score_LN, axis=1)
    return sorted_LN[:, :kept_count].sum(axis=1) / np.maximum(sorted_LN.sum(axis=1), 1e-30)


def _neurons_said(score_LF: np.ndarray, kept_count: int, kept_L: np.ndarray) -> str:
    share_L = kept_share(score_LF, kept_count)[kept_L]
    if kept_count == score_LF.shape[1]:
        return f"Neurons of {len(kept_L)} layers sorted by importance. The draft keeps all of every layer that stays."
    return (
        f"Neurons of {len(kept_L)} layers sorted by importance. Keeping {kept_count} of {score_LF.shape[1]} keeps between "
        f"{100 * share_L.min(initial=1):.0f} and {100 * share_L.max(initial=0):.0f} % of a layer's importance."
    )


def cut_curve(score_N: np.ndarray, kept_count: int, unit: str, undecided_N: np.ndarray | None = None) -> Picture:
    """Scores from large to small with the cut between what stays and what goes.

    Args:
        unit: the plural noun.
        undecided_N: units that might as well be on the other side of the cut; the places from the first to the last are shaded,
            with a stroke for each.
    """
    N = len(score_N)
    order = np.argsort(-score_N, kind="stable")
    table = pd.DataFrame({"place": np.arange(1, N + 1), "index": order, "importance": score_N[order], "kept": np.arange(N) < kept_count})
    figure = go.Figure()
    if undecided_N is not None:
        table["undecided"] = undecided_N[order]
        _mark_undecided(figure, np.flatnonzero(undecided_N[order]) + 1)
    for part, dash, word in ((slice(0, kept_count), "solid", "kept"), (slice(max(kept_count - 1, 0), N), "dot", "pruned")):
        figure.add_scatter(
            x=table["place"][part], y=table["importance"][part], mode="lines", line={"dash": dash, "width": 2, "color": NEUTRAL if word == "pruned" else SERIES},
            name=word, hovertemplate=f"place %{{x}}, {word}<br>importance %{{y:.4g}}<extra></extra>",
        )  # fmt: skip
    plain(figure, 300)
    if kept_count < N:
        _mark_cut(figure, kept_count + 0.5, f"cut: {kept_count} of {N} stay")
    figure.update_xaxes(title_text=f"{unit}, most important first", range=[0, N + 1])
    figure.update_yaxes(title_text="importance", rangemode="tozero")
    return Picture(figure=figure, alt=_curve_said(score_N, kept_count, unit, undecided_N), table=table)


def _curve_said(score_N: np.ndarray, kept_count: int, unit: str, undecided_N: np.ndarray | None) -> str:
    N, share = len(score_N), kept_share(score_N[None], kept_count)[0]
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
