"""The whole path on the real model and real text in a browser: score, click, pin, slide, start, reload, stop, resume, compare, save."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.state import Draft
from core.runs.folder import all_runs
from core.specs import DataSpec, ScoreSpec
from tests.browser.hands import click_cell, open_page, plot_area, read_offline, saved, settled
from tests.whole.conftest import borrowed  # noqa: F401  (a fixture)

pytestmark = [pytest.mark.browser, pytest.mark.embedded]

LONG_MS = 400_000
LAYER, HEAD = 4, 2


def test_the_whole_path_on_the_real_model(page: Page, browser: Browser, address: str, borrowed: Path, tmp_path: Path) -> None:  # noqa: F811
    data = DataSpec(seq_len=128, calibration_blocks=8, train_blocks=32, heldout_blocks=2)
    open_page(page, address, "", Draft(data=data, score=ScoreSpec(ppl_blocks=0)))
    page.get_by_role("button", name="Compute importance").click()
    page.get_by_role("button", name="See the importance").click(timeout=LONG_MS)

    page.get_by_role("radio", name="Heads").click()
    chart = page.get_by_role("figure", name=re.compile("Importance of 9 heads in each of 30 layers"))
    click_cell(page, plot_area(page, chart), (LAYER + 0.5) / 30, (HEAD + 0.5) / 9)
    expect(page.get_by_role("textbox", name="Selected heads")).to_have_value(f"{LAYER}.{HEAD}")
    page.get_by_role("button", name="Pin to keep").click()
    expect(page.get_by_text(re.compile("1 pinned to stay"))).to_be_visible()

    page.get_by_role("link", name="Targets").first.click()
    knob = page.get_by_role("slider", name="FFN neurons a layer")
    for size in (1472, 1408, 1344):
        knob.press("ArrowLeft")
        expect(page.get_by_text(re.compile(f"each with {size} of 1536 neurons")).first).to_be_visible()
    settled(page)
    page.get_by_role("button", name="Go on to prune and distill").click()

    for label, number in (("Blocks the repair fits on", "8"), ("Steps", "30")):
        page.get_by_label(label, exact=True).fill(number)
        page.get_by_label(label, exact=True).press("Enter")
    page.get_by_role("button", name=re.compile("^Start")).click()
    curve = page.get_by_role("figure", name=re.compile("^KL to the teacher went from"))
    expect(curve).to_be_visible(timeout=LONG_MS)
    page.reload()
    expect(curve).to_be_visible()
    page.get_by_role("button", name="Stop and save").click()
    page.get_by_role("button", name="Resume").click(timeout=LONG_MS)
    page.get_by_role("button", name="Compare the result").click(timeout=LONG_MS)

    expect(page.get_by_text("Size and speed")).to_be_visible()
    download = page.get_by_role("button", name="Download the report")
    expect(download).to_be_visible()
    read_offline(browser, saved(page, download.click, tmp_path))
    assert page.get_by_test_id("stException").count() == 0
    run = all_runs()[0]
    assert (run.spec.kind, run.status().state, run.spec.targets.intermediate_size) == ("distill", "done", 1344)
    assert run.spec.repair.blocks == 8
    assert run.spec.pins.keep_heads == (f"{LAYER}.{HEAD}",)
    steps = [event["done"] for event in run.events()[0] if event.get("phase") == "distill" and "kl" in event]
    assert (sorted(set(steps)), steps[-1]) == (list(range(1, 31)), 30)
