"""The model page: with and without a model, with good and bad input, before and after scoring."""

import dataclasses
from pathlib import Path

import pytest

from app.state import Draft
from core.files import write_json
from core.model.cost import cost_of
from core.report.format import count
from core.runs import control
from core.runs.folder import Run, create
from core.runs.status import Status
from core.specs import DataSpec, RunSpec, Targets, TextSpec
from tests.app.ready import CONFIG, draft_in, make_model, make_scores, open_page, rerun, said


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    return Draft(model=str(make_model(tmp_path / "small")))


def test_a_machine_without_the_embedded_model_is_offered_to_fetch_it() -> None:
    at = open_page("model", Draft())
    assert "not here yet" in said(at)
    assert at.button(key="fetch_embedded").label == "Fetch and compute importance"


def test_the_card_shows_what_the_model_is(draft: Draft) -> None:
    at = open_page("model", draft)
    shown = {metric.label: metric.value for metric in at.metric}
    assert shown["Parameters"] == count(cost_of(CONFIG).parameters)
    table = at.table[0].value
    assert "3 (groups of 2)" in table.to_string()
    assert "Hidden size" in table.to_string()


def test_a_folder_that_holds_no_model_is_refused_and_the_draft_stays(draft: Draft, tmp_path: Path) -> None:
    at = open_page("model", draft)
    at.text_input(key="w_model_Local folder").set_value(str(tmp_path / "nowhere"))
    rerun(at)
    assert "nowhere" in at.error[0].value
    assert draft_in(at).model == draft.model


def test_another_folder_becomes_the_model(draft: Draft, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other")
    at = open_page("model", draft)
    at.text_input(key="w_model_Local folder").set_value(str(other))
    rerun(at)
    assert draft_in(at).model == str(other)
    assert not at.error


def test_the_numbers_of_the_text_go_into_the_draft(draft: Draft) -> None:
    at = open_page("model", draft)
    at.number_input(key="w_calibration_blocks").set_value(4)
    rerun(at)
    assert draft_in(at).data.calibration_blocks == 4
    assert "2048 tokens to measure importance on" in said(at)


def test_a_text_that_is_calibrated_on_is_not_held_out_elsewhere(draft: Draft) -> None:
    at = open_page("model", draft)
    at.selectbox(key="w_text_name").set_value("sotu")
    rerun(at)
    assert draft_in(at).data.text.source == "sotu"
    assert draft_in(at).data.elsewhere == ()


def test_a_file_that_is_not_there_is_refused_beside_the_field(draft: Draft) -> None:
    at = open_page("model", draft)
    at.segmented_control(key="w_text_kind").set_value("Local file")
    rerun(at)
    at.text_input(key="w_text_Local file").set_value("/nowhere/text.txt")
    rerun(at)
    assert "/nowhere/text.txt" in at.error[0].value
    assert draft_in(at).data.text.source == "wikipedia"


def test_samples_of_a_local_text_are_shown(tmp_path: Path, draft: Draft) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text('{"body": "The coppice grows back."}\nnot json\n{"body": "Every seven years."}\n')
    at = open_page("model", Draft(model=draft.model, data=DataSpec(text=TextSpec(source=str(text), column="body"))))
    assert "The coppice grows back." in said(at)
    assert "Every seven years." in said(at)


def test_compute_importance_starts_one_run_with_the_drafts_settings(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[RunSpec] = []
    monkeypatch.setattr(control, "start", started.append)
    at = open_page("model", draft)
    assert "not known yet" in said(at)
    at.button(key="compute_importance").click()
    rerun(at)
    assert started == [draft.run_spec(kind="score")]


def test_a_scoring_that_waits_is_shown_and_can_be_stopped(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create(draft.run_spec(kind="score"))
    stopped: list[Run] = []
    monkeypatch.setattr(control, "cancel", stopped.append)
    at = open_page("model", draft)
    assert any("Waiting" in bar.text for bar in at.progress)
    at.button(key="stop_scoring").click().run()
    assert [one.id for one in stopped] == [run.id]


def test_finished_scores_are_dated_and_lead_on(draft: Draft) -> None:
    make_scores(Path(draft.model), draft)
    at = open_page("model", draft)
    assert "with 8192 tokens, in 21 s" in said(at)
    assert at.button(key="see_importance")


def test_scores_of_changed_weights_do_not_count(draft: Draft) -> None:
    make_scores(Path(draft.model), draft)
    (Path(draft.model) / "config.json").write_text((Path(draft.model) / "config.json").read_text() + " ")
    assert open_page("model", draft).button(key="compute_importance")


def test_another_model_drops_the_sizes_chosen_for_the_old_one(draft: Draft, tmp_path: Path) -> None:
    at = open_page("model", dataclasses.replace(draft, targets=Targets(num_hidden_layers=3)))
    at.text_input(key="w_model_Local folder").set_value(str(make_model(tmp_path / "other")))
    rerun(at)
    assert draft_in(at).targets == Targets()


def test_removal_losses_can_be_left_out(draft: Draft) -> None:
    at = open_page("model", draft)
    at.number_input(key="w_ppl_blocks").set_value(0)
    rerun(at)
    assert draft_in(at).score.ppl_blocks == 0


def test_a_scoring_that_failed_says_why_and_can_be_tried_again(draft: Draft) -> None:
    run = create(draft.run_spec(kind="score"))
    failure = {"type": "UserError", "message": "The text is shorter than one block.", "hint": "Choose a longer text."}
    write_json(run.path / "status.json", dataclasses.asdict(Status(state="failed", error=failure)))
    at = open_page("model", draft)
    assert "shorter than one block. Choose a longer text." in at.error[0].value
    assert at.button(key="compute_importance")
