"""How long a slider takes: from its release to new numbers on the page, in a real browser with the embedded model's own scores."""

import statistics
import time

from playwright.sync_api import Page, expect, sync_playwright

from app.state import Draft
from bench.harness import Bar, Outcome
from core.data.blocks import build
from core.files import write_json
from core.model.source import resolve
from core.progress import Silent
from core.score.scoring import score
from core.specs import EMBEDDED_MODEL, DataSpec, ScoreSpec
from core.workspace import home, room
from tests.browser.conftest import FLAGS, chromium, serve


def measure(*, quick: bool) -> Outcome:
    """Move the FFN slider by keyboard and wait for the parameter count to change."""
    folder = resolve(EMBEDDED_MODEL)
    score(folder, build(DataSpec(), folder), ScoreSpec(), Silent())
    times: list[float] = []
    for address in serve(home()):
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            times = slide(page, address, 5 if quick else 20)
    median = statistics.median(times)
    return Outcome(
        settings={"model": "SmolLM2-135M", "moves": len(times), "browser": "headless chromium"},
        bars=[Bar(name="slider to new numbers, median, ms", value=median, limit="<= 300")],
        rows=[{"what": "slider to new numbers, ms", "median": median, "min": min(times), "max": max(times)}],
    )


def slide(page: Page, address: str, moves: int) -> list[float]:
    """Milliseconds from a key press on the FFN slider to another parameter count, for each of some moves."""
    draft = Draft()
    write_json(room("drafts") / f"{draft.identity()}.json", draft.to_dict())
    page.goto(f"{address}/targets?draft={draft.identity()}")
    knob = page.get_by_role("slider", name="FFN neurons a layer")
    expect(knob).to_be_visible(timeout=30_000)
    number = page.get_by_test_id("stMetricValue").nth(1)  # without the embedding: three digits that every step of the slider changes
    page.wait_for_timeout(5000)
    times = []
    for _ in range(moves + 1):
        before = number.inner_text()
        began = time.perf_counter()
        knob.press("ArrowLeft")
        page.wait_for_function("([node, old]) => node.innerText !== old", arg=[number.element_handle(), before], polling=5, timeout=30_000)
        times.append(1000 * (time.perf_counter() - began))
        page.wait_for_timeout(700)
    return times[1:]
