"""The report: whole in one file, every number in it, nothing in it runs that is not ours."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from app.state import Draft
from core.files import write_json
from core.plan.plan import make_plan
from core.report import format as fmt
from core.report.html import FIGURE_PX, render, write_report
from core.specs import Targets
from tests.app.ready import CONFIG, make_model, make_scores
from tests.synthetic_runs import GENERATIONS, SPEC, held, make_run, results


def without_scripts(html: str) -> str:
    return re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)


@pytest.fixture(scope="module")
def found() -> dict:  # type: ignore[type-arg]
    return results()


def test_every_number_of_the_results_is_in_it(found: dict) -> None:  # type: ignore[type-arg]
    html = without_scripts(render(make_run("done")))
    for role in ("teacher", "pruned", "distilled"):
        numbers = found[role]
        expected = [fmt.count(numbers["parameters"]), fmt.size(numbers["weight_bytes"])]
        expected += [fmt.rate(speed, "tokens/s") for speed in numbers["tokens_per_second"].values()]
        for measured in numbers["heldout"].values():
            expected += [fmt.nats(measured["loss_nats"]), fmt.number(measured["perplexity"]), fmt.number(measured["bits_per_byte"])]
            expected += [fmt.nats(measured["kl_nats"]), fmt.percent(measured["top1_agreement"])] if role != "teacher" else []
        assert [text for text in expected if text not in html] == []
    assert all(fmt.percent(part) in html for part in found["recovered"].values())
    assert all(fmt.duration(seconds) in html for seconds in found["seconds"].values())
    assert "Synthetic CPU" in html
    assert "transformers 5.23.0" in html


def test_it_loads_nothing_from_anywhere() -> None:
    html = render(make_run("done"))
    chrome = without_scripts(html)
    assert not re.search(r"https?://", chrome)
    assert not re.search(r"<(link|script|img|iframe)[^>]*\b(src|href)=", html)
    assert "@import" not in chrome
    assert html.count("plotly.js v") == 1


def test_prompts_and_answers_stay_text() -> None:
    run = make_run("done")
    attack = "<script>alert(1)</script>"
    answers = {role: [attack] for role in GENERATIONS["answers"]}
    write_json(run.path / "generations.json", {"prompts": [attack], "answers": answers})
    html = render(run)
    assert attack not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 4


def test_a_name_cannot_end_the_figures_script() -> None:
    spec = type(SPEC).from_dict(SPEC.to_dict() | {"name": "</script><b>x"})
    html = render(make_run("done", spec=spec))
    assert "</script><b>x" not in html


@pytest.mark.parametrize("state", ["queued", "interrupted", "failed"])
def test_a_run_in_any_state_has_a_report(state: str, tmp_path: Path) -> None:
    error = {"type": "UserError", "message": "The text is too short.", "hint": "Take a longer one."} if state == "failed" else None
    path = write_report(make_run(state, steps=12, error=error), tmp_path / "report.html")
    html = path.read_text(encoding="utf-8")
    assert ("The text is too short." in html) == (state == "failed")
    assert "Recipe" in html


def test_a_run_without_distillation_shows_what_it_has() -> None:
    run = make_run("done")
    write_json(run.path / "results.json", results(("teacher", "pruned")))
    (run.path / "events.jsonl").unlink()
    html = without_scripts(render(run))
    assert "Pruned, not retrained" in html
    assert "Distillation" not in html


def test_the_importance_that_the_plan_was_made_from_is_shown(tmp_path: Path) -> None:
    run, draft = make_run("done"), Draft()
    scores = make_scores(make_model(tmp_path / "model"), draft)
    make_plan(scores, CONFIG, Targets(num_hidden_layers=3, intermediate_size=24), draft.rank).save(run.path / "plan.npz")
    write_json(run.path / "results.json", results() | {"scores": scores.key})
    html = render(run)
    assert "Importance, and what was kept" in html
    assert html.count('role="img"') == 8
    (run.path / "plan.npz").unlink()
    assert "Importance, and what was kept" not in render(run)


def test_a_figure_has_the_room_that_it_takes_so_nothing_stands_on_another() -> None:
    html = render(make_run("done"))
    drawn = json.loads(re.search(r'id="figures">(.*?)</script>', html, re.DOTALL)[1])  # type: ignore[index]
    assert drawn
    for name, schemes in drawn.items():
        taken = schemes["light"]["layout"].get("height", FIGURE_PX)
        assert f'<div id="{name}" style="height: {taken}px"' in html


def test_the_report_that_a_run_writes_as_its_last_deed_does_not_call_it_running() -> None:
    run = make_run("running")
    with held(run):
        assert "State: running." in render(run)
        run.write_status(dataclasses.replace(run.last_word(), phase="save"))
        assert "State:" not in without_scripts(render(run))
