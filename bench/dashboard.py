"""How long the dashboard takes to answer, in a real browser: a slider's release to new numbers and a redrawn chart, undo, another
criterion, and a page from its address until it is painted; with the embedded model and with scores of 32 layers of 14336 neurons.
"""

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from playwright.sync_api import Page, expect, sync_playwright
from safetensors.numpy import save_file

from app.state import Draft
from bench.harness import Bar, Outcome
from core.data.blocks import build
from core.files import write_json
from core.model.dims import dims_of
from core.model.source import fingerprint, resolve
from core.progress import Silent
from core.score import store
from core.score.criteria import criteria_of
from core.score.scoring import score
from core.specs import EMBEDDED_MODEL, DataSpec, ScoreSpec, Targets
from core.workspace import home, room
from tests.browser.conftest import FLAGS, chromium, serve
from tests.synthetic_scores import synthetic_scores

LARGE = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False,
}  # fmt: skip
WAIT_MS = 60_000
DRAWN = "[...document.querySelectorAll('.coppice-chart')].every((chart) => chart.getAttribute('aria-busy') === 'false')"
"""Whether every chart on the page is drawn as its data say."""
SAID = """() => [
  document.querySelector('.coppice-board dl').textContent,
  document.querySelector('.coppice-strip').ariaLabel + document.querySelector('.coppice-strip .after').getAttribute('d'),
  document.querySelector('.coppice-cut').textContent,
]"""
"""What must follow a slider: the board's numbers, the picture of the layers, and the strip beside the page (``innerText`` would lay it out at each look)."""
TOLD = "document.querySelector('.coppice-board').dataset.ahead === 'false'"
"""Whether the board shows what the server answered, and not only what it had answered beforehand."""
FOLLOWED = f"(old) => ({SAID})().every((said, i) => said !== old[i])"

Times = dict[str, list[float]]
"""What was done -> milliseconds of each repetition."""


def measure(*, quick: bool) -> Outcome:
    """Work the two dashboards as a person would, and time each answer."""
    repeats = 5 if quick else 20
    embedded = _watched(_embedded(), repeats)
    with _workspace():
        large = _watched(_large(), repeats)
    bars = [
        Bar(name="slider to new numbers and chart, embedded, p95, ms", value=_p95(embedded["slider"]), limit="<= 150"),
        Bar(name="slider to new numbers and chart, 32 x 14336, p95, ms", value=_p95(large["slider"]), limit="<= 300"),
        Bar(name="importance page painted, 32 x 14336, median, ms", value=statistics.median(large["page"]), limit="<= 1500"),
    ]
    bars += [
        Bar(name=f"{name}, embedded, median, ms", value=statistics.median(embedded[name]), limit="<= 300") for name in ("undo", "criterion")
    ]
    rows = [
        {
            "scores": scores,
            "what": what,
            "median ms": statistics.median(times),
            "p95 ms": _p95(times),
            "first ms": times[0],
            "repeats": len(times),
        }
        for scores, found in (("embedded", embedded), ("32 x 14336", large))
        for what, times in found.items()
    ]
    return Outcome(settings={"repeats": repeats, "browser": "headless chromium"}, bars=bars, rows=rows)


def _p95(times: list[float]) -> float:
    return float(np.quantile(times, 0.95))


def _embedded() -> Draft:
    """A draft of the embedded model with its own, real scores."""
    folder = resolve(EMBEDDED_MODEL)
    score(folder, build(DataSpec(), folder), ScoreSpec(), Silent())
    return Draft()


@contextmanager
def _workspace() -> Iterator[None]:
    """A workspace that is gone afterwards."""
    before = os.environ.get("COPPICE_WORKSPACE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COPPICE_WORKSPACE"] = folder
        try:
            yield
        finally:
            os.environ.pop("COPPICE_WORKSPACE")
            os.environ |= {} if before is None else {"COPPICE_WORKSPACE": before}


