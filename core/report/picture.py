"""A chart with what makes it readable without eyes: its takeaway in a sentence, and its numbers as a table.

Figures leave surfaces, fonts and the colours of series to the theme of whoever shows them. What carries meaning is fixed
here: cividis for importance, a mid grey that holds against white and black for outlines, vermilion for what is selected.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

CIVIDIS = "Cividis"
NEUTRAL = "#7E8782"
"""Outlines, crosses and cut lines: contrast of 3.7 on white and of 4.8 on the dark page."""
SERIES = "#2B83BA"
"""The one series of a chart: a blue with a contrast of about 4 on white and on the dark page."""
SELECTED = "#D55E00"
"""Vermilion of Okabe-Ito: what the user pointed at."""
CLEAR = "rgba(0,0,0,0)"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One chart."""

    figure: go.Figure
    alt: str
    """What the chart shows and what follows from it, for a screen reader."""
    table: pd.DataFrame
    """The same numbers, a row a mark."""
    cells: tuple[int, int] | None = None
    """Columns and rows of a map with a unit in each cell, at whole numbers from 0; None for other charts."""


def plain(figure: go.Figure, height: int) -> go.Figure:
    """Give a figure the house layout: tight margins, no title (the page has one), quiet axes."""
    figure.update_layout(
        height=height, margin={"l": 8, "r": 16, "t": 16, "b": 8}, showlegend=False, hovermode="closest", bargap=0.25, dragmode=False,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
    )  # fmt: skip
    figure.update_xaxes(showgrid=False, zeroline=False, ticks="outside", ticklen=4, tickcolor=NEUTRAL, title_standoff=8, automargin=True)
    figure.update_yaxes(zeroline=False, ticks="outside", ticklen=4, tickcolor=NEUTRAL, title_standoff=12, automargin=True)
    return figure


PIN_SYMBOLS = {1: ("diamond", "pinned to stay"), -1: ("x", "pinned to go")}
"""What a pin says -> the mark that shows it, and its name; the marks are white with a dark rim, which shows on every colour."""


def add_pins(figure: go.Figure, x_N: np.ndarray, y_N: np.ndarray, pinned_N: np.ndarray) -> None:
    """Mark what is pinned: ``pinned_N`` is 1 for a unit that stays, -1 for one that goes, 0 for one that is free."""
    for sign, (symbol, word) in PIN_SYMBOLS.items():
        if (here := pinned_N == sign).any():
            marker = {"symbol": symbol, "size": 9, "color": "#FFFFFF", "line": {"color": "#1C211E", "width": 1.5}}
            figure.add_scatter(x=x_N[here], y=y_N[here], mode="markers", name=word, marker=marker, hoverinfo="skip", cliponaxis=False)


def pins_said(pinned: np.ndarray | None, noun: str) -> str:
    """How many units are pinned; empty if none is."""
    if pinned is None or not pinned.any():
        return ""
    counts = ((int((pinned == sign).sum()), word, symbol) for sign, (symbol, word) in PIN_SYMBOLS.items())
    parts = [f"{count} {word} ({symbol})" for count, word, symbol in counts if count]
    return f" Of the {noun}s, {' and '.join(parts)} by hand."


def pin_words(pinned_N: np.ndarray, kept_N: np.ndarray | None = None) -> np.ndarray:
    """What became of every unit: whether it is pinned, and if not, whether it is kept (nothing where that is not asked)."""
    free = np.full(pinned_N.shape, "", object) if kept_N is None else np.where(kept_N, "kept", "pruned").astype(object)
    for sign, (_, word) in PIN_SYMBOLS.items():
        free[pinned_N == sign] = word
    return free


def ticks(n: int, most: int = 16) -> list[int]:
    """Whole numbers from 0 below ``n`` for an axis, at most about ``most``, in steps that people count in."""
    step = next(step for step in (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100, 128, n) if n / step <= most)
    return list(range(0, n, step))


def colour_bar(title: str) -> dict[str, object]:
    """A slim colour scale with its title on top."""
    return {"title": {"text": title, "side": "top", "font": {"size": 12}}, "thickness": 12, "outlinewidth": 0, "len": 1.0}


def shades(score_LN: np.ndarray, within_layer: bool) -> tuple[np.ndarray, str]:
    """What colours stand for, and its name: each score's share of the largest in its row, or the scores themselves."""
    if not within_layer:
        return score_LN, "importance"
    return score_LN / np.maximum(score_LN.max(axis=1, keepdims=True), 1e-30), "share of the<br>layer's largest"


def linear_colours(values: np.ndarray, title: str) -> dict[str, object]:
    """A colour axis from zero to the largest value."""
    return {"colorscale": CIVIDIS, "cmin": 0, "cmax": max(float(values.max()), 1e-30), "colorbar": colour_bar(title)}


def log_colours(values: np.ndarray, title: str) -> tuple[np.ndarray, dict[str, object]]:
    """Values as what a colour axis shows on a logarithmic scale, and that axis with round numbers of the values themselves.

    The lowest fiftieth of the values, zeros among them, share the darkest colour.
    """
    top = max(float(values.max()), 1e-30)
    bottom = max(float(np.quantile(values, 0.02)), top * 1e-4)
    marks = log_ticks(bottom, top)
    bar = colour_bar(title) | {"tickvals": np.log10(marks), "ticktext": [f"{mark:g}" for mark in marks]}
    return np.log10(np.maximum(values, bottom)), {"colorscale": CIVIDIS, "cmin": np.log10(bottom), "cmax": np.log10(top), "colorbar": bar}


def log_ticks(low: float, high: float) -> list[float]:
    """Round values (1, 2, 5 and their tens; only tens over a wide range) between two positive ones, for a logarithmic axis."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = (1, 2, 5) if len(powers) <= 5 else (1,)
    return [value for power in powers for step in steps if low <= (value := float(f"{step}e{power}")) <= high]
