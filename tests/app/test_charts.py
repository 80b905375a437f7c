"""How a picture comes on the page: what is clicked is told in the chart's coordinates, and the stand-in does the same."""

import json
from pathlib import Path

import numpy as np
import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetStates

from app import charts
from app.charts import Area
from app.state import Draft
from core.report.importance_figures import head_map
from tests.app.ready import components, make_model, make_scores, open_page


@pytest.mark.parametrize(
    ("x0", "x1", "expected"), [(2, 2, [2]), (0.4, 2.6, [1, 2]), (-3, 0.2, [0]), (3.5, 9, [4]), (2.1, 2.9, []), (7, 8, [])]
)
def test_an_area_holds_the_cells_whose_middle_is_in_it(x0: float, x1: float, expected: list[int]) -> None:
    area = Area(x0, x1, x0, x1)
    assert list(area.columns(5)) == list(area.rows(5)) == expected


def test_the_stand_in_lays_a_mark_over_every_cell_of_a_map_and_only_of_small_ones() -> None:
    score_LH = np.random.default_rng(0).random((4, 3))
    picture = head_map(score_LH, score_LH > 0.5)
    marks = charts._with_marks(picture).data[-1]
    assert sorted(zip(marks.x, marks.y, strict=True)) == [(layer, head) for layer in range(4) for head in range(3)]
    large = np.ones((80, 64))
    assert charts._with_marks(head_map(large, large > 0)) == head_map(large, large > 0).figure


def test_without_static_files_streamlit_s_own_chart_stands_in_and_can_be_boxed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "_library_is_served", lambda: False)
    draft = Draft(model=str(make_model(tmp_path / "small")))
    make_scores(Path(draft.model), draft)
    at = open_page("importance", draft, view="Heads")
    assert not any("figure" in data for data in components(at).values())
    chart = at.get("plotly_chart")[0].proto  # type: ignore[attr-defined]
    config = json.loads(chart.config)
    assert (config["showSendToCloud"], config["plotlyServerURL"]) == (False, ""), "no button sends a chart's data to somebody's server"
    assert chart.alt.startswith("Importance of 6 heads")
    states = WidgetStates()
    widget = states.widgets.add()
    widget.id = chart.id
    points = [{"x": x, "y": y} for x in (1, 2) for y in (3, 4)]
    widget.string_value = json.dumps({"selection": {"points": points, "point_indices": [], "box": [], "lasso": []}})
    at._run(widget_state=states)
    assert at.text_input(key="w_chosen_heads").value == "1.3-4, 2.3-4"
