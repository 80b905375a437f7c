"""The first half of the main job by the keyboard alone, from the model to a pinned head: no step needs a mouse or loses the focus."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.hands import draft_of, focused, open_page, reach, settled
from tests.whole.conftest import World, world  # noqa: F401  (a fixture)

pytestmark = pytest.mark.browser

RADIO = "Space"
"""Arrow keys move the focus among the choices of a segmented control; this key takes one."""


def press(page: Page, name: str | re.Pattern[str], key: str = "Enter") -> None:
    """Go to a button and press it."""
    reach(page, page.get_by_role("button", name=name))
    page.keyboard.press(key)


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
