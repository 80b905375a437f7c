"""The importance page: empty, and each view with and without a cut; what is clicked, switched and chosen."""

import dataclasses
import json
from pathlib import Path

import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetStates

from app.state import Draft
from core.specs import RankSpec, Targets
from tests.app.ready import charts, draft_in, make_model, make_scores, open_page, rerun, said

CUT = Targets(num_hidden_layers=3, intermediate_size=30, num_attention_heads=3, num_key_value_heads=3, hidden_size=18)


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    """A draft whose model is scored."""
    draft = Draft(model=str(make_model(tmp_path / "small")))
    make_scores(Path(draft.model), draft)
    return draft


def test_without_scores_the_page_says_what_it_will_show_and_how_to_get_it(tmp_path: Path) -> None:
    at = open_page("importance", Draft(model=str(make_model(tmp_path / "small"))))
    assert "Not measured yet" in said(at)
    assert at.button(key="compute_importance")
    assert not charts(at)


@pytest.mark.parametrize(("view", "pictures"), [("Layers", 1), ("Heads", 1), ("Neurons", 3), ("Embedding", 2)])
@pytest.mark.parametrize("targets", [Targets(), CUT], ids=["whole", "cut"])
def test_every_view_draws_its_charts_with_their_takeaways(draft: Draft, view: str, pictures: int, targets: Targets) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=targets), view=view)
    assert len(charts(at)) == pictures
    assert all(charts(at))
    assert ("cut" in said(at)) or targets == Targets()


def test_impossible_targets_are_told_and_everything_is_shown_as_kept(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=Targets(hidden_size=23)), view="Heads")
    assert "hidden_size" in at.warning[0].value
    assert "keeps all" in charts(at)[0]


def test_layers_can_be_ranked_by_loss_only_if_that_was_measured(tmp_path: Path) -> None:
    draft = Draft(model=str(make_model(tmp_path / "small")))
    make_scores(Path(draft.model), draft, losses=False)
    assert at_options(open_page("importance", draft, view="Layers")) == ["Block importance"]


def at_options(at: object) -> list[str]:
    """What the switch of the depth measure offers."""
    return list(at.segmented_control(key="w_depth").options)  # type: ignore[attr-defined]


def test_another_aggregation_changes_the_draft_and_is_compared_with_the_default(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=CUT), view="Neurons")
    at.segmented_control(key="w_batch").set_value("var")
    rerun(at)
    assert draft_in(at).rank == RankSpec(batch="var")
    assert "Spearman's ρ" in said(at)
    assert "would be kept by the default too" in said(at)


def test_a_head_is_chosen_from_the_keyboard(draft: Draft) -> None:
    at = open_page("importance", draft, view="Heads")
    at.number_input(key="w_head_layer").set_value(3)
    rerun(at)
    at.number_input(key="w_head_head").set_value(4)
    rerun(at)
    rings = [shape for shape in figure(at)["layout"]["shapes"] if shape["type"] == "rect"]
    assert [(ring["x0"], ring["y0"]) for ring in rings] == [(2.5, 3.5)]


def test_clicked_heads_are_ringed_and_summed_up(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=CUT), view="Heads")
    select(at, [(1, 2), (1, 3), (4, 0)])
    shown = {metric.label: metric.value for metric in at.metric}
    assert shown["Selected"] == "3 heads"
    assert len([shape for shape in figure(at)["layout"]["shapes"] if shape["type"] == "rect"]) == 3


def test_a_chart_can_be_read_as_a_table(draft: Draft) -> None:
    at = open_page("importance", draft, view="Heads")
    at.toggle(key="table_heads").set_value(True)
    rerun(at)
    assert len(at.dataframe[0].value) == 30


def figure(at: object) -> dict[str, dict[str, list[dict[str, object]]]]:
    """The first chart of the page."""
    found: dict[str, dict[str, list[dict[str, object]]]] = json.loads(at.get("plotly_chart")[0].proto.spec)  # type: ignore[attr-defined]
    return found


def select(at: object, cells: list[tuple[int, int]]) -> None:
    """Do what a box selection in the browser does: the app tester has no gesture for it."""
    states = WidgetStates()
    widget = states.widgets.add()
    widget.id = at.get("plotly_chart")[0].proto.id  # type: ignore[attr-defined]
    points = [{"x": x, "y": y} for x, y in cells]
    widget.string_value = json.dumps({"selection": {"points": points, "point_indices": [], "box": [], "lasso": []}})
    at._run(widget_state=states)  # type: ignore[attr-defined]
