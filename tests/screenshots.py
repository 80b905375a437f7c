"""Pictures of the running dashboard for the documentation: ``make screenshots``, after ``make demo``.

Every page, in both colour schemes, over the user's own workspace, with the newest finished distillation.
"""

from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from app.cached import known_runs
from app.state import Draft
from core.files import write_json
from core.runs.folder import Run
from core.workspace import ROOT, home, room
from tests.browser.conftest import FLAGS, chromium, serve

IMAGES = ROOT / "docs" / "images"
WAIT_MS = 30_000
PAGES = {
    "model": "", "importance": "importance?view=Heads", "agreement": "importance?view=Agreement", "targets": "targets", "candidates": "candidates", "distill": "distill",
    "compare": "compare", "runs": "runs", "story": "?demo=1",
}  # fmt: skip
"""Picture -> what is opened for it."""


def main() -> None:
    """Take all pictures."""
    run = next((known.run for known in known_runs() if known.spec.kind == "distill" and known.status.state == "done"), None)
    if run is None:
        raise SystemExit("There is no finished distillation to show. Make one with: make demo")
    IMAGES.mkdir(parents=True, exist_ok=True)
    for address in serve(home()):
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
                page.set_default_timeout(WAIT_MS)
                take(page, address, run, IMAGES, "" if scheme == "light" else "-dark")
                page.close()


def take(page: Page, address: str, run: Run, folder: Path, suffix: str) -> None:
    """Open every page under the run's own draft and keep a picture of it."""
    spec = run.spec
    draft = Draft(model=spec.model, data=spec.data, score=spec.score, rank=spec.rank, targets=spec.targets)
    write_json(room("drafts") / f"{draft.identity()}.json", draft.to_dict())
    for name, path in PAGES.items():
        page.goto(f"{address}/{path}{'&' if '?' in path else '?'}draft={draft.identity()}&run={run.id}")
        expect(page.get_by_test_id("stHeading").first).to_be_visible()
        page.wait_for_timeout(6000)
        page.screenshot(path=folder / f"{name}{suffix}.png", full_page=name != "importance")
        print(folder / f"{name}{suffix}.png")


if __name__ == "__main__":
    main()
