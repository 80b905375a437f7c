"""The Compare page: empty, with one run, with several, and with one's own prompt."""

from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import comparison
from core.files import read_json, write_json
from core.model.dims import Dims
from core.model.embedded import MODEL_NAME
from core.plan.plan import Plan
from core.runs import control
from core.runs.folder import Run
from core.specs import DistillSpec, RankSpec, RunSpec, Targets
from core.workspace import ROOT, room
from tests.app.ready import charts, figure
from tests.app.test_distill_page import CONFIG, labels, said
from tests.synthetic_runs import SPEC, make_run, results


@pytest.fixture(autouse=True)
def model(workspace: Path) -> None:
    """The embedded model's config, which is all that the page reads of it."""
    write_json(room("models") / MODEL_NAME / "config.json", CONFIG)


def page() -> AppTest:
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=30).run()
    at.switch_page("../pages/6_compare.py").run()
    assert not at.exception
    return at


def plan_of(gone: int) -> Plan:
    """A plan that removes one layer of three and keeps all else."""
    kept = np.array([layer for layer in range(3) if layer != gone])
    source = Dims(layers=3, hidden=8, ffn=5, heads=4, kv_heads=2, head_dim=2, vocab=11)

    def all_of(units: int) -> np.ndarray:
        return np.tile(np.arange(units), (2, 1))

    return Plan(targets=Targets(num_hidden_layers=2), rank=RankSpec(), source=source, layers=kept, kv_heads=all_of(2), heads=all_of(4),
                neurons=all_of(5), channels=np.arange(8))  # fmt: skip


def test_without_a_finished_run_it_says_what_to_do_next() -> None:
    make_run("interrupted", steps=3)
    at = page()
    assert "No finished run yet" in said(at)
    assert "Prune & distill" in labels(at)


def test_one_run_shows_three_models_with_units_and_the_alt_text_tells_the_point() -> None:
    make_run("done")
    at = page()
    sizes, quality = at.table[0].value, at.table[1].value
    assert sizes["model"].tolist() == ["Teacher", "Pruned, not retrained", "Distilled"]
    assert sizes["parameters"].tolist() == ["135 M", "107 M", "107 M"]
    assert quality["above the teacher"].tolist() == ["–", "1.96 nats", "0.580 nats"]
    assert "0.580 nats above the teacher" in charts(at)[0]


def test_the_other_domain_is_one_click_away() -> None:
    make_run("done")
    at = page()
    at.get("segmented_control")[0].set_value("sotu").run()
    assert at.table[1].value["loss"].tolist()[0] == "3.20 nats"


def test_answers_are_marked_where_they_leave_the_teacher_and_are_never_markup() -> None:
    run = make_run("done")
    write_json(
        run.path / "generations.json", {"prompts": ["Go"], "answers": {"teacher": ["one two three"], "distilled": ["one two **four** <b>"]}}
    )
    text = said(page())
    assert "one two :orange[:material/call_split:] :orange-background[\\*\\*four\\*\\* \\<b\\>]" in text
    assert "With the teacher for 2 words." in text


def test_several_runs_show_only_what_differs() -> None:
    first = make_run("done")
    other = make_run("done", spec=RunSpec(kind="distill", targets=SPEC.targets, distill=DistillSpec(steps=90)))
    at = page()
    at.multiselect(key="w_compared").set_value([first.id, other.id]).run()
    assert not at.exception
    recipe = at.table[2].value
    assert recipe["setting"].tolist() == ["distill.steps"]
    assert at.table[0].value["run"].tolist() == ["–", "A", "A", "B", "B"]
    assert {trace["name"] for trace in figure(at, "regrown")["data"]} == {"A", "B"}
    at.segmented_control(key="w_along").set_value("tokens").run()
    assert not at.exception
    assert max(figure(at, "regrown")["data"][0]["x"]) == 60 * 512
    names = {trace["name"] for trace in figure(at)["data"] if trace.get("name")}
    assert {"Teacher", "A, distilled", "B, distilled"} <= names


def test_teachers_that_were_measured_apart_are_told_apart() -> None:
    first, other = make_run("done"), make_run("done", spec=RunSpec(kind="distill", name="Second", targets=SPEC.targets))
    found = results()
    found["teacher"]["tokens_per_second"]["decode"] = 9.0
    write_json(other.path / "results.json", found)
    at = page()
    at.multiselect(key="w_compared").set_value([first.id, other.id]).run()
    assert at.table[0].value["run"].tolist() == ["A", "A", "A", "B", "B", "B"]
    assert at.table[1].value["run"].tolist() == ["–", "A", "A", "B", "B"]


