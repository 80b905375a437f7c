"""The Prune & distill page in every state that a run can be in."""

import contextlib
import dataclasses
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app import run_view, tail
from app.state import Draft
from core.files import write_json
from core.model.embedded import MODEL_NAME
from core.runs import control
from core.runs.folder import Run, all_runs, member_id
from core.runs.machine import cpu_model
from core.specs import RankSpec, RunSpec, ScoreSpec, Targets
from core.workspace import ROOT, room
from tests.app.ready import charts, figure, unfolded
from tests.synthetic_runs import early_events, held, make_run, results, step_event, write_events

CONFIG = {
    "model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3,
    "vocab_size": 49152, "tie_word_embeddings": True,
}  # fmt: skip
ERROR = {"type": "UserError", "message": "The text is shorter than one block.", "hint": "Choose a longer text."}


@pytest.fixture(autouse=True)
def model(workspace: Path) -> None:
    """The embedded model's config, which is all that the page reads of it."""
    write_json(room("models") / MODEL_NAME / "config.json", CONFIG)


def page(**query: str) -> AppTest:
    """Open the page under an address."""
    at = unfolded(AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=30)).run()
    for name, value in query.items():
        at.query_params[name] = value
    at.switch_page("../pages/5_distill.py").run()
    assert not at.exception
    return at


def draft_of(targets: Targets, **changes: Any) -> str:
    """Store a draft as the pages would, and name it."""
    draft = Draft(targets=targets, **changes)
    write_json(room("drafts") / f"{draft.identity()}.json", draft.to_dict())
    return draft.identity()


def said(at: AppTest) -> str:
    """All text on the page."""
    kinds = ("subheader", "markdown", "caption", "error", "warning", "code")
    parts = [element.value for kind in kinds for element in at.get(kind)]
    parts += [element.proto.text for element in at.get("progress")] + [element.proto.body for element in at.get("badge")]
    return "\n".join(map(str, parts))


def labels(at: AppTest) -> list[str]:
    return [button.label for button in at.button]


def test_without_targets_it_says_what_to_do_next() -> None:
    at = page()
    assert "Nothing to cut yet" in said(at)
    assert "Choose targets" in labels(at)


def test_the_form_shows_what_will_be_cut_and_the_command() -> None:
    at = page(draft=draft_of(Targets(num_hidden_layers=24, intermediate_size=1280)))
    assert at.metric[0].value == "135 M → 103 M"
    assert at.code[0].value == "python -m core distill --num-hidden-layers 24 --intermediate-size 1280"
    at.number_input(key="w_steps").set_value(90).run()
    assert at.code[0].value.endswith("--steps 90")
    assert not at.button(key="start").disabled


def test_how_much_a_repair_fits_on_stands_in_the_command_and_goes_with_it() -> None:
    at = page(draft=draft_of(Targets(intermediate_size=1024)))
    at.number_input(key="w_repair_blocks").set_value(9).run()
    assert "--repair-blocks 9" in said(at)
    at.segmented_control(key="w_repair").set_value("none").run()
    assert not [box for box in at.number_input if box.key == "w_repair_blocks"]
    assert "--repair none" in said(at)


def test_time_is_not_estimated_before_anything_was_measured_here() -> None:
    at = page(draft=draft_of(Targets(num_hidden_layers=24)))
    assert "not measured yet" in at.table[0].value.to_string()


def test_time_is_estimated_from_what_this_machine_did_before() -> None:
    earlier = make_run("done")
    found = results()
    found["machine"]["cpu"] = cpu_model()
    write_json(earlier.path / "results.json", found)
    said_of_time = page(run="new", draft=draft_of(Targets(num_hidden_layers=24))).table[0].value.to_string()
    assert re.search(r"≈ 2 min \d+ s, as 1 earlier run went", said_of_time)


def test_all_problems_stand_beside_the_form_and_nothing_can_start() -> None:
    at = page(draft=draft_of(Targets(hidden_size=500)))
    at.number_input(key="w_steps").set_value(-5)
    at.number_input(key="w_temperature").set_value(0.0).run()
    texts = [error.value for error in at.error]
    assert len(texts) == 3
    assert any("hidden_size: 500" in text for text in texts)
    assert any(text.startswith("Steps: must be 0 or more, got -5") for text in texts)
    assert at.button(key="start").disabled


