"""The main job in a browser, from the first page to the last, on a tiny model with real workers."""

import dataclasses
import re

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from app import cached
from app.subject import subject_of
from core.runs.folder import all_runs
from core.specs import Targets
from tests.browser.hands import click_cell, draft_of, open_page, plot_area, settled
from tests.whole.conftest import World, world  # noqa: F401  (a fixture)

pytestmark = pytest.mark.browser


def test_the_whole_path_by_mouse(page: Page, address: str, world: World) -> None:  # noqa: F811
    open_page(page, address, "", draft_of(world))
    expect(page.get_by_text("Where the parameters are")).to_be_visible()
    page.get_by_role("button", name="Compute importance").click()
    page.get_by_role("button", name="See the importance").click()

    expect(page.get_by_role("heading", name="Importance", exact=True)).to_be_visible()
    page.get_by_role("radio", name="Heads").click()
    expect(page.get_by_text(re.compile("Importance of 6 heads in each of 3 layers"))).to_be_visible()
    page.get_by_role("link", name="Targets").first.click()

    expect(page.get_by_role("heading", name="Targets", exact=True)).to_be_visible()
    page.get_by_role("button", name="25 % by FFN").click()
    settled(page)
    page.get_by_role("button", name="Go on to prune and distill").click()

    expect(page.get_by_text("Before it starts")).to_be_visible()
    page.get_by_role("button", name=re.compile("^Start")).click()
    expect(page.get_by_text("Stop and save").or_(page.get_by_role("button", name="Compare the result")).first).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Compare the result")).to_be_visible(timeout=180_000)
    page.get_by_role("button", name="Compare the result").click()

    expect(page.get_by_text("Size and speed")).to_be_visible()
    expect(page.get_by_text("Distilled").first).to_be_visible()
    expect(page.get_by_role("button", name="Download the report")).to_be_visible()  # the last part: nothing is being fetched any more
    run = all_runs()[0]
    assert (run.spec.kind, run.status().state) == ("distill", "done")
    assert "distilled" in run.results()


def test_a_clicked_head_is_pinned_and_the_plan_follows_until_it_is_undone(page: Page, address: str, world: World) -> None:  # noqa: F811
    from core.runs import control
    from tests.whole.test_runs import finish

    draft = dataclasses.replace(draft_of(world), targets=Targets(num_attention_heads=2, num_key_value_heads=2))
    finish(control.start(draft.run_spec(kind="score")))
    scores = cached.find_scores(draft)
    assert scores is not None
    cut_LH = ~subject_of(draft, cached.card(draft.model), scores).masks["heads"]
    layer, head = np.argwhere(cut_LH)[-1].tolist()

    open_page(page, address, "importance", draft)
    page.get_by_role("radio", name="Heads").click()
    chart = page.get_by_role("figure", name=re.compile("Importance of 6 heads"))
    box = plot_area(page, chart)
    L, H = cut_LH.shape
    click_cell(page, box, (layer + 0.5) / L, (head + 0.5) / H)
    expect(page.get_by_label("Layer", exact=True)).to_have_value(str(layer))
    expect(page.get_by_label("Head", exact=True)).to_have_value(str(head))
    expect(page.get_by_text("pruned by the draft")).to_be_visible()
    page.get_by_role("button", name="Pin to keep").click()
    expect(page.get_by_text("kept by the draft")).to_be_visible()
    expect(page.get_by_text(re.compile("1 pinned to stay"))).to_be_visible()
    page.get_by_role("button", name=re.compile("^Undo")).click()
    expect(page.get_by_text("pruned by the draft")).to_be_visible()

    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] / H * 2 - 5, steps=4)
    page.mouse.up()
    expect(page.get_by_role("textbox", name="Selected heads")).to_have_value(", ".join(f"{layer}.0-1" for layer in range(L)))


def test_the_criteria_are_compared_axis_by_axis(page: Page, address: str, world: World) -> None:  # noqa: F811
    from core.runs import control
    from tests.whole.test_runs import finish

    draft = draft_of(world)
    finish(control.start(draft.run_spec(kind="score")))
    open_page(page, address, "importance", draft)
    page.get_by_role("radio", name="Agreement").click()
    for axis in ("Layers", "Neurons", "Embedding"):
        page.get_by_role("radiogroup", name="Criteria for").get_by_role("radio", name=axis).click()
        settled(page)
        expect(page.get_by_text(re.compile("Most alike: ")).first).to_be_visible()
        expect(page.locator(".js-plotly-plot")).to_have_count(2)
    assert page.get_by_test_id("stException").count() == 0


SLOWLY = """() => {
    const { react, purge } = window.Plotly, told = (window.told = []);
    window.Plotly.react = async (...given) => { await react(...given); await new Promise((done) => setTimeout(done, 2000)); told.push("drawn"); };
    window.Plotly.purge = (chart) => { told.push("purged"); purge(chart); };
}"""
"""Plotly, whose drawings take two seconds longer, and which tells when one is finished and when one is thrown away."""


def test_a_chart_that_goes_while_it_is_drawn_is_let_finish(page: Page, address: str, world: World) -> None:  # noqa: F811
    open_page(page, address, "", draft_of(world))
    expect(page.locator(".js-plotly-plot")).to_have_count(1)
    page.get_by_role("link", name="Runs").first.click()
    expect(page.locator(".js-plotly-plot")).to_have_count(0)
    page.evaluate(SLOWLY)
    page.get_by_role("link", name="Model & data").first.click()
    expect(page.locator(".js-plotly-plot")).to_have_count(1)
    page.get_by_role("link", name="Runs").first.click()
    page.wait_for_function("window.told.includes('purged')")
    assert page.evaluate("window.told") == ["drawn", "purged"]


def test_every_page_is_drawn_without_a_model_or_a_run(page: Page, address: str) -> None:
    for name in ("", "importance", "targets", "distill", "compare"):
        page.goto(f"{address}/{name}")
        expect(page.get_by_test_id("stHeading").first).to_be_visible()
        settled(page)
        assert page.get_by_test_id("stException").count() == 0, name
