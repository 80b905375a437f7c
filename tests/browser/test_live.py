"""Watching a run in a browser: a zoom outlives new data, a reload loses nothing, and a run stops, goes on and ends when it is told to."""

import re
from dataclasses import replace

import pytest
from playwright.sync_api import Locator, Page, expect

from core.runs import control
from core.runs.folder import Run
from tests.whole.conftest import World, world  # noqa: F401  (a fixture)

pytestmark = pytest.mark.browser

TICKS = 10
RANGE = "chart => chart._fullLayout.xaxis.range"
LAST_STEP = "chart => chart._fullData.at(-1).x.at(-1)"


@pytest.fixture
def run(world: World) -> Run:  # noqa: F811
    """A run that trains for longer than anybody looks."""
    distill = replace(world.spec.distill, steps=100_000, evaluate_every=50_000, checkpoint_every=1_000)
    return control.start(replace(world.spec, distill=distill))


def divergence(page: Page) -> Locator:
    """The curve of the divergence in training, once it is drawn."""
    chart = page.get_by_role("figure", name=re.compile("^KL to the teacher went from"))
    expect(chart.locator(".nsewdrag")).to_be_visible(timeout=180_000)
    return chart


def step_shown(page: Page) -> int:
    """The step that the page says the run is at."""
    return int(page.get_by_test_id("stMetricValue").first.inner_text().split(" of ")[0])


def test_a_zoom_outlives_ten_ticks_and_a_reload_shows_every_step(page: Page, address: str, run: Run) -> None:
    page.goto(f"{address}/distill?run={run.id}")
    chart = divergence(page)
    chart.scroll_into_view_if_needed()
    page.wait_for_timeout(2000)  # the page below the header is laid out anew as its first parts arrive
    box = chart.locator(".nsewdrag").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.2 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], middle, steps=5)
    page.mouse.up()
    page.wait_for_function("() => [...document.querySelectorAll('.coppice-chart')].some(one => one._fullLayout?.xaxis.autorange === false)")
    zoomed = chart.evaluate(RANGE)
    for _ in range(TICKS):
        before = chart.evaluate(LAST_STEP)
        page.wait_for_function(
            "before => [...document.querySelectorAll('.coppice-chart')].some(one => one._fullData?.at(-1)?.x?.at(-1) > before)", arg=before
        )
    assert chart.evaluate(RANGE) == zoomed

    before = step_shown(page)
    page.reload()
    chart = divergence(page)
    assert chart.evaluate("chart => chart._fullData.at(-1).x[0]") == 1
    assert chart.evaluate(LAST_STEP) >= before

    page.get_by_role("button", name="Stop and save").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=180_000)
    stopped = run.status()
    assert (stopped.state, step_shown(page)) == ("stopped", stopped.done)
    steps = [event["done"] for event in run.events()[0] if event.get("phase") == "distill" and "kl" in event]
    assert steps == list(range(1, stopped.done + 1)), "every step wrote one event"
    assert divergence(page).evaluate(LAST_STEP) == stopped.done

    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Stop and save")).to_be_visible()
    page.wait_for_function(
        "before => [...document.querySelectorAll('.coppice-chart')].some(one => one._fullData?.at(-1)?.x?.at(-1) > before)",
        arg=stopped.done,
        timeout=180_000,
    )
    expect(divergence(page).get_by_text("resumed")).to_be_visible()
    page.get_by_role("button", name="Cancel and discard").click()
    page.get_by_role("dialog").get_by_role("button", name="Discard").click()
    expect(page.get_by_test_id("stMain").get_by_text("cancelled").first).to_be_visible(timeout=180_000)
    assert not (run.path / "checkpoints").exists()
    assert page.get_by_test_id("stException").count() == 0