def test_what_is_learnt_from_stands_in_the_command_with_its_own_knob() -> None:
    at = page(draft=draft_of(Targets(num_hidden_layers=20)))
    at.selectbox(key="w_loss").set_value("skew_kl").run()
    at.number_input(key="w_skew").set_value(0.2).run()
    at.segmented_control(key="w_states_mode").set_value("Chosen").run()
    at.multiselect(key="w_intermediate").set_value(["output", "attention"])
    at.text_input(key="w_layer_map").set_value("3:4, 17:27").run()
    command = at.code[0].value
    for part in ("--loss skew_kl", "--skew 0.2", "--intermediate output --intermediate attention", "--layer-map 3:4 --layer-map 17:27"):
        assert part in command
    assert not at.error
    at.text_input(key="w_layer_map").set_value("3:40").run()
    assert any("Layer map: 3:40 is out of range" in error.value for error in at.error)


def test_the_teachers_store_says_its_size_and_does_not_go_with_states() -> None:
    at = page(draft=draft_of(Targets(num_hidden_layers=20)))
    assert "Stored exactly it takes 70.8 MB on disk, at half size 35.4 MB. Intermediate states are learnt from, so it is asked." in said(at)
    at.segmented_control(key="w_states_mode").set_value("None").run()
    assert "Each block is seen once, so it is asked." in said(at)
    at.number_input(key="w_steps").set_value(400).run()
    assert "so it is stored exactly if the disk has room." in said(at)
    assert "151 MB at most" in at.table[0].value.to_string()
    at.number_input(key="w_steps").set_value(60).run()
    at.segmented_control(key="w_states_mode").set_value("As advised").run()
    at.segmented_control(key="w_teacher_cache").set_value("float32").run()
    assert "70.8 MB at most" in at.table[0].value.to_string()
    assert at.code[0].value.endswith("--teacher-cache float32")
    assert "Then only its predictions are learnt from." in said(at), "what is advised gives way, what is chosen does not"
    at.segmented_control(key="w_states_mode").set_value("Chosen").run()
    assert any(error.value.startswith("The teacher: keeps final states only") for error in at.error)
    assert at.button(key="start").disabled


def test_a_training_to_be_shared_is_left_to_a_launcher() -> None:
    at = page(draft=draft_of(Targets(num_hidden_layers=20)))
    at.selectbox(key="w_sharding").set_value("student").run()
    assert [error.value.split(":")[0] for error in at.error] == ["Several processes"]
    assert at.code[0].value.endswith("--sharding student")
    assert at.button(key="start").disabled


def test_a_tracker_that_is_not_installed_is_told_before_the_run_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.distill.trackers.find_spec", lambda package: None)
    at = page(draft=draft_of(Targets(num_hidden_layers=20)))
    at.multiselect(key="w_report_to").set_value(["mlflow"]).run()
    assert [error.value for error in at.error] == [
        "Trackers: mlflow cannot be reported to, its package is not installed. Install it (pip install mlflow), or leave it out."
    ]
    assert at.code[0].value.endswith("--report-to mlflow")
    assert at.button(key="start").disabled


def test_a_familys_layer_map_must_fit_every_member() -> None:
    at = page(draft=draft_of(Targets(num_hidden_layers=20)))
    at.segmented_control(key="w_kind").set_value("family").run()
    at.segmented_control(key="w_states_mode").set_value("Chosen").run()
    at.text_input(key="w_layer_map").set_value("19:28").run()
    assert [error.value[:40] for error in at.error] == ["Member 2: layer_map: 19:28 is out of range"[:40]]


def test_start_makes_one_run_and_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[Run] = []
    monkeypatch.setattr(control, "launch", lambda run, **_: launched.append(run))
    at = page(draft=draft_of(Targets(num_hidden_layers=24)))
    at.button(key="start").click().run()
    assert not at.exception
    assert [run.id for run in launched] == [run.id for run in all_runs()] == [at.query_params["run"]]
    assert launched[0].spec.targets.num_hidden_layers == 24
    assert "queued" in said(at)


def test_a_running_run_is_found_without_an_address_and_shows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "FRESH_SECONDS", 0.0)
    with held(make_run("stopping", steps=33)) as run:
        (run.path / "cancel").unlink()
        at = page()
        text = said(at)
        assert at.query_params["run"] == run.id
        assert "distill: 33 of 60" in text
        assert "Gap recovered at step 30: ≈ 59 % on wikipedia and ≈ 59 % on sotu" in text
        assert {"Stop and save", "Cancel and discard"} <= set(labels(at))
        assert next(metric.value for metric in at.metric if metric.label == "Phase left").startswith("≈ ")
        write_events(run, [step_event(time.time(), step) for step in range(34, 41)])
        at.run()
        assert "step 40" in said(at)


