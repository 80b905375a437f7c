"""What it costs to watch: five tabs on one run that writes an hour's events (36 000) in minutes. The server's memory, the time of a
tick in the browser, and how soon a reloaded page is live again. The events are made up, in the form and through the code of a worker.
"""

import itertools
import math
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, Page, sync_playwright
from streamlit.proto.BackMsg_pb2 import BackMsg

from bench.harness import Bar, Outcome
from core.files import write_json
from core.runs import folder
from core.runs.events import EventLog
from core.runs.folder import Run
from core.runs.status import Status
from core.specs import DistillSpec, RunSpec, Targets
from tests.browser.conftest import FLAGS, chromium, serve

TABS, WAIT_MS = 5, 60_000
EVENTS_A_SECOND = 10
"""Of the simulated hour: as many as a fast worker on an accelerator would write."""
HEARTBEAT_SECONDS = 1.0
HELDOUT_EVERY = 500
FIRST, GO = 50, "go"
"""So many events are there when the tabs are opened; the others are written once this file lies in the run's folder."""

WATCHED = """
window.asked = []; window.drawn = [];
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) { window.asked.push([performance.now(), [...new Uint8Array(data)]]); return send.call(this, data); };
new MutationObserver((changes) => changes.forEach(({ target }) => {
  if (target.ariaBusy === "false") window.drawn.push(performance.now());
})).observe(document, { subtree: true, attributes: true, attributeFilter: ["aria-busy"] });
"""
"""Kept by each page: when it asked the server for anything, and when a chart was drawn as its data say."""

SHOWN = "[...document.querySelectorAll('.coppice-chart')].length >= 2 && [...document.querySelectorAll('.coppice-chart')].every((chart) => chart.ariaBusy === 'false')"


def measure(*, quick: bool) -> Outcome:
    """Write a run's events, watch it in five tabs, and look at the server and at one of the tabs meanwhile."""
    steps, seconds = (3_600, 30) if quick else (36_000, 240)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        run = _run(Path(place), steps)
        worker = multiprocessing.get_context("spawn").Process(target=_work, args=(run.path, steps, seconds), daemon=True)
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        for address in serve(Path(place)):
            server = _server(address)
            worker.start()
            tabs = [_open(browser, f"{address}/distill?run={run.id}") for _ in range(TABS)]
            (run.path / GO).touch()
            found = _watch(tabs[0], server, run, steps)
            for tab in tabs[1:]:
                tab.close()
            reloads = [_reload(tabs[0]) for _ in range(3 if quick else 10)]
            lost = steps - _last_step(tabs[0])
            worker.terminate()
    bars = [
        Bar(name=f"growth of the server's memory over {steps} events, {TABS} tabs, MB", value=found["grown"], limit="<= 50"),
        Bar(name="tick in one of five tabs, median, ms", value=statistics.median(found["ticks"]), limit="<= 300"),
        Bar(
            name=f"reload until the live view of {steps} steps is drawn (one tab), median, ms",
            value=statistics.median(reloads),
            limit="<= 2000",
        ),
        Bar(name="events lost", value=lost, limit="== 0"),
    ]
    rows = [{"what": name, "median": statistics.median(times), "least": min(times), "most": max(times), "of": len(times)}
            for name, times in (("tick, ms", found["ticks"]), ("reload, ms", reloads), ("server's memory, MB", found["memory"]))]  # fmt: skip
    return Outcome(settings={"events": steps, "in seconds": seconds, "tabs": TABS}, bars=bars, rows=rows)


def _run(workspace: Path, steps: int) -> Run:
    """A run of the embedded model that nobody works at yet, in a workspace of its own."""
    os.environ["COPPICE_WORKSPACE"] = str(workspace)
    return folder.create(RunSpec(kind="distill", targets=Targets(intermediate_size=896), distill=DistillSpec(steps=steps)))


