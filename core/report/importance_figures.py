"""Importance of layers and heads as pictures, with what the draft keeps and cuts.

Layers run from left to right in every picture. Whatever the draft removes is hollow or crossed, never only another colour.
Arrays carry their axes in their name: L layers, H query heads of a layer, N units of one kind.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.report.format import listed, number, plural
from core.report.picture import (
    CLEAR,
    NEUTRAL,
    SELECTED,
    SERIES,
    Picture,
    add_pins,
    linear_colours,
    log_colours,
    pin_words,
    pins_said,
    plain,
    shades,
    ticks,
)
from core.score.agreement import ranks
from core.score.criteria import criteria_of

FADED = 0.3
"""Opacity of what is cut."""


def layer_bars(
    scores: dict[str, np.ndarray], kept_L: np.ndarray, *, pinned_L: np.ndarray | None = None, selected: Sequence[int] = ()
) -> Picture:
    """Bars of each depth criterion in ``scores`` (by name), in panels with their own units; removed layers are hollow.

    Args:
        kept_L: True where the draft keeps the layer.
        pinned_L: 1 for a layer that is pinned to stay, -1 for one pinned to go.
        selected: layers to shade.

    A layer that may not be removed has no finite value and no bar.

    A few layers, mostly the first and the last, may tower over the rest; their bars are cut off and carry their value, so
    that those among which the choice is made can be told apart.
    """
    about = criteria_of("layers")
    titles = [", ".join(filter(None, (about[name].title, about[name].unit))) for name in scores]
    figure = make_subplots(rows=len(scores), shared_xaxes=True, vertical_spacing=0.22, subplot_titles=titles)
    figure.update_annotations(x=0, xanchor="left", yshift=16, font={"size": 13})
    layers = np.arange(len(kept_L))
    for row, (measure, found_L) in enumerate(scores.items(), start=1):
        score_L = np.where(np.isfinite(found_L), found_L, np.nan)
        for kept, word in ((True, "kept"), (False, "removed in this draft")):
            chosen = kept_L == kept
            figure.add_bar(
                x=layers[chosen], y=score_L[chosen], row=row, col=1, name=word, marker=_bar_marker(kept),
                hovertemplate=f"layer %{{x}}, {word}<br>{about[measure].title.lower()} %{{y:.3g}}<extra></extra>",
            )  # fmt: skip
        _cut_off(figure, score_L, row)
    for layer in selected:
        figure.add_vrect(x0=layer - 0.5, x1=layer + 0.5, fillcolor=SELECTED, opacity=0.18, line_width=0, layer="below", name="selected")
    if pinned_L is not None:
        add_pins(figure, layers, np.zeros(len(layers)), pinned_L)
    plain(figure, 200 * len(scores) + 50).update_layout(barmode="overlay", margin={"t": 44})
    figure.update_xaxes(tickvals=ticks(len(layers), 32), range=[-0.6, len(layers) - 0.4])
    figure.update_xaxes(title_text="layer", row=len(scores), col=1)
    table = pd.DataFrame({"layer": layers} | {about[m].title: s for m, s in scores.items()} | {"kept": kept_L})
    gone = f"The draft removes {plural(int((~kept_L).sum()), 'layer')}." if not kept_L.all() else "The draft keeps all layers."
    gone += pins_said(pinned_L, "layer")
    if pinned_L is not None:
        table["pinned"] = pin_words(pinned_L)
    return Picture(figure=figure, alt=" ".join([*(_layers_said(m, s) for m, s in scores.items()), gone]), table=table)


def _bar_marker(kept: bool) -> dict[str, object]:
    return {"color": SERIES} if kept else {"color": CLEAR, "line": {"color": NEUTRAL, "width": 1.5}}


def _cut_off(figure: go.Figure, score_L: np.ndarray, row: int) -> None:
    """End the axis where most layers end, and write the value of those that go on."""
    if np.isnan(score_L).all():
        return
    low, top = min(float(np.nanmin(score_L)), 0.0), 1.6 * float(np.nanquantile(score_L, 0.85))
    if top <= 0 or np.nanmax(score_L) <= 1.5 * top:
        return
    figure.update_yaxes(range=[low, top], row=row, col=1)
    for layer in np.flatnonzero(score_L > top):
        figure.add_annotation(
            x=layer,
            y=top,
            text=f"{number(float(score_L[layer]), digits=2)} ↑",
            showarrow=False,
            textangle=-90,  # along the bar: beside each other, those of neighbours would run into one another
            yanchor="top",
            yshift=-3,
            font={"size": 11, "color": "#0D110F"},
            bgcolor="rgba(255,255,255,0.85)",
            row=row,
            col=1,
        )


def _layers_said(measure: str, score_L: np.ndarray) -> str:
    least = listed([str(i) for i in np.argsort(score_L, kind="stable")[:3]])
    most = int(np.argmax(np.where(np.isfinite(score_L), score_L, -np.inf)))
    return f"{criteria_of('layers')[measure].title} is least for layers {least}, and most for layer {most}."


def head_map(
    score_LH: np.ndarray,
    kept_LH: np.ndarray,
    *,
    group: int = 1,
    within_layer: bool = True,
    selected: Sequence[tuple[int, int]] = (),
    undecided_LH: np.ndarray | None = None,
    pinned_LH: np.ndarray | None = None,
    overlay: bool = True,
) -> Picture:
    """Heat map of the heads, hollow and crossed where the draft cuts.

    Args:
        score_LH: importance.
        kept_LH: True where the draft keeps the head.
        group: query heads that share a key-value head; lines part the groups.
        within_layer: colour by the share of the layer's largest score, else by the score itself on a logarithmic scale.
        selected: (layer, head) pairs to ring.
        undecided_LH: heads that might as well be on the other side of the cut; each gets a small dot in its corner.
        pinned_LH: 1 for a head that is pinned to stay, -1 for one pinned to go.
        overlay: whether what is cut is shown; else every head has its colour.
    """
    L, H = score_LH.shape
    shade_LH, meaning = shades(score_LH, within_layer)
    colour_LH, scale = (shade_LH, linear_colours(shade_LH, meaning)) if within_layer else log_colours(shade_LH, meaning)
    figure, table = go.Figure(), head_table(score_LH, kept_LH)
    filled_LH = kept_LH if overlay else np.ones_like(kept_LH)
    figure.add_trace(_head_cells(colour_LH, table, filled_LH, pinned_LH))
    if not filled_LH.all():
        figure.add_trace(_head_cells(colour_LH, table, ~filled_LH, pinned_LH).update(opacity=FADED))
        figure.add_trace(_crosses(~filled_LH))
    if undecided_LH is not None and undecided_LH.any():
        figure.add_trace(_dots(undecided_LH))
    for x, y in selected:
        figure.add_shape(type="rect", x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line={"color": SELECTED, "width": 3}, name="selected")
    if pinned_LH is not None:
        layer_N, head_N = np.divmod(np.arange(L * H), H)
        add_pins(figure, layer_N - 0.32, head_N - 0.3, pinned_LH.ravel())
    for edge in range(group, H if group > 1 else 0, group):
        figure.add_hline(y=edge - 0.5, line={"color": NEUTRAL, "width": 1.5})
    plain(figure, max(260, min(34 * H, 640)) + 90).update_layout(coloraxis=scale, margin={"t": 40}, dragmode=None)
    figure.update_xaxes(title_text="layer", tickvals=ticks(L, 32), range=[-0.5, L - 0.5], fixedrange=True)
    figure.update_yaxes(
        title_text="head" if group == 1 else f"head (KV groups of {group})",
        tickvals=ticks(H),
        range=[H - 0.5, -0.5],
        showgrid=False,
        fixedrange=True,
    )
    if undecided_LH is not None:
        table["undecided"] = undecided_LH.ravel()
    if pinned_LH is not None:
        table["pinned"] = pin_words(pinned_LH.ravel())
    return Picture(figure=figure, alt=_heads_said(score_LH, kept_LH) + pins_said(pinned_LH, "head"), table=table, cells=(L, H))


def _head_cells(colour_LH: np.ndarray, table: pd.DataFrame, shown_LH: np.ndarray, pinned_LH: np.ndarray | None) -> go.Heatmap:
    """The cells of some heads, each with its story for who points at it."""
    L, H = shown_LH.shape
    fate = np.where(table["kept"], "kept", "pruned") if pinned_LH is None else pin_words(pinned_LH.ravel(), table["kept"].to_numpy())
    story = np.stack([table["importance"], table["rank in layer"]], axis=1).reshape(L, H, 2).swapaxes(0, 1)
    return go.Heatmap(
        z=np.where(shown_LH, colour_LH, np.nan).T.astype(np.float32), coloraxis="coloraxis", xgap=2, ygap=2, hoverongaps=False,
        customdata=story.astype(np.float32), text=fate.reshape(L, H).T,
        hovertemplate=f"layer %{{x}}, head %{{y}}: %{{text}}<br>importance %{{customdata[0]:.4g}}<br>rank %{{customdata[1]}} of {H} in its layer<extra></extra>",
    )  # fmt: skip


def _crosses(cut_LH: np.ndarray) -> go.Scatter:
    """A thin cross over every cell that is cut: one broken line, which a browser draws faster than a mark for each."""
    layer_N, head_N = np.nonzero(cut_LH)
    gap_N = np.full(len(layer_N), np.nan)
    x = np.stack([layer_N - 0.2, layer_N + 0.2, gap_N, layer_N - 0.2, layer_N + 0.2, gap_N], axis=1)
    y = np.stack([head_N - 0.15, head_N + 0.15, gap_N, head_N + 0.15, head_N - 0.15, gap_N], axis=1)
    return go.Scatter(x=x.ravel(), y=y.ravel(), mode="lines", name="pruned", line={"width": 1.5, "color": NEUTRAL}, hoverinfo="skip")


def _dots(undecided_LH: np.ndarray) -> go.Scatter:
    """A dot that shows on every colour of the map, in the upper right corner of a cell."""
    layer_N, head_N = np.nonzero(undecided_LH)
    marker = {"size": 7, "color": "#FFFFFF", "line": {"color": "#1C211E", "width": 1.5}}
    return go.Scatter(x=layer_N + 0.32, y=head_N - 0.3, mode="markers", name="undecided", marker=marker, hoverinfo="skip")


def head_table(score_LH: np.ndarray, kept_LH: np.ndarray) -> pd.DataFrame:
    """One row a head: layer, head, importance, rank in its layer (1 is the most important), percentile among all heads, kept."""
    L, H = score_LH.shape
    layer, head = np.divmod(np.arange(L * H), H)
    percentile = 100 * ranks(-score_LH.ravel()[None])[0] / (L * H)
    return pd.DataFrame(
        {"layer": layer, "head": head, "importance": score_LH.ravel(), "rank in layer": ranks(score_LH).ravel(),
         "percentile": percentile, "kept": kept_LH.ravel()}
    )  # fmt: skip


def _heads_said(score_LH: np.ndarray, kept_LH: np.ndarray) -> str:
    L, H = score_LH.shape
    layer, head = np.unravel_index(int(np.argmax(score_LH)), score_LH.shape)
    least = np.unravel_index(int(np.argmin(score_LH)), score_LH.shape)
    gone = f"The draft prunes {int((~kept_LH).sum())} of {L * H}." if not kept_LH.all() else "The draft keeps all."
    return f"Importance of {H} heads in each of {L} layers: most for layer {layer} head {head}, least for layer {least[0]} head {least[1]}. {gone}"
