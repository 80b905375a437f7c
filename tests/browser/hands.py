"""What a person's hands do in a browser test: open a page, wait for the server, go from control to control by the keyboard."""

from playwright.sync_api import Locator, Page, expect

from app.state import Draft
from tests.app.ready import store_draft
from tests.whole.conftest import World

MOST_TABS = 120
"""Steps from one control to another that a person would still call reachable."""

STILL = """() => {
  const tall = [...document.querySelectorAll('section, [data-testid="stVerticalBlock"]')].map(one => one.scrollHeight).join();
  const before = window.coppiceTall;
  window.coppiceTall = tall;
  return tall === before;
}"""
"""Whether the page is as tall as when this was last asked."""

FOCUS = """() => {
  const one = document.activeElement;
  return one && one !== document.body ? `${one.tagName} ${one.role ?? ''} ${one.ariaLabel || one.innerText}`.replace(/\\s+/g, ' ').slice(0, 60) : null;
}"""
"""The element that has the focus, in words; null where the focus was lost."""


def open_page(page: Page, address: str, name: str, draft: Draft) -> None:
    """Open a page under a draft and wait until the server has drawn it."""
    page.goto(f"{address}/{name}?draft={store_draft(draft)}")
    expect(page.get_by_test_id("stHeading").first).to_be_visible()


def settled(page: Page) -> None:
    """Wait until no script runs."""
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0)


def draft_of(world: World) -> Draft:
    """The draft that a world's spec carries out, before anything is cut."""
    spec = world.spec
    return Draft(model=spec.model, data=spec.data, score=spec.score)


def focused(page: Page) -> str | None:
    """What has the focus, in words; None if nothing has."""
    found: str | None = page.evaluate(FOCUS)
    return found


def still(page: Page) -> None:
    """Wait until nothing is drawn any more: what arrives above a control pushes it out of sight, the focus with it."""
    settled(page)
    page.wait_for_function(STILL, polling=500)


def reach(page: Page, target: Locator) -> None:
    """Go to a control with the Tab key alone; it must come into view, and its focus must be seen."""
    expect(target).to_be_enabled()
    still(page)
    way: list[str | None] = []
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        way.append(focused(page))
        if target.evaluate("one => one === document.activeElement"):
            expect(target).to_be_in_viewport()
            return
    raise AssertionError(f"{target} was not reached by Tab; the way there: {way}")