def _work(path: Path, steps: int, seconds: float) -> None:
    """Be the run's worker: hold its lock, write its events evenly over the time, and say that one lives until one is ended."""
    run, began, chance = Run(path), time.time(), random.Random(0)
    status: dict[str, Any] = {"state": "running", "phase": "distill", "total": steps, "created": began, "started": began}
    glance = {"teacher": {"text": 2.9}, "pruned": {"text": 4.1}}
    write_json(path / "results.json", {"glance": glance})
    said = 0.0
    with run.hold(), EventLog(path / "events.jsonl") as log:
        for step in range(1, steps + 1):
            while step == FIRST and not (path / GO).exists():
                run.write_status(Status(**status, done=step, updated=time.time()))
                time.sleep(HEARTBEAT_SECONDS)
                began = time.time()
            log.append(phase="distill", done=step, total=steps, **_figures(step, steps, chance))
            if time.time() - said > HEARTBEAT_SECONDS:
                said = time.time()
                run.write_status(Status(**status, done=step, updated=said))
            time.sleep(max(0.0, began + seconds * step / steps - time.time()))
        while True:
            run.write_status(Status(**status, done=steps, updated=time.time()))
            time.sleep(HEARTBEAT_SECONDS)


def _figures(step: int, steps: int, chance: random.Random) -> dict[str, Any]:
    """What one made-up step reports; every few steps also a held-out loss."""
    kl = 1.2 * math.exp(-3 * step / steps) + 0.1 * chance.random() + 0.05
    told: dict[str, Any] = {"loss": kl, "kl": kl, "ce": kl + 3, "learning_rate": 1e-4, "grad_norm": 1 + chance.random(), "tokens_per_second": 1000.0}  # fmt: skip
    if step % HELDOUT_EVERY == 0 or step == 1:
        told["heldout"] = {"text": {"loss": 2.9 + kl, "kl": kl}}
    return told


def _server(address: str) -> psutil.Process:
    """The process that serves an address."""
    port = int(address.rsplit(":", 1)[1])
    children = psutil.Process().children(recursive=True)
    return next(one for one in children if any(link.laddr.port == port for link in one.net_connections() if link.status == "LISTEN"))


def _open(browser: Browser, address: str) -> Page:
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.set_default_timeout(WAIT_MS)
    page.add_init_script(WATCHED)
    page.goto(address)
    page.wait_for_function(SHOWN, polling=100, timeout=WAIT_MS)
    return page


def _watch(page: Page, server: psutil.Process, run: Run, steps: int) -> dict[str, list[float] | Any]:
    """Memory of the server every second until all events are written and shown; how long the page's ticks took."""
    memory = [_megabytes(server)]
    while run.last_word().done < steps or _last_step(page) < steps:
        page.wait_for_timeout(1000)
        memory.append(_megabytes(server))
    return {"memory": memory, "grown": max(memory) - memory[0], "ticks": _ticks(*page.evaluate("[window.asked, window.drawn]"))}


def _ticks(asked: list[tuple[float, list[int]]], drawn: list[float]) -> list[float]:
    """Milliseconds from each tick's request to the last chart that was drawn before the next one's.

    Every part of the page that draws itself anew has a timer; that of the run is the one that asks most often.
    """
    parts = [(when, BackMsg.FromString(bytes(data)).rerun_script.fragment_id) for when, data in asked]
    (run, _), *_ = Counter(part for _, part in parts if part).most_common()
    begins = [when for when, part in parts if part == run]
    found = [[when for when in drawn if begin < when < end] for begin, end in itertools.pairwise(begins)]
    return [max(within) - begin for begin, within in zip(begins, found, strict=False) if within]


def _reload(page: Page) -> float:
    """Milliseconds from a reload until both charts are drawn once more."""
    began = time.perf_counter()
    page.reload(wait_until="commit")
    page.wait_for_function(SHOWN, polling=5, timeout=WAIT_MS)
    return 1000 * (time.perf_counter() - began)


def _last_step(page: Page) -> int:
    """The step that the page says the run is at."""
    return int(page.get_by_test_id("stMetricValue").first.inner_text().split(" of ")[0].replace(" ", "").replace(" ", ""))


def _megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20