def test_a_prompt_of_ones_own_asks_all_three_models(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[Run] = []
    monkeypatch.setattr(control, "launch", lambda run, **_: launched.append(run))
    run = make_run("done")
    for name in ("pruned", "model"):
        write_json(run.path / name / "config.json", {})
    at = page()
    at.text_input(key="w_own_prompt").set_value("Once upon a time")
    at.form_submit_button[0].click().run()
    assert not at.exception
    spec = launched[0].spec
    assert (spec.kind, spec.evaluate.prompts) == ("generate", ("Once upon a time",))
    assert spec.against == (str(run.path / "pruned"), str(run.path / "model"))
    answers = {"teacher": ["there was"], "pruned": ["the the"], "distilled": ["there was"]}
    write_json(launched[0].path / "generations.json", {"prompts": ["Once upon a time"], "answers": answers})
    write_json(launched[0].path / "status.json", {"state": "done", "created": 1.0})
    at.run()
    assert "The same as the teacher." in said(at)


def test_a_run_whose_models_are_gone_cannot_be_asked() -> None:
    make_run("done")
    at = page()
    at.text_input(key="w_own_prompt").set_value("Hello")
    at.form_submit_button[0].click().run()
    assert "are no longer in" in at.error[0].value


def test_the_axes_are_free_and_the_picture_says_what_lies_on_them() -> None:
    make_run("done")
    at = page()
    at.selectbox(key="w_across").set_value("decode")
    at.selectbox(key="w_up").set_value("agreement").run()
    assert not at.exception
    assert "same next token as the teacher against decoding, tokens/s on wikipedia" in charts(at)[0].lower()
    assert "26.9 tokens/s" in charts(at)[0]


def test_what_two_runs_kept_is_compared_layer_by_layer() -> None:
    first, second = make_run("done"), make_run("done", spec=RunSpec(kind="distill", name="Second", targets=SPEC.targets))
    at = page()
    at.multiselect(key="w_compared").set_value([first.id, second.id]).run()
    assert "where two of the runs still have their plan" in said(at)
    for run, gone in ((first, 1), (second, 2)):
        plan_of(gone).save(run.path / "plan.npz")
    at.run()
    assert not at.exception
    assert "A and B share 100.0 % of heads, 100.0 % of neurons and 100.0 % of embedding channels, 2 layers only in one." in said(at)


def test_runs_are_named_in_the_address_and_come_back_with_it() -> None:
    first, second = make_run("done"), make_run("done", spec=RunSpec(kind="distill", name="Second", targets=SPEC.targets))
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=30).run()
    at.query_params["runs"] = f"{first.id},gone,{second.id}"
    at.switch_page("../pages/6_compare.py").run()
    assert at.multiselect(key="w_compared").value == [first.id, second.id]
    assert "gone: not among the finished runs" in at.warning[0].value


def test_runs_that_are_deleted_under_the_open_page_are_named() -> None:
    first, second = make_run("done"), make_run("done", spec=RunSpec(kind="distill", name="Second", targets=SPEC.targets))
    at = page()
    at.multiselect(key="w_compared").set_value([first.id, second.id]).run()
    control.throw_away(second)
    at.run()
    assert not at.exception
    assert second.id in at.warning[0].value.replace("\\", "")
    assert at.multiselect(key="w_compared").value == [first.id]
    at.run()
    assert not at.warning


def test_the_report_of_a_run_that_is_gone_says_so() -> None:
    run = make_run("done")
    control.throw_away(run)
    assert "was deleted or moved" in comparison.report(run)


def test_common_prompts_of_several_runs_stand_side_by_side() -> None:
    first, second = make_run("done"), make_run("done", spec=RunSpec(kind="distill", name="Second", targets=SPEC.targets))
    at = page()
    at.multiselect(key="w_compared").set_value([first.id, second.id]).run()
    text = said(at)
    assert "A\\: distilled" in text
    assert "B\\: distilled" in text


def test_the_report_can_be_downloaded() -> None:
    make_run("done")
    assert page().get("download_button")[0].label == "Download the report"


def test_runs_of_another_version_are_passed_over() -> None:
    kept, old = make_run("done"), make_run("done")
    spec = read_json(old.path / "spec.json")
    spec["score"]["field_of_another_version"] = 1
    write_json(old.path / "spec.json", spec)
    assert page().multiselect(key="w_compared").value == [kept.id]
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=30).run()
    at.switch_page("../pages/5_distill.py").run()
    assert not at.exception
    assert len(at.selectbox[0].options) == 2