def test_no_estimate_of_the_time_left_before_20_steps_or_5_percent() -> None:
    with held(make_run("stopping", steps=2)) as run:
        (run.path / "cancel").unlink()
        at = page(run=run.id)
        assert next(metric.value for metric in at.metric if metric.label == "Phase left") == "–"


def test_a_silent_worker_is_noticed() -> None:
    with held(make_run("stopping", steps=5)) as run:
        (run.path / "cancel").unlink()
        run.write_status(dataclasses.replace(run.last_word(), updated=time.time() - 42))
        assert re.search(r"No news for 4\d s", said(page(run=run.id)))


def test_stop_and_save_asks_the_worker_and_then_waits() -> None:
    with held(make_run("stopping", steps=33)) as run:
        (run.path / "cancel").unlink()
        at = page(run=run.id)
        at.button(key="stop").click().run()
        assert run.cancel_request() is not None
        assert "Stopping at step 33, then saving" in said(at)
        assert at.button(key="stop").disabled


def test_the_page_follows_a_run_to_its_end_without_losing_it() -> None:
    run = make_run("stopping", steps=50)
    (run.path / "cancel").unlink()
    with held(run):
        at = page(run=run.id)
    run.write_status(dataclasses.replace(run.last_word(), state="stopped", message="Stopped; what was saved is kept."))
    at.run()
    assert not at.exception
    assert at.query_params["run"] == run.id
    assert "Resume" in labels(at)
    assert "Stopped; what was saved is kept." in said(at)


@pytest.mark.parametrize(("state", "steps"), [("failed", 12), ("interrupted", 33)])
def test_a_dead_run_says_why_and_offers_to_go_on(state: str, steps: int) -> None:
    run = make_run(state, steps=steps, error=ERROR if state == "failed" else None)
    at = page(run=run.id)
    text = said(at)
    assert (ERROR["message"] if state == "failed" else "without a word") in text
    assert "Resume" in labels(at)
    assert "step 30 of 60" in text
    assert f"run: {run.id}" in text


def test_a_done_run_leads_on_to_the_comparison() -> None:
    at = page(run=make_run("done").id)
    assert "Compare the result" in labels(at)
    assert "Gap recovered: 70 % on wikipedia and 70 % on sotu" in said(at)
    assert "The capital of France is" in said(at)


def test_a_waiting_run_tells_its_place_in_line() -> None:
    first, second = make_run("stopping", steps=3), make_run("queued")
    (first.path / "cancel").unlink()
    with contextlib.ExitStack() as stack:
        stack.enter_context(held(first))
        stack.enter_context(held(second))
        third = make_run("queued")
        with held(third):
            at = page(run=third.id)
            assert "Queued, position 2" in said(at)
            at.button(key="leave").click().run()
            assert third.cancel_request() is not None


def test_another_run_can_be_chosen_and_then_stands_in_the_address() -> None:
    older, newer = make_run("done"), make_run("interrupted", steps=5)
    at = page(run=newer.id)
    at.selectbox[0].set_value(older.id).run()
    assert at.query_params["run"] == older.id
    assert "Compare the result" in labels(at)
    at.selectbox[0].set_value("new").run()
    assert "Nothing to cut yet" in said(at)


def test_a_run_that_is_gone_is_named_and_the_form_stands_there() -> None:
    at = page(run="20200101-000000-distill-abcdef")
    assert "is not in this workspace" in said(at)


def test_a_run_that_is_deleted_while_it_is_watched_is_told_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    one = make_run("done")

    def vanish(run_id: str, seconds: float | None) -> None:
        shutil.rmtree(one.path)
        one.status()

    monkeypatch.setattr(run_view, "header", vanish)
    at = page(run=one.id)
    assert f"The run {one.id} is not in this workspace" in said(at)


def test_the_second_tab_that_starts_the_same_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "launch", lambda run, **_: (run.path / "launched").touch())
    tabs = [page(run="new", draft=draft_of(Targets(num_hidden_layers=24))) for _ in range(2)]
    for at in tabs:
        at.button(key="start").click().run()
        assert not at.exception
    assert len(all_runs()) == 1
    assert "has started" in tabs[0].toast[0].value
    assert "under way already" in tabs[1].toast[0].value


def test_measuring_again_after_distillation_does_not_turn_the_clock_back() -> None:
    with held(make_run("stopping", steps=60)) as run:
        (run.path / "cancel").unlink()
        write_events(run, [{"time": time.time(), "phase": "measure", "done": 1, "total": 4}])
        run.write_status(dataclasses.replace(run.last_word(), phase="measure", done=1, total=4))
        at = page(run=run.id)
        assert ":primary[:material/pending:] **evaluate**" in said(at)


