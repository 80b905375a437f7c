"""The main job by the keyboard alone: from the model to a pinned head, and from a slider to the saved report."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.state import Draft
from core.runs import control
from tests.app.ready import make_model, make_scores
from tests.browser.hands import draft_of, focused, open_page, press, reach, read_offline, saved, settled, still
from tests.whole.conftest import World, world  # noqa: F401  (a fixture)
from tests.whole.test_runs import finish

pytestmark = pytest.mark.browser

RADIO = "Space"
"""Arrow keys move the focus among the choices of a segmented control; this key takes one."""


def test_from_the_model_to_a_pinned_head_by_keyboard(page: Page, address: str, world: World) -> None:  # noqa: F811
    open_page(page, address, "", draft_of(world))
    expect(page.get_by_text("Where the parameters are")).to_be_visible()
    press(page, "Compute importance")
    press(page, "See the importance", "Space")

    expect(page.get_by_role("heading", name="Importance", exact=True)).to_be_visible()
    settled(page)
    reach(page, page.get_by_role("radio", name="Layers"))
    page.keyboard.press("ArrowRight")
    page.keyboard.press(RADIO)
    expect(page.get_by_text(re.compile("Importance of 6 heads in each of 3 layers"))).to_be_visible()
    settled(page)
    assert "Heads" in (focused(page) or ""), "another view must not take the focus away"
    for field, selected in (("Layer", "1.0"), ("Head", "1.1")):
        reach(page, page.get_by_label(field, exact=True))
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")
        expect(page.get_by_role("textbox", name="Selected heads")).to_have_value(selected)
        settled(page)
        expect(page.get_by_label(field, exact=True)).to_be_focused()
    press(page, re.compile("^Pin to keep"))
    expect(page.get_by_text(re.compile("1 pinned to stay"))).to_be_visible()
    settled(page)
    expect(page.get_by_role("button", name=re.compile("^Pin to keep"))).to_be_focused()

    press(page, re.compile("Targets.*Alt"))
    expect(page.get_by_role("heading", name="Targets", exact=True)).to_be_visible()
    settled(page)
    expect(page.get_by_role("slider").first).to_be_visible()
    reach(page, page.get_by_role("button", name=re.compile("^Undo")))
    page.keyboard.press("Enter")
    settled(page)
    assert page.get_by_test_id("stException").count() == 0


def test_from_a_slider_to_the_saved_report_by_keyboard(page: Page, browser: Browser, address: str, world: World, tmp_path: Path) -> None:  # noqa: F811
    draft = draft_of(world)
    finish(control.start(draft.run_spec(kind="score")))
    open_page(page, address, "targets", draft)
    layers = page.get_by_role("slider", name=re.compile("^Layers"))
    reach(page, layers)
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text(re.compile("2 of 3 layers stay")).first).to_be_visible()
    settled(page)
    expect(layers).to_be_focused()
    press(page, "Go on to prune and distill")

    expect(page.get_by_text("Before it starts")).to_be_visible()
    reach(page, page.get_by_label("Steps", exact=True))
    page.keyboard.press("Control+a")
    page.keyboard.type("8")
    page.keyboard.press("Enter")
    press(page, re.compile("^Start"))
    expect(page.get_by_role("button", name="Compare the result")).to_be_visible(timeout=180_000)
    press(page, "Compare the result")

    expect(page.get_by_text("Size and speed")).to_be_visible()
    reach(page, page.get_by_role("button", name="Download the report"))
    read_offline(browser, saved(page, lambda: page.keyboard.press("Enter"), tmp_path))
    assert page.get_by_test_id("stException").count() == 0


def test_keys_that_are_pressed_faster_than_the_page_follows_are_all_counted(page: Page, address: str, tmp_path: Path) -> None:
    draft = Draft(model=str(make_model(tmp_path / "small")))
    make_scores(Path(draft.model), draft)
    open_page(page, address, "importance?view=Neurons", draft)
    field = page.get_by_label("Neuron", exact=True)
    field.click()
    still(page)
    for _ in range(10):
        page.keyboard.press("ArrowUp")
        page.wait_for_timeout(20)
    still(page)
    expect(page.get_by_role("textbox", name="Selected neurons")).to_have_value("0.10")
    page.wait_for_timeout(1000)
    expect(field).to_have_value("10")
