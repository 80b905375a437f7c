"""What a person can do wrong in a browser: every page answers with a sentence and a way on, and none with a traceback."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.state import Draft
from core.model.embedded import MODEL_NAME
from core.runs.folder import Run
from core.specs import DistillSpec, RunSpec, Targets
from core.workspace import room
from tests.app.ready import make_model, make_scores, store_draft
from tests.browser.hands import settled
from tests.synthetic_runs import SPEC, make_run

pytestmark = pytest.mark.browser

CUT = Targets(num_hidden_layers=4, intermediate_size=32)


@pytest.fixture
def draft(workspace: Path) -> Draft:
    """A scored model."""
    model = make_model(room("models") / MODEL_NAME)
    make_scores(model, Draft())
    return Draft()


def look(page: Page, url: str) -> Page:
    """Open an address; whatever stands there, it is a page and no traceback."""
    page.goto(url)
    expect(page.get_by_test_id("stHeading").first).to_be_visible()
    return whole(page)


def whole(page: Page) -> Page:
    """Wait until the server is done, and hold the page to showing no traceback."""
    settled(page)
    expect(page.get_by_test_id("stException")).to_have_count(0)
    return page


def test_links_that_lead_nowhere_are_answered(page: Page, address: str, draft: Draft) -> None:
    kept = make_run("done")
    (room("drafts") / "odd.json").write_text('{"targets": {"num_hidden_layers": -3}}')
    gone = store_draft(dataclasses.replace(draft, model="/no/such/model", targets=CUT))
    answers = {
        "?draft=nowhere": "which is not in this workspace",
        "importance?draft=../../etc/passwd": "which is not in this workspace",
        "targets?draft=odd": "this version cannot use",
        "distill?run=20200101-000000-distill-abcdef": "is not in this workspace; it may have been deleted",
        f"compare?runs={kept.id},lost,%00": "not among the finished runs",
        f"targets?draft={gone}": "There is no folder '/no/such/model'",
        f"candidates?draft={gone}": "There is no folder '/no/such/model'",
        f"distill?run=new&draft={gone}": "There is no folder '/no/such/model'",
    }
    for path, answer in answers.items():
        look(page, f"{address}/{path}")
        expect(page.get_by_text(answer).first, path).to_be_visible()
    page.get_by_role("button", name="Choose another model").click()
    expect(page.get_by_role("heading", name="Model & data")).to_be_visible()


def test_values_beyond_the_sliders_in_a_link_are_answered_with_a_way_out(page: Page, address: str, draft: Draft) -> None:
    beyond = store_draft(dataclasses.replace(draft, targets=Targets(num_hidden_layers=999, hidden_size=577)))
    for path in ("", "importance", "candidates", "distill?run=new", "targets"):
        look(page, f"{address}/{path}{'&' if '?' in path else '?'}draft={beyond}")
    expect(page.get_by_text("999 is more than the model has (5)")).to_be_visible()
    page.get_by_role("button", name="No more than the model has").click()
    whole(page)
    expect(page.get_by_text("is more than the model has")).to_have_count(0)


def test_a_run_deleted_under_an_open_page_is_named(page: Page, address: str, draft: Draft, tmp_path: Path) -> None:
    first = make_run("done")
    second = make_run("done", spec=RunSpec(kind="distill", name="Second", targets=SPEC.targets, distill=DistillSpec(steps=90)))

    look(page, f"{address}/distill?run={first.id}")
    with_out(first, tmp_path)
    page.get_by_role("button", name="Compare the result").click()
    expect(page.get_by_text(f"{first.id} is not in this workspace")).to_be_visible()
    whole(page)
    back(first, tmp_path)

    look(page, f"{address}/compare?runs={first.id},{second.id}")
    with_out(first, tmp_path)
    page.get_by_text("sotu", exact=True).first.click()
    expect(page.get_by_text(f"{first.id}: not among the finished runs")).to_be_visible()
    whole(page)
    back(first, tmp_path)

    look(page, f"{address}/runs")
    page.locator(f".st-key-delete_{first.id}").get_by_role("button").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    whole(page)
    with_out(first, tmp_path)
    page.get_by_role("dialog").get_by_role("button", name="Move to the trash").click()
    expect(page.get_by_test_id("stToast").filter(has_text="was deleted or moved")).to_be_visible()
    whole(page)


def test_a_deletion_is_told(page: Page, address: str, draft: Draft) -> None:
    run = make_run("done")
    look(page, f"{address}/runs")
    page.locator(f".st-key-delete_{run.id}").get_by_role("button").click()
    page.get_by_role("dialog").get_by_role("button", name="Move to the trash").click()
    expect(page.get_by_test_id("stToast").filter(has_text="1 run in the trash")).to_be_visible()


@pytest.mark.parametrize(
    ("name", "content", "answer"),
    [
        ("notes.pdf", b"%PDF-1.4", "Allowed are .txt, .md, .jsonl"),
        ("empty.txt", b"", "is empty"),
        ("torn.jsonl", b"{torn\n", "cannot be read as jsonl"),
        ("bytes.txt", b"\xff\xfe\x00" * 400, "is not UTF-8 text"),
    ],
)
def test_an_upload_of_the_wrong_kind_is_answered(
    page: Page, address: str, draft: Draft, tmp_path: Path, name: str, content: bytes, answer: str
) -> None:
    (tmp_path / name).write_bytes(content)
    upload(page, address, tmp_path / name)
    expect(page.get_by_text(answer).first).to_be_visible()
    whole(page)


def test_an_upload_that_is_too_large_is_answered(page: Page, address: str, draft: Draft, tmp_path: Path) -> None:
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(100 * 2**20 + 1)
    upload(page, address, tmp_path / "large.txt")
    expect(page.get_by_text("must be 100.0MB or smaller")).to_be_visible()
    whole(page)


def upload(page: Page, address: str, path: Path) -> None:
    """Choose a file on the first page."""
    look(page, address)
    page.get_by_text("Local file", exact=True).click()
    page.locator("input[type=file]").set_input_files(path)


def with_out(run: Run, tmp_path: Path) -> None:
    """Take a run's folder away, as another program would."""
    shutil.move(run.path, tmp_path / run.id)


def back(run: Run, tmp_path: Path) -> None:
    """Bring it back."""
    shutil.move(tmp_path / run.id, run.path)
