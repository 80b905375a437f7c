"""The model page: with and without a model, with good and bad input, before and after scoring."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetStates
from streamlit.testing.v1 import AppTest

from app import cached
from app.state import Draft
from core.data.blocks import build
from core.files import write_json
from core.model.cost import cost_of
from core.report.format import count, duration, rate, size
from core.runs import control
from core.runs.folder import Run, create
from core.runs.machine import cpu_model
from core.runs.status import Status
from core.score.store import Scores
from core.specs import DataSpec, RunSpec, ScoreSpec, Targets, TextSpec
from tests.app.ready import CONFIG, draft_in, make_model, make_scores, open_page, rerun, said
from tests.tiny import save_tiny, tiny_tokenizer
from tests.whole.conftest import write_text


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
    assert "with 8192 tokens, in 12 s" in said(at)
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


@pytest.mark.parametrize(
    ("kind", "name", "value", "flag"),
    [
        ("number_input", "ppl_blocks", 0, "--ppl-blocks 0"),
        ("number_input", "gradient_blocks", 8, "--gradient-blocks 8"),
        ("number_input", "greedy", 2, "--greedy 2"),
        ("number_input", "shards", 8, "--shards 8"),
        ("number_input", "batch_size", 2, "--score-batch-size 2"),
        ("number_input", "ridge", 0.1, "--ridge 0.1"),
        ("toggle", "covariances", True, "--covariances"),
        ("toggle", "pre_activation", True, "--pre-activation"),
    ],
)
def test_what_is_measured_goes_into_the_draft_and_the_command(draft: Draft, kind: str, name: str, value: object, flag: str) -> None:
    at = open_page("model", draft)
    getattr(at, kind)(key=f"w_score_{name}").set_value(value)
    rerun(at)
    assert draft_in(at).score == dataclasses.replace(draft.score, **{name: value})
    assert flag in at.code[-1].value


def test_runs_of_layers_are_chosen_by_their_lengths(draft: Draft) -> None:
    at = open_page("model", draft)
    at.multiselect(key="w_windows").set_value([3, 2])
    rerun(at)
    assert draft_in(at).score.windows == (2, 3)
    assert "--windows 2 --windows 3" in at.code[-1].value


def test_the_help_tells_what_covariances_cost_in_memory(draft: Draft) -> None:
    help_ = open_page("model", draft).toggle(key="w_score_covariances").help
    assert size(4 * 5 * (40**2 + 48**2 + 2 * 24**2), estimated=True) in help_


@pytest.mark.parametrize(
    ("score", "name", "value", "told"),
    [
        (ScoreSpec(), "gradient_blocks", 2, "Gradient blocks must be 0 or at least the 4 shards, got 2."),
        (ScoreSpec(gradient_blocks=4), "shards", 8, "Gradient blocks must be 0 or at least the 8 shards, got 4."),
        (ScoreSpec(windows=(2,)), "ppl_blocks", 0, "Blocks for removing layers must be above 0"),
    ],
)
def test_what_cannot_be_measured_is_refused_and_the_draft_stays(draft: Draft, score: ScoreSpec, name: str, value: int, told: str) -> None:
    at = open_page("model", dataclasses.replace(draft, score=score))
    at.number_input(key=f"w_score_{name}").set_value(value)
    rerun(at)
    assert told in at.error[0].value
    assert draft_in(at) == dataclasses.replace(draft, score=score)
    assert at.number_input(key=f"w_score_{name}").value == getattr(score, name)
    at.number_input(key="w_score_batch_size").set_value(2)
    rerun(at)
    assert not at.error


def test_more_shards_than_blocks_are_told_and_not_started(draft: Draft) -> None:
    at = open_page("model", dataclasses.replace(draft, score=ScoreSpec(shards=32)))
    assert "cannot be 32 with 16 calibration blocks" in at.error[0].value
    assert at.button(key="compute_importance").disabled


def test_the_panel_names_what_would_be_measured(draft: Draft) -> None:
    at = open_page("model", dataclasses.replace(draft, score=ScoreSpec(gradient_blocks=8, ppl_blocks=1)))
    assert "norms of the weights, activations, gradients (8 blocks) and loss without each layer (1 block)" in said(at)


@pytest.mark.parametrize(
    ("score", "told"),
    [
        (
            ScoreSpec(ppl_blocks=2, gradient_blocks=16),
            "≈ 18 s",
        ),  # weights 4 s, activations 4 s, gradients of twice, losses of half the blocks
        (ScoreSpec(ppl_blocks=0), "≈ 8.0 s"),
        (ScoreSpec(ppl_blocks=0, covariances=True), "≈ 10 s"),  # never measured: half as long again as activations, which come along
    ],
)
def test_the_time_is_told_by_what_each_pass_took_before(draft: Draft, score: ScoreSpec, told: str) -> None:
    make_scores(Path(draft.model), dataclasses.replace(draft, score=ScoreSpec(gradient_blocks=8)))
    assert told in said(open_page("model", dataclasses.replace(draft, score=score)))


def test_activations_that_came_along_with_covariances_are_estimated_by_these(draft: Draft) -> None:
    make_scores(Path(draft.model), dataclasses.replace(draft, score=ScoreSpec(covariances=True)))
    told = said(open_page("model", dataclasses.replace(draft, score=ScoreSpec(shards=2, ppl_blocks=0))))
    assert "≈ 6.7 s" in told, "weights 4 s, activations two thirds of the covariances' 4 s"


def test_a_model_that_was_never_scored_can_be_timed_and_the_estimate_follows(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[RunSpec] = []
    monkeypatch.setattr(control, "start", started.append)
    at = open_page("model", draft)
    assert "was not timed on this machine" in said(at)
    at.button(key="probe").click()
    rerun(at)
    assert started == [draft.run_spec(kind="probe")]
    run = create(started[0])
    write_json(run.path / "results.json", {"model": {"tokens_per_second": {"prefill": 1024.0}}, "machine": {"cpu": cpu_model()}})
    write_json(run.path / "status.json", dataclasses.asdict(Status(state="done")))
    tokens = 512 * (16 + 0.6 * 5 * draft.score.ppl_blocks)
    rerun(at)
    assert f"{duration(tokens / 1024, estimated=True)}, going by one timed forward pass, {rate(1024.0, 'tokens/s')}." in said(at)
    write_json(run.path / "results.json", {"model": {"tokens_per_second": {"prefill": 1024.0}}, "machine": {"cpu": "another"}})
    assert "was not timed on this machine" in said(rerun(at))


def test_a_scoring_that_failed_says_why_and_can_be_tried_again(draft: Draft) -> None:
    run = create(draft.run_spec(kind="score"))
    failure = {"type": "UserError", "message": "The text is shorter than one block.", "hint": "Choose a longer text."}
    write_json(run.path / "status.json", dataclasses.asdict(Status(state="failed", error=failure)))
    at = open_page("model", draft)
    assert "shorter than one block. Choose a longer text." in at.error[0].value
    assert at.button(key="compute_importance")


def test_calibration_blocks_are_shown_token_by_token(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    text = write_text(tmp_path / "text.txt", 6, 0)
    data = DataSpec(text=TextSpec(source=str(text)), elsewhere=(), seq_len=32, calibration_blocks=3, train_blocks=2, heldout_blocks=1)
    made = build(data, folder)
    at = open_page("model", Draft(model=str(folder), data=data))
    at.number_input(key="w_block").set_value(2)
    rerun(at)
    shown = next(code.value for code in at.code if "│" in code.value)
    expected = tiny_tokenizer().decode(made.calibration_NT[1], skip_special_tokens=False)
    assert shown.replace("│", "") == expected.replace("\n", "↵")
    assert shown.count("│") == 31


def test_a_scoring_that_ends_while_the_page_is_drawn_is_not_overlooked(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    at, run = open_page("model", draft), create(RunSpec(kind="score", model=draft.model))
    find = cached.find_scores

    def ending(asked: Draft) -> Scores | None:
        found = find(asked)
        if found is None and sys._getframe(1).f_code.co_name == "panel":
            make_scores(Path(draft.model), draft)
            run.write_status(dataclasses.replace(run.last_word(), state="done"))
        return found

    monkeypatch.setattr(cached, "find_scores", ending)
    rerun(at)
    assert run.last_word().state == "done"
    assert "see_importance" in [button.key for button in at.button], "it is watched once more, and the page drawn anew"


def bound(at: AppTest) -> list[Any]:
    """The number fields that follow the draft."""
    found = [number for number in at.number_input if (number.key or "").startswith("w_")]
    assert len(found) >= 6
    return found


def test_a_browser_is_told_the_draft_s_values_until_it_holds_them(draft: Draft) -> None:
    at = open_page("model", draft)
    at._run(widget_state=WidgetStates())  # a browser that missed the first run, when this one began before it was done
    assert all(number.proto.set_value or number.value == number.proto.default for number in bound(at))


def test_a_browser_that_holds_the_draft_s_values_is_not_told_again(draft: Draft) -> None:
    """What is told overwrites what was typed since the run began."""
    at = rerun(open_page("model", draft))
    assert not any(number.proto.set_value for number in bound(at))


def uploaded(draft: Draft, name: str, content: bytes) -> AppTest:
    """The page after a text was uploaded to it."""
    at = open_page("model", draft)
    at.segmented_control(key="w_text_kind").set_value("Local file")
    rerun(at)
    at.file_uploader(key="upload_text").set_value((name, content, "application/octet-stream"))
    return rerun(at)


def test_an_uploaded_text_is_taken_with_its_column_and_stands_in_the_command(draft: Draft) -> None:
    at = uploaded(draft, "own.jsonl", b'{"body": "One story."}\n')
    text = draft_in(at).data.text
    assert Path(text.source).read_bytes() == b'{"body": "One story."}\n'
    assert text.column == "body"
    assert at.text_input(key="w_text_Local file").value == text.source
    assert text.source in said(at)


def test_an_upload_that_cannot_be_read_is_told_and_the_draft_keeps_its_text(draft: Draft) -> None:
    at = uploaded(draft, "own.pdf", b"%PDF")
    assert "Allowed are .txt" in at.error[0].value
    assert draft_in(at).data == draft.data
