"""How a picture comes on the page: one technique for every chart, with its alternative text and its table.

Streamlit's own Plotly element is built anew whenever its figure changes: it forgets the zoom, and it tells nobody of a click on a
heat map. Charts are therefore drawn by a small component that updates Plotly in place. It needs Plotly's library among the static
files; where these are not served, Streamlit's own element stands in, with invisible marks over the cells of a map to click on.
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly
import plotly.graph_objects as go
import plotly.io as pio
import streamlit as st

from app import state
from app.ui import as_table
from core.errors import UserError
from core.files import replacing
from core.report.picture import CLEAR, Picture

CONFIG: dict[str, Any] = {
    "displaylogo": False, "displayNotifier": False, "responsive": True,
    "showSendToCloud": False, "plotlyServerURL": "",  # Plotly's default offers to send the chart's data to its own servers
    "modeBarButtonsToRemove": ["lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"], "toImageButtonOptions": {"format": "svg"},
}  # fmt: skip
pio.templates.default = None
"""Pages dress the figures themselves (chart.js); Plotly's own template would cost each figure 14 ms and be thrown away."""
LIBRARY = Path(__file__).parent / "static" / "plotly.min.js"
MOST_MARKS = 2048
"""Cells up to which the stand-in can be clicked; more such marks take seconds to draw."""


@dataclass(frozen=True)
class Area:
    """What was meant by a click, which has no extent, or by a box, in the chart's own coordinates."""

    x0: float
    x1: float
    y0: float
    y1: float

    def columns(self, count: int) -> range:
        """Whole numbers below ``count`` from left to right in it."""
        return _whole(self.x0, self.x1, count)

    def rows(self, count: int) -> range:
        """Whole numbers below ``count`` from top to bottom in it."""
        return _whole(self.y0, self.y1, count)


def _whole(low: float, high: float, count: int) -> range:
    return range(max(math.ceil(low - 1e-6), 0), min(math.floor(high + 1e-6), count - 1) + 1)


def show(picture: Picture, name: str, chosen: Callable[[Area], None] | None = None) -> None:
    """Draw a picture, with a switch to its table below.

    Args:
        chosen: receives what the user clicks or boxes. What is selected is kept by it (in the session) and drawn into the next
            figure. Every such chart needs a control beside it that does the same from the keyboard.
    """
    if st.get_option("server.enableStaticServing") and _library_is_served():
        _in_place(picture, name, chosen)
    else:
        _stand_in(picture, name, chosen)
    as_table(picture.table, name, picture.alt)


def _in_place(picture: Picture, name: str, chosen: Callable[[Area], None] | None) -> None:
    """Draw by the component."""
    figure, key = json.loads(picture.figure.to_json()), f"chart_{name}"

    def told() -> None:
        area = st.session_state[key].get("area")
        if chosen is not None and area is not None:
            chosen(Area(*map(float, area)))

    config = CONFIG | ({"modeBarButtonsToAdd": ["select2d"]} if chosen else {})
    _component()(
        data={"figure": figure, "alt": picture.alt, "name": name, "config": config, "selectable": chosen is not None},
        key=key, height=figure["layout"]["height"], on_area_change=told,
    )  # fmt: skip


@st.cache_resource
def _component() -> Callable[..., object]:
    """The chart component, registered once."""
    script = (Path(__file__).parent / "chart.js").read_text(encoding="utf-8")
    html = '<div class="coppice-chart" role="figure"></div>\n'
    return st.components.v2.component("coppice_chart", html=html, js=script, isolate_styles=False)


@st.cache_resource
def _library_is_served() -> bool:
    """Whether Plotly's library lies among the static files; puts it there if it can."""
    source = Path(plotly.__file__).parent / "package_data" / LIBRARY.name
    try:
        if not LIBRARY.exists() or LIBRARY.stat().st_size != source.stat().st_size:
            with replacing(LIBRARY) as temporary:
                shutil.copyfile(source, temporary)
    except (OSError, UserError):
        return False
    return True


def _stand_in(picture: Picture, name: str, chosen: Callable[[Area], None] | None) -> None:
    """Draw by Streamlit's own element. It forgets a selection without saying so whenever the figure changes."""
    key = f"chart_{name}"
    if chosen is None:
        st.plotly_chart(picture.figure, key=key, config=CONFIG, alt=picture.alt)
        return

    def selected() -> None:
        if points := state.chart_points(key):
            x, y = zip(*points, strict=True)
            chosen(Area(min(x), max(x), min(y), max(y)))

    figure = _with_marks(picture)
    st.plotly_chart(figure, key=key, config=CONFIG, alt=picture.alt, on_select=selected, selection_mode=("points", "box"))


def _with_marks(picture: Picture) -> go.Figure:
    """The figure with an invisible square over every cell of its map: a heat map itself tells Streamlit nothing."""
    if picture.cells is None or picture.cells[0] * picture.cells[1] > MOST_MARKS:
        return picture.figure
    y, x = np.divmod(np.arange(picture.cells[0] * picture.cells[1]), picture.cells[0])
    blank = {"marker": {"opacity": 0}}
    marks = go.Scatter(x=x, y=y, mode="markers", marker={"symbol": "square", "size": 20, "color": CLEAR}, hoverinfo="none",
                       name="cell", selected=blank, unselected=blank)  # fmt: skip
    return go.Figure(picture.figure).add_trace(marks)
