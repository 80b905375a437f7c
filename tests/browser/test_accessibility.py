"""What axe-core finds on every page, in both colour schemes: nothing that is serious or critical."""

import time
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from app.state import Draft
from core.model.embedded import MODEL_NAME
from core.specs import DistillSpec, RunSpec, Targets
from core.workspace import room
from tests.app.ready import make_model, make_scores, store_draft
from tests.browser.conftest import WAIT_MS
from tests.synthetic_runs import SPEC, held, make_run, step_event, write_events

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
    paths = [f"{path}{'&' if '?' in path else '?'}draft={draft}" for path in PAGES]
    assert found_on(browser, address, scheme, paths) == set()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_state_of_a_run_has_a_serious_or_critical_violation(browser: Browser, address: str, draft: str, scheme: str) -> None:
    cut = store_draft(Draft(targets=Targets(num_hidden_layers=4, intermediate_size=32)))
    done = make_run("done", spec=RunSpec(kind="distill", name="Fourth", targets=SPEC.targets, distill=DistillSpec(steps=91)))
    failed = make_run(
        "failed", steps=12, error={"type": "UserError", "message": "The loss is not finite.", "hint": "Lower the learning rate."}
    )
    queued = make_run("queued", spec=RunSpec(kind="prune", targets=SPEC.targets))
    with held(make_run("running", steps=40)) as running, held(make_run("stopping", steps=33)) as stopping:
        write_events(running, [step_event(time.time(), step) | {"tokens_per_second": 30.0} for step in range(41, 52)])
        paths = [f"distill?run={run.id}" for run in (running, stopping, failed, queued)]
        paths += [
            f"distill?run=new&draft={cut}",
            f"compare?runs={done.id},{failed.id},lost",
            "targets?draft=lost",
            "runs",
            f"importance?view=Heads&draft={cut}",
        ]
        assert found_on(browser, address, scheme, paths) == set()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_empty_workspace_has_no_serious_or_critical_violation(browser: Browser, address: str, scheme: str) -> None:
    paths = ["", "importance", "targets", "candidates", "distill", "compare", "runs", "?demo=1"]
    assert found_on(browser, address, scheme, paths) == set()


def found_on(browser: Browser, address: str, scheme: str, paths: list[str]) -> set[str]:
    """What axe finds on several pages in one colour scheme."""
    page = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme=scheme)  # type: ignore[arg-type]
    page.set_default_timeout(WAIT_MS)
    found = {f"{path}: {said}" for path in paths for said in violations(page, f"{address}/{path}")}
    page.close()
    return found


def violations(page: Page, url: str) -> list[str]:
    """Rule, element and advice of every serious or critical violation."""
    page.goto(url)
    expect(page.get_by_test_id("stHeading").first).to_be_visible()
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0)
    page.wait_for_timeout(2500)  # charts and the last fade-in
    response = Axe().run(page).response
    serious = [one for one in response["violations"] if one["impact"] in ("serious", "critical")]
    return [f"{one['id']} at {node['html'][:200]} ({node['failureSummary'][:200]})" for one in serious for node in one["nodes"]]
