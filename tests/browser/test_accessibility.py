"""What axe-core finds on every page, in both colour schemes: nothing that is serious or critical."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from app.state import Draft
from core.model.embedded import MODEL_NAME
from core.specs import DistillSpec, RunSpec
from core.workspace import room
from tests.app.ready import make_model, make_scores, store_draft
from tests.browser.conftest import WAIT_MS
from tests.synthetic_runs import SPEC, make_run

pytestmark = pytest.mark.browser

PAGES = (
    "", "importance?view=Layers", "importance?view=Heads", "importance?view=Neurons", "importance?view=Embedding", "importance?view=Agreement",
    "targets", "candidates", "distill?run=new", "distill", "compare", "runs", "?demo=1",
)  # fmt: skip


@pytest.fixture
def draft(workspace: Path) -> str:
    """A scored model, two finished runs, and one that died: something on every page."""
    model = make_model(room("models") / MODEL_NAME)
    draft = Draft()
    make_scores(model, draft)
    make_run("done")
    make_run("done", spec=RunSpec(kind="distill", name="Second", targets=SPEC.targets, distill=DistillSpec(steps=90)))
    make_run("interrupted", steps=12, spec=RunSpec(kind="distill", name="Third", targets=SPEC.targets, distill=DistillSpec(steps=30)))
    return store_draft(draft)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_or_critical_violation(browser: Browser, address: str, draft: str, scheme: str) -> None:
    page = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme=scheme)  # type: ignore[arg-type]
    page.set_default_timeout(WAIT_MS)
    found = {
        f"{path}: {said}" for path in PAGES for said in violations(page, f"{address}/{path}{'&' if '?' in path else '?'}draft={draft}")
    }
    page.close()
    assert found == set()


def violations(page: Page, url: str) -> list[str]:
    """Rule, element and advice of every serious or critical violation."""
    page.goto(url)
    expect(page.get_by_test_id("stHeading").first).to_be_visible()
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0)
    page.wait_for_timeout(2500)  # charts and the last fade-in
    response = Axe().run(page).response
    serious = [one for one in response["violations"] if one["impact"] in ("serious", "critical")]
    return [f"{one['id']} at {node['html'][:200]} ({node['failureSummary'][:200]})" for one in serious for node in one["nodes"]]
