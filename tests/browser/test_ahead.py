"""A slider's numbers stand there before the server has answered, and its answer is the same."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.state import Draft
from tests.app.ready import make_model, make_scores
from tests.browser.hands import open_page, still

pytestmark = pytest.mark.browser

LISTEN = """() => {
  const board = document.querySelector(".coppice-board"), cut = document.querySelector(".coppice-cut");
  const look = () => window.seen.push([board.dataset.ahead, board.querySelector("dl").textContent, board.querySelector("svg").ariaLabel, cut.textContent]);
  window.seen = [];
  new MutationObserver(look).observe(board, { attributeFilter: ["data-ahead"] });
}"""

AWAY_AND_BACK = """() => {
  const board = document.querySelector(".coppice-board"), { told } = board;
  board.show({ ...told, sizes: { ...told.sizes, layers: "-" } });
  const away = board.dataset.ahead;
  board.show(told);
  return [away, board.dataset.ahead];
}"""
"""An undo moves the slider last: the board shows another place for a moment, and then again what the server has said."""


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    draft = Draft(model=str(make_model(tmp_path / "small")))
    make_scores(Path(draft.model), draft)
    return draft


@pytest.mark.parametrize("label", ["Layers", "Key-value heads", "Query heads a group"])
def test_what_is_shown_at_once_is_what_the_server_answers(page: Page, address: str, draft: Draft, label: str) -> None:
    open_page(page, address, "targets", draft)
    knob = page.get_by_role("slider", name=label)
    expect(knob).to_be_visible()
    still(page)
    knob.focus()
    page.wait_for_function("document.querySelector('.coppice-ahead').data.answers !== undefined")
    still(page)
    page.evaluate(LISTEN)
    knob.press("ArrowLeft")
    page.wait_for_function("window.seen.length === 2")
    still(page)
    (first, *at_once), (then, *told) = page.evaluate("window.seen")
    assert (first, then) == ("true", "false")
    assert at_once == told
    assert "−" in told[0]
    assert page.evaluate(AWAY_AND_BACK) == ["true", "false"]


def test_an_answer_that_arrives_late_does_not_set_the_numbers_back(page: Page, address: str, draft: Draft) -> None:
    open_page(page, address, "targets", draft)
    page.get_by_text("Any size that can be loaded").click()
    knob = page.get_by_role("slider", name="FFN neurons a layer")
    still(page)
    knob.focus()
    page.wait_for_function("document.querySelector('.coppice-ahead').data.answers !== undefined")
    still(page)
    page.evaluate(
        """() => {
          const board = document.querySelector(".coppice-board");
          window.sizes = [];
          new MutationObserver(() => window.sizes.push(+board.said.sizes.ffn)).observe(board.querySelector(".numbers"), { childList: true });
        }"""
    )
    for _ in range(10):
        knob.press("ArrowLeft")
        page.wait_for_timeout(40)
    still(page)
    sizes = page.evaluate("window.sizes")
    assert sizes[-1] == 30
    assert sizes == sorted(sizes, reverse=True)
