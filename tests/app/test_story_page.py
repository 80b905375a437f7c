"""Story mode: read-only, from finished runs."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.files import write_json
from core.model.embedded import MODEL_NAME
from core.workspace import ROOT, room
from tests.app.ready import figure
from tests.app.test_distill_page import CONFIG, said
from tests.synthetic_runs import make_run


@pytest.fixture(autouse=True)
def model(workspace: Path) -> None:
    """The embedded model's config, which is all that the page reads of it."""
    write_json(room("models") / MODEL_NAME / "config.json", CONFIG)


def page() -> AppTest:
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=30)
    at.query_params["demo"] = "1"
    at.run()
    assert not at.exception
    return at


def test_without_a_finished_run_it_says_what_will_stand_there() -> None:
    make_run("interrupted", steps=3)
    assert "Nothing to tell yet" in said(page())


def test_nothing_can_be_started_stopped_or_deleted() -> None:
    make_run("done")
    at = page()
    assert [button.label for button in at.button] == []
    assert not at.sidebar.children


def test_the_slider_walks_the_measured_models() -> None:
    make_run("done")
    at = page()
    control = at.select_slider(key="story_cost")
    assert control.options == ["nothing: the original", "18.6 % of next words change"]
    assert "The smaller model, distilled" in said(at)
    control.set_value(0).run()
    assert not at.exception
    assert "The smaller model" not in said(at)
    sizes = figure(at, "story")["data"][1]["marker"]["size"]
    assert sizes[0] > sizes[1]


@pytest.mark.parametrize("broken", [{}, {"teacher": {}}, {"teacher": {"parameters": 1, "heldout": {"wikipedia": {}}}}])
def test_a_run_whose_results_are_torn_is_passed_over(broken: dict[str, object]) -> None:
    write_json(make_run("done").path / "results.json", broken)
    assert "Nothing to tell yet" in said(page())
