"""The targets page: every knob, every number, presets, undo, and ways out of what cannot be built."""

import dataclasses
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.state import Draft
from core.model.cost import cost_of
from core.model.dims import dims_of, resized
from core.report.format import count
from core.specs import Goal, RankSpec, Targets
from tests.app.ready import CONFIG, board, charts, components, draft_in, make_model, make_scores, open_page, rerun, said


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    return Draft(model=str(make_model(tmp_path / "small")))


def parameters(at: AppTest) -> str:
    """What the page gives as the size after the cut."""
    return next(number["value"] for number in board(at)["numbers"] if number["name"] == "Parameters")


@pytest.mark.parametrize(
    ("kind", "key", "value", "targets"),
    [
        ("slider", "w_layers", 3, Targets(num_hidden_layers=3)),
        ("select_slider", "w_ffn", 30, Targets(intermediate_size=30)),
        ("select_slider", "w_kv_heads", 2, Targets(num_attention_heads=4, num_key_value_heads=2)),
        ("select_slider", "w_group", 1, Targets(num_attention_heads=3)),
    ],
)
def test_a_knob_moves_the_draft_and_the_numbers(draft: Draft, kind: str, key: str, value: int, targets: Targets) -> None:
    at = open_page("targets", draft)
    getattr(at, kind)(key=key).set_value(value)
    rerun(at)
    assert draft_in(at).targets == targets
    assert parameters(at) == count(cost_of(CONFIG, resized(dims_of(CONFIG), targets)).parameters)


def test_all_that_says_what_the_targets_come_to_follows_a_knob(draft: Draft) -> None:
    """A knob's move draws only parts of the page anew; none that speaks of the targets may be left out."""
    make_scores(Path(draft.model), draft)
    at = open_page("targets", dataclasses.replace(draft, goal=Goal(at_most="50%")))
    at.slider(key="w_layers").set_value(3)
    rerun(at)
    after = count(cost_of(CONFIG, resized(dims_of(CONFIG), Targets(num_hidden_layers=3))).parameters)
    told = said(at)
    assert f"→ {after}" in components(at)["cut"]["said"]
    assert "sizes are set" in [text.value for text in at.sidebar.caption]
    assert "ready to start" in [text.value for text in at.sidebar.caption]
    assert "3 of 5 layers stay" in board(at)["alt"]
    assert f"Parameters: {after}" in told
    assert "--num-hidden-layers 3" in told
    assert "rather than shallower" in told
    assert at.button(key="measure_draft")


def test_hidden_sizes_follow_the_heads(draft: Draft) -> None:
    at = open_page("targets", draft)
    at.toggle(key="w_any_size").set_value(True)
    rerun(at)
    before = at.select_slider(key="w_hidden").options
    at.select_slider(key="w_kv_heads").set_value(2)
    rerun(at)
    assert at.select_slider(key="w_hidden").options != before


def test_the_models_own_size_is_no_target(draft: Draft) -> None:
    at = open_page("targets", dataclasses.replace(draft, targets=Targets(num_hidden_layers=3)))
    at.slider(key="w_layers").set_value(5)
    rerun(at)
    assert draft_in(at).targets == Targets()


def test_what_cannot_be_built_is_told_and_one_click_mends_it(draft: Draft) -> None:
    at = open_page("targets", dataclasses.replace(draft, targets=Targets(hidden_size=23)))
    assert "hidden_size" in at.error[0].value
    way = next(button for button in at.button if button.key.startswith("way_"))
    way.click()
    rerun(at)
    assert not at.error
    assert draft_in(at).targets.hidden_size == 18


@pytest.mark.parametrize(
    "targets",
    [
        Targets(num_hidden_layers=999),
        Targets(hidden_size=577),
        Targets(intermediate_size=999),
        Targets(num_key_value_heads=50, num_attention_heads=50),
        Targets(num_hidden_layers=999, intermediate_size=20),
    ],
)
def test_sizes_beyond_the_sliders_in_a_link_are_answered_with_a_way_out(draft: Draft, targets: Targets) -> None:
    at = open_page("targets", dataclasses.replace(draft, targets=targets))
    assert "more than the model has" in at.error[0].value
    next(button for button in at.button if button.key.startswith("way_")).click()
    rerun(at)
    assert not at.error
    assert draft_in(at).targets == dataclasses.replace(Targets(), intermediate_size=20 if targets.intermediate_size == 20 else None)


def test_presets_set_targets_that_can_be_taken_back(draft: Draft) -> None:
    at = open_page("targets", draft)
    at.button(key="preset_25 % by depth").click()
    rerun(at)
    cut = draft_in(at).targets
    assert cut.num_hidden_layers is not None
    at.button(key="undo").click()
    rerun(at)
    assert draft_in(at).targets == Targets()
    at.button(key="redo").click()
    rerun(at)
    assert draft_in(at).targets == cut
    at.button(key="reset").click()
    rerun(at)
    assert draft_in(at).targets == Targets()