def _large() -> Draft:
    """A draft of a model of Llama 3's size, of which there are only a config and made-up scores."""
    folder = home() / "large"
    write_json(folder / "config.json", LARGE)
    save_file({"nothing": np.zeros(1, np.float32)}, folder / "model.safetensors")
    draft = Draft(model=str(folder), score=ScoreSpec(ppl_blocks=1))
    weights = fingerprint(folder)
    meta = {"model": draft.model, "model_fingerprint": weights, "data": draft.data.to_dict()}
    synthetic_scores(store.score_key(weights, "synthetic", draft.score), dims_of(LARGE), draft.score, meta=meta)
    return draft


def _watched(draft: Draft, repeats: int) -> Times:
    """Open a dashboard over the workspace, and time everything in it."""
    for address in serve(home()):
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.set_default_timeout(WAIT_MS)
            cut = dataclasses.replace(draft, targets=Targets(num_hidden_layers=20))
            return {
                "page": [_open(page, address, "importance?view=Layers", cut) for _ in range(max(repeats // 2, 5))],
                "criterion": _criteria(page, address, cut, repeats),
                **_slide(page, address, draft, repeats),
            }
    raise AssertionError("serve yields an address")


def _stored(draft: Draft) -> str:
    write_json(room("drafts") / f"{draft.identity()}.json", draft.to_dict())
    return draft.identity()


def _open(page: Page, address: str, path: str, draft: Draft) -> float:
    """Milliseconds from calling an address until the first chart is painted."""
    page.goto("about:blank")
    return _timed(
        page, lambda: page.goto(f"{address}/{path}{'&' if '?' in path else '?'}draft={_stored(draft)}", wait_until="commit"),
        "document.querySelector('.coppice-chart .main-svg, .coppice-strip .after') !== null && " + DRAWN,
    )  # fmt: skip


def _timed(page: Page, act: Callable[[], object], until: str, given: object = None) -> float:
    """Milliseconds from an act until a condition holds."""
    began = time.perf_counter()
    act()
    page.wait_for_function(until, arg=given, polling=5, timeout=WAIT_MS)
    return 1000 * (time.perf_counter() - began)


def _criteria(page: Page, address: str, draft: Draft, repeats: int) -> list[float]:
    """Switch the criterion of heads to and fro; until its explanation and the map have followed."""
    _open(page, address, "importance?view=Heads", draft)
    page.wait_for_timeout(3000)
    times = []
    for i in range(repeats):
        found = criteria_of("heads")[("wanda", "magnitude")[i % 2]]
        page.get_by_role("combobox", name="The draft ranks heads by").click()
        option = page.get_by_role("option", name=found.title, exact=True)
        expect(option).to_be_visible()
        times.append(_timed(page, option.click, f"(said) => document.body.textContent.includes(said) && {DRAWN}", found.says))
        page.wait_for_timeout(500)
    return times


def _slide(page: Page, address: str, draft: Draft, repeats: int) -> Times:
    """Move the FFN slider by its keys, then take every move back; until parameter count and picture have followed."""
    _open(page, address, "targets", draft)
    knob = page.get_by_role("slider", name="FFN neurons a layer")
    expect(knob).to_be_visible()
    page.wait_for_timeout(5000)

    def answer(act: Callable[[], object]) -> tuple[float, float]:
        began = time.perf_counter()
        took = _timed(page, act, FOLLOWED, page.evaluate(SAID))
        painted = page.evaluate(SAID)
        page.wait_for_function(TOLD, polling=5, timeout=WAIT_MS)
        told = 1000 * (time.perf_counter() - began)
        page.wait_for_timeout(700)
        if page.evaluate(SAID) != painted:
            raise RuntimeError(f"What was shown at once was not the answer: {painted}, then {page.evaluate(SAID)}.")
        return took, told

    answer(lambda: knob.press("ArrowLeft"))
    slider = [answer(lambda: knob.press("ArrowLeft")) for _ in range(repeats)]
    undo = [answer(lambda: page.keyboard.press("Control+z"))[0] for _ in range(repeats)]
    return {"slider": [took for took, _ in slider], "slider, told by the server": [told for _, told in slider], "undo": undo}
