"""How a picture comes on the page: the same tools, alternative text and table for every chart."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from app import state
from app.ui import as_table
from core.report.picture import Picture

CONFIG: dict[str, Any] = {
    "displaylogo": False, "displayNotifier": False,
    "modeBarButtonsToRemove": ["lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"], "toImageButtonOptions": {"format": "svg"},
}  # fmt: skip


def show(picture: Picture, name: str) -> None:
    """Draw a picture, with a switch to its table below."""
    st.plotly_chart(picture.figure, key=f"chart_{name}", config=CONFIG, alt=picture.alt)
    as_table(picture.table, name, picture.alt)


def show_selectable(picture: Picture, name: str, chosen: Callable[[list[tuple[int, int]]], None]) -> None:
    """Draw a picture whose cells can be clicked or boxed; ``chosen`` receives their (x, y) pairs.

    Streamlit forgets a selection without saying so whenever the figure changes, so what is selected is kept by ``chosen``
    (in the session) and drawn into the figure.
    """
    key = f"chart_{name}"

    def selected() -> None:
        points = state.chart_points(key)
        if points:
            chosen(points)

    st.plotly_chart(picture.figure, key=key, config=CONFIG, alt=picture.alt, on_select=selected, selection_mode=("points", "box"))
    as_table(picture.table, name, picture.alt)


def show_picks(picture: Picture, name: str, chosen: Callable[[list[int]], None]) -> None:
    """Draw a picture whose marks carry a number each (``customdata``); ``chosen`` receives the numbers that were clicked or boxed."""
    key = f"chart_{name}"

    def selected() -> None:
        if numbers := state.chart_numbers(key):
            chosen(numbers)

    st.plotly_chart(picture.figure, key=key, config=CONFIG, alt=picture.alt, on_select=selected, selection_mode=("points", "box"))
