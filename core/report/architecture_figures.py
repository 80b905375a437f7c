"""A model's build as pictures: where its parameters are, and what it looks like before and after the cut."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core.model.dims import Dims
from core.report.format import count, percent
from core.report.picture import CLEAR, NEUTRAL, SERIES, Picture, plain, ticks

PART_NAMES = {"embeddings": "Embeddings", "attention": "Attention", "mlp": "MLP", "norms": "Norms", "head": "Output head"}
OUTLINE = {"color": CLEAR, "line": {"color": NEUTRAL, "width": 1}}
MOST_HEADS = 40
"""Above this many heads a column of squares would be a smear; the strip then shows bars of their number."""


def parameter_bar(parts: dict[str, int]) -> Picture:
    """One bar of all parameters, parted by what they belong to; parts of nothing (a tied head) are left out."""
    shown = {PART_NAMES.get(name, name): size for name, size in parts.items() if size}
    total = sum(shown.values())
    figure = go.Figure()
    for name, size in shown.items():
        wide = size / total > 0.06
        figure.add_bar(
            x=[size], y=[""], orientation="h", name=name, text=f"{name}<br>{count(size)} · {percent(size / total)}" if wide else "",
            textposition="inside", insidetextanchor="middle", hovertemplate=f"{name}<br>{count(size)}, {percent(size / total)}<extra></extra>",
        )  # fmt: skip
    plain(figure, 64).update_layout(barmode="stack", margin={"l": 0, "r": 0, "t": 0, "b": 0}, bargap=0)
    figure.update_xaxes(range=[0, total], visible=False)
    figure.update_yaxes(visible=False)
    table = pd.DataFrame(
        {"part": list(shown), "parameters": list(shown.values()), "share (%)": [100 * size / total for size in shown.values()]}
    )
    alt = f"{count(total)} parameters: " + ", ".join(f"{name.lower()} {percent(size / total)}" for name, size in shown.items()) + "."
    return Picture(figure=figure, alt=alt, table=table)


def architecture_strip(before: Dims, after: Dims, kept_L: np.ndarray | None = None, heads_LH: np.ndarray | None = None) -> Picture:
    """One column a layer: its height is the FFN width, its breadth the hidden size, with the attention heads as squares below.

    Outlines are the uncut model, filled is what stays; a removed layer is outline only.

    Args:
        before: dimensions of the uncut model.
        after: dimensions after the cut.
        kept_L: which layers stay; None if that is not known yet, then the first ones stand for any.
        heads_LH: which heads stay; None draws the first ones.
    """
    kept_L = np.arange(before.layers) < after.layers if kept_L is None else kept_L
    if heads_LH is None:
        heads_LH = kept_L[:, None] & (np.arange(before.heads) < after.heads)[None]
    figure = go.Figure(data=[*_layer_bars(before, after, kept_L), *_head_marks(before, heads_LH)], layout=_strip_layout(before))
    return Picture(figure=figure, alt=_strip_said(before, after, kept_L), table=_strip_table(before, after, kept_L, heads_LH))


def _layer_bars(before: Dims, after: Dims, kept_L: np.ndarray) -> list[dict[str, Any]]:
    """A hollow bar for each layer of the uncut model, and within it a filled one for what stays."""
    layers = np.arange(before.layers)
    filled = {
        "x": layers[kept_L], "y": np.full(int(kept_L.sum()), after.ffn), "width": 0.86 * after.hidden / before.hidden, "name": "after", "marker": {"color": SERIES},
        "hovertemplate": f"layer %{{x}}<br>{after.ffn} of {before.ffn} neurons, {after.heads} of {before.heads} heads, {after.hidden} channels<extra></extra>",
    }  # fmt: skip
    hollow = {"x": layers, "y": np.full(before.layers, before.ffn), "width": 0.86, "marker": OUTLINE, "name": "before", "hoverinfo": "skip"}
    return [{"type": "bar"} | hollow, {"type": "bar"} | filled]


def _head_marks(before: Dims, heads_LH: np.ndarray) -> list[dict[str, Any]]:
    """A square for each head, or where there are many a bar of their number for each layer."""
    below = {"xaxis": "x2", "yaxis": "y2"}
    if before.heads <= MOST_HEADS:
        size = max(3.0, min(8.0, 100 / before.heads))
        return [below | _squares(heads_LH, kept, size) for kept in (True, False)]
    layers = np.arange(before.layers)
    hollow = {"x": layers, "y": np.full(before.layers, before.heads), "width": 0.86, "marker": OUTLINE, "hoverinfo": "skip"}
    filled = {
        "x": layers,
        "y": heads_LH.sum(axis=1),
        "width": 0.86,
        "marker": {"color": SERIES},
        "hovertemplate": "layer %{x}: %{y} heads<extra></extra>",
    }
    return [{"type": "bar"} | below | bars for bars in (hollow, filled)]


def _squares(heads_LH: np.ndarray, kept: bool, size: float) -> dict[str, Any]:
    """Heads that stay, or that go, as squares at (layer, head)."""
    layer, head = np.nonzero(heads_LH == kept)
    look = {"symbol": "square", "color": SERIES} if kept else {"symbol": "square-open", "color": NEUTRAL, "line": {"width": 1}}
    return {"type": "scatter", "x": layer, "y": head, "mode": "markers", "name": "head kept" if kept else "head cut", "marker": look | {"size": size},
            "hovertemplate": f"layer %{{x}}, head %{{y}}: {'kept' if kept else 'cut'}<extra></extra>"}  # fmt: skip


def _strip_layout(before: Dims) -> dict[str, Any]:
    """Two rows above one axis of layers. Written out and handed over at once: it is drawn at every move of a slider, and Plotly's updates cost
    ten times as much. Margins are fixed, as automatic ones make the browser lay the chart out twice.
    """
    axis = {"zeroline": False, "ticks": "outside", "ticklen": 4, "tickcolor": NEUTRAL}
    across = axis | {"showgrid": False, "range": [-0.6, before.layers - 0.4], "tickvals": ticks(before.layers, 32)}
    return {
        "height": 330, "margin": {"l": 64, "r": 16, "t": 16, "b": 48}, "showlegend": False, "hovermode": "closest", "bargap": 0.25, "dragmode": False,
        "barmode": "overlay", "xaxis": across | {"anchor": "y", "matches": "x2", "showticklabels": False},
        "xaxis2": across | {"anchor": "y2", "title": {"text": "layer", "standoff": 8}},
        "yaxis": axis | {"anchor": "x", "domain": [0.411, 1.0], "range": [0, before.ffn * 1.03], "title": {"text": "FFN neurons", "standoff": 12}},
        "yaxis2": axis | {"anchor": "x2", "domain": [0.0, 0.361], "range": [before.heads - 0.4, -0.6], "tickvals": ticks(before.heads, 6), "showgrid": False,
                          "title": {"text": "heads", "standoff": 12}},
    }  # fmt: skip


def _strip_said(before: Dims, after: Dims, kept_L: np.ndarray) -> str:
    gone = ", ".join(map(str, np.flatnonzero(~kept_L))) or "none"
    return (
        f"{after.layers} of {before.layers} layers stay (removed: {gone}), each with {after.ffn} of {before.ffn} neurons and "
        f"{after.heads} of {before.heads} heads, at hidden size {after.hidden} of {before.hidden}."
    )


def _strip_table(before: Dims, after: Dims, kept_L: np.ndarray, heads_LH: np.ndarray) -> pd.DataFrame:
    heads = [", ".join(map(str, np.flatnonzero(row))) for row in heads_LH]
    return pd.DataFrame(
        {"layer": np.arange(before.layers), "kept": kept_L, "FFN neurons": np.where(kept_L, after.ffn, 0), "heads kept": heads}
    )