def test_before_the_first_step_the_page_says_what_will_be_there() -> None:
    run = make_run("queued")
    write_events(run, early_events(time.time()))
    with held(run):
        run.write_status(dataclasses.replace(run.last_word(), state="running", phase="measure", done=4, total=4, started=time.time()))
        assert "appear here with the first distillation step" in said(page(run=run.id))


@pytest.mark.parametrize(
    ("rank", "score", "told"),
    [
        (RankSpec(heads="taylor"), ScoreSpec(), "Score again with gradient_blocks above 0"),
        (RankSpec(depth="ppl"), ScoreSpec(ppl_blocks=0), "Score again with ppl_blocks above 0"),
        (RankSpec(neurons="nonsense"), ScoreSpec(), "There is no criterion 'nonsense' for neurons"),
        (RankSpec(heads="taylor"), ScoreSpec(gradient_blocks=8), ""),
    ],
)
def test_a_ranking_that_the_scoring_cannot_answer_is_told_before_the_start(rank: RankSpec, score: ScoreSpec, told: str) -> None:
    at = page(draft=draft_of(Targets(num_hidden_layers=20), rank=rank, score=score))
    assert told in said(at)
    assert at.button(key="start").disabled == bool(told)


def test_a_family_shows_its_members_their_quality_against_size_and_who_was_made_from_whom() -> None:
    stages = ("intermediate_size=1280", "intermediate_size=1024,num_hidden_layers=24", "intermediate_size=768")
    run = make_run("done", spec=RunSpec(kind="family", stages=stages, targets=Targets()))
    for number, (state, steps) in enumerate((("done", 60), ("stopped", 20)), start=1):
        member = make_run(state, steps=steps)
        member.path.rename(run.path.parent / member_id(run.id, number))
    figures = results()
    write_json(run.path / "results.json", figures | {"members": [{"run": "-", "stage": stages[0], **figures["distilled"]}]})
    at = page(run=run.id)
    table = next(table.value for table in at.table if "Sizes" in table.value)
    assert table["State"].tolist() == ["done", "stopped", "to come"]
    assert table["Sizes"].tolist()[1] == "intermediate_size=1024, num_hidden_layers=24"
    assert table["Gap recovered"].tolist() == ["70.4 %", "–", "–"]
    assert charts(at)[-1] == "3 runs made from 1 model: SmolLM2-135M-Instruct. The longest chain has 3 generations."
    assert {"Teacher", "Member 1, distilled"} <= {trace.get("name") for trace in figure(at, "family_quality")["data"]}


def test_a_family_goes_down_to_the_draft_member_by_member(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[RunSpec] = []
    monkeypatch.setattr(control, "start", lambda spec: started.append(spec) or make_run("queued", spec=spec))
    at = page(draft=draft_of(Targets(num_hidden_layers=20, intermediate_size=1024)))
    at.segmented_control(key="w_kind").set_value("family").run()
    assert [field.value for field in at.text_input if field.label.startswith("Member")] == [
        "num_hidden_layers=24,intermediate_size=1280", "num_hidden_layers=20,intermediate_size=1024",
    ]  # fmt: skip
    assert at.code[0].value.startswith("python -m core family --stage num_hidden_layers=24,intermediate_size=1280 --stage")
    assert at.table[0].value["Layers"].tolist() == [24, 20]
    at.number_input(key="w_members").set_value(3).run()
    assert len(at.table[0].value) == 3
    last = next(field for field in at.text_input if field.label == "Member 3")
    last.set_value("num_hidden_layers=26").run()
    assert any("Member 3: num_hidden_layers: 26 is more than the model has (23)" in error.value for error in at.error)
    assert at.button(key="start").disabled
    next(field for field in at.text_input if field.label == "Member 3").set_value("depth=3").run()
    assert any("'depth=3' is not understood" in error.value for error in at.error)
    at.number_input(key="w_members").set_value(2).run()
    at.button(key="start").click().run()
    assert (started[0].kind, len(started[0].stages), started[0].targets) == ("family", 2, Targets())
    assert not at.exception


def test_a_running_run_that_slows_down_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "FRESH_SECONDS", 0.0)
    with held(make_run("running", steps=40)) as run:
        assert not page(run=run.id).warning
        slow = [step_event(time.time(), step) | {"tokens_per_second": 30.0} for step in range(41, 52)]
        write_events(run, slow)
        assert "Training has slowed to 30.0 tok/s" in page(run=run.id).warning[0].value
