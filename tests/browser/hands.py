"""What a person's hands do in a browser test: open a page, wait for the server, go from control to control by the keyboard."""

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, FloatRect, Locator, Page, expect

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
    page.goto(f"{address}/{name}{'&' if '?' in name else '?'}draft={store_draft(draft)}")
    expect(page.get_by_test_id("stHeading").first).to_be_visible()


def settled(page: Page) -> None:
    """Wait until no script runs."""
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0)


def saved(page: Page, act: Callable[[], object], folder: Path) -> Path:
    """Do what lets the browser save a file; return where it lies then."""
    with page.expect_download() as download:
        act()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def read_offline(browser: Browser, path: Path) -> None:
    """Open a saved report in a browser without a network: all of it is there, and nothing else is asked for."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    expect(page.get_by_role("heading").first).to_be_visible()
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()


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


def plot_area(page: Page, chart: Locator) -> FloatRect:
    """Where a chart's marks lie on the page, once they do."""
    expect(chart.locator(".nsewdrag")).to_be_visible()
    settled(page)
    page.wait_for_timeout(1000)  # the chart is laid out once more when its fonts are there
    box = chart.locator(".nsewdrag").bounding_box()
    assert box is not None
    return box


def click_cell(page: Page, box: FloatRect, column: float, row: float) -> None:
    """Click at parts of a plot's width and height."""
    page.mouse.click(box["x"] + box["width"] * column, box["y"] + box["height"] * row)


def seen(target: Locator) -> Locator:
    """What a person sees of a control: a slider's own input is invisible, and its handle stands for it."""
    handle = target.locator("xpath=ancestor::*[@data-testid='stSlider']")
    return handle if handle.count() else target


def press(page: Page, name: str | re.Pattern[str], key: str = "Enter") -> None:
    """Go to a button by the keyboard and press it."""
    reach(page, page.get_by_role("button", name=name))
    page.keyboard.press(key)


def reach(page: Page, target: Locator) -> None:
    """Go to a control with the Tab key alone; it must come into view, and its focus must be seen."""
    expect(target).to_be_enabled()
    still(page)
    way: list[str | None] = []
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        way.append(focused(page))
        if target.evaluate("one => one === document.activeElement"):
            expect(seen(target)).to_be_in_viewport()
            return
    raise AssertionError(f"{target} was not reached by Tab; the way there: {way}")