@pytest.mark.parametrize("key", ["undo", "redo", "reset"])
def test_a_step_that_cannot_be_taken_leaves_its_button_to_press(draft: Draft, key: str) -> None:
    """A button that its own press disabled would lose the keyboard's place."""
    at = open_page("targets", draft)
    assert not at.button(key=key).disabled
    at.button(key=key).click()
    rerun(at)
    assert draft_in(at) == draft
    assert [toast.value for toast in at.toast] == ([] if key == "reset" else [f"There is nothing to {key}."])


def test_without_scores_the_numbers_stand_and_the_page_says_what_is_missing(draft: Draft) -> None:
    at = open_page("targets", dataclasses.replace(draft, targets=Targets(num_hidden_layers=3)))
    assert parameters(at)
    assert "once importance is computed" in at.info[0].value
    assert len(charts(at)) == 1


def test_with_scores_it_says_how_much_importance_stays_and_which_layers_go(draft: Draft) -> None:
    scores = make_scores(Path(draft.model), draft)
    at = open_page("targets", dataclasses.replace(draft, targets=Targets(num_hidden_layers=3)))
    gone = sorted(map(int, scores.importance("layers", RankSpec()).argsort()[:2]))
    assert f"removed: {gone[0]}, {gone[1]}" in charts(at)[0]
    layers = board(at)["kept"][0]
    assert layers["name"] == "Layers"
    assert 0 < layers["part"] < 1


def test_a_ranking_that_was_not_measured_is_told_and_the_numbers_stand(draft: Draft) -> None:
    make_scores(Path(draft.model), draft)
    at = open_page("targets", dataclasses.replace(draft, targets=Targets(num_hidden_layers=3), rank=RankSpec(heads="taylor")))
    assert "Score again with gradient_blocks above 0" in at.warning[0].value
    assert parameters(at)
    assert len(charts(at)) == 1
    assert "--num-hidden-layers 3" in said(at)
    assert at.button(key="to_importance")


def test_the_command_does_what_the_page_shows(draft: Draft) -> None:
    at = open_page("targets", dataclasses.replace(draft, targets=Targets(num_hidden_layers=3)))
    assert "--num-hidden-layers 3" in said(at)


def test_rounds_go_into_the_draft_and_the_command_and_the_page_says_what_it_shows(draft: Draft) -> None:
    at = open_page("targets", draft)
    assert "one round" not in said(at)
    at.number_input(key="w_rounds").set_value(3)
    rerun(at)
    assert draft_in(at).rank == RankSpec(rounds=3)
    assert "--rounds 3" in at.code[-1].value
    assert "as one round would choose it" in said(at)


def test_new_numbers_come_quickly(draft: Draft) -> None:
    make_scores(Path(draft.model), draft)
    at = open_page("targets", draft)
    seconds = []
    for layers in (4, 3, 2, 4, 3):
        at.slider(key="w_layers").set_value(layers)
        began = time.perf_counter()
        rerun(at)
        seconds.append(time.perf_counter() - began)
        rerun(at)
    assert sorted(seconds)[2] < 1.0  # the bar of 0.3 s is measured by the bench on a quiet machine; this catches a model call


def test_a_goal_moves_the_sliders_within_its_limit_and_undo_takes_it_back(draft: Draft) -> None:
    at = open_page("targets", draft)
    at.text_input(key="w_goal_at_most").set_value("75%")
    rerun(at)
    at.selectbox(key="w_goal_shape").set_value("balanced")
    rerun(at)
    assert "above the limit" in said(at)
    at.button(key="goal_find").click()
    rerun(at)
    found = draft_in(at)
    limit = 0.75 * cost_of(CONFIG).parameters
    assert cost_of(CONFIG, resized(dims_of(CONFIG), found.targets)).parameters <= limit
    assert found.targets.num_hidden_layers is not None
    assert "below the limit" in said(at)
    assert found.run_spec(kind="prune").goal.at_most == "", "the targets alone decide a run"


@pytest.mark.parametrize(("at_most", "told"), [("many", "is not understood"), ("1%", "nearest")])
def test_a_goal_that_cannot_be_met_is_told_and_moves_nothing(draft: Draft, at_most: str, told: str) -> None:
    at = open_page("targets", draft)
    at.text_input(key="w_goal_at_most").set_value(at_most)
    rerun(at)
    at.button(key="goal_find").click()
    rerun(at)
    assert told in said(at)
    assert draft_in(at).targets == Targets()


def test_advice_is_shown_where_it_applies_and_followed_by_a_click(draft: Draft) -> None:
    at = open_page("targets", dataclasses.replace(draft, targets=Targets(num_hidden_layers=4)))
    assert "rather than shallower" in said(at)
    at.button(key="advice_loss_for_depth").click()
    rerun(at)
    assert draft_in(at).rank.depth == "ppl"
    at.button(key="advice_width_before_depth").click()
    rerun(at)
    assert draft_in(at).targets.num_hidden_layers is None
    assert draft_in(at).targets.intermediate_size is not None
    assert "rather than shallower" not in said(at)
