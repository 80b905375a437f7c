"""The importance page: empty, and each view with and without a cut; what is clicked, switched and chosen."""

import base64
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetStates

from app import cached
from app.cached import card
from app.state import Draft
from app.subject import subject_of
from core.plan.pins import written
from core.report.format import number
from core.score import store
from core.score.agreement import ranks
from core.score.confidence import confidence
from core.score.criteria import criteria_of
from core.specs import Pins, RankSpec, ScoreSpec, Targets
from tests.app.ready import charts, draft_in, figure, make_model, make_scores, open_page, rerun, said, select

CUT = Targets(num_hidden_layers=3, intermediate_size=30, num_attention_heads=3, num_key_value_heads=3, hidden_size=18)


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    """A draft whose model is scored."""
    draft = Draft(model=str(make_model(tmp_path / "small")))
    make_scores(Path(draft.model), draft)
    return draft


def test_without_scores_the_page_says_what_it_will_show_and_how_to_get_it(tmp_path: Path) -> None:
    at = open_page("importance", Draft(model=str(make_model(tmp_path / "small"))))
    assert "Not measured yet" in said(at)
    assert at.button(key="compute_importance")
    assert not charts(at)


@pytest.mark.parametrize(("view", "pictures"), [("Layers", 1), ("Heads", 2), ("Neurons", 4), ("Embedding", 3)])
@pytest.mark.parametrize("targets", [Targets(), CUT], ids=["whole", "cut"])
def test_every_view_draws_its_charts_with_their_takeaways(draft: Draft, view: str, pictures: int, targets: Targets) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=targets), view=view)
    assert len(charts(at)) == pictures
    assert all(charts(at))
    assert ("cut" in said(at)) or targets == Targets()


def test_impossible_targets_are_told_and_everything_is_shown_as_kept(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=Targets(hidden_size=23)), view="Heads")
    assert "hidden_size" in at.warning[0].value
    assert "keeps all" in charts(at)[0]


@pytest.mark.parametrize(("view", "axis"), [("Layers", "layers"), ("Heads", "heads"), ("Neurons", "neurons"), ("Embedding", "channels")])
def test_only_measured_criteria_are_offered_and_the_rest_is_named_with_what_it_takes(draft: Draft, view: str, axis: str) -> None:
    at = open_page("importance", draft, view=view)
    offered = at.selectbox(key=f"w_criterion_{axis}").options
    measured = [found.title for found in criteria_of(axis).values() if found.needs in ("weights", "activations", "removal")]
    assert offered == measured
    told = next(caption.value for caption in at.caption if "Not measured" in caption.value)
    assert all(title in told for title in {found.title for found in criteria_of(axis).values()} - set(measured))
    assert not any(f"{title} (" in told or f"{title}," in told for title in measured)
    assert ("score again with windows" if axis == "layers" else "score again with gradient blocks above 0") in said(at)


@pytest.mark.parametrize("axis", ["layers", "heads", "neurons", "channels"])
def test_a_criterion_goes_into_the_draft_and_is_explained_with_its_source(draft: Draft, axis: str) -> None:
    view, name = {
        "layers": ("Layers", "kl"),
        "heads": ("Heads", "wanda"),
        "neurons": ("Neurons", "flap"),
        "channels": ("Embedding", "wanda"),
    }[axis]
    at = open_page("importance", draft, view=view)
    at.selectbox(key=f"w_criterion_{axis}").set_value(name)
    rerun(at)
    assert draft_in(at).rank == RankSpec().by(axis, name)
    assert criteria_of(axis)[name].says in said(at)
    assert "https://arxiv.org/abs/" in said(at)


def test_the_bars_show_the_chosen_criterion_first_and_then_the_two_common_ones(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, rank=RankSpec(depth="kl")), view="Layers")
    titles = [note["text"].split(",")[0] for note in figure(at)["layout"]["annotations"] if "↑" not in note["text"]]
    assert titles == ["Divergence when removed", "Block importance", "Loss when removed"]


def test_a_layer_has_its_rank_and_the_view_of_every_criterion(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=Targets(num_hidden_layers=3)), view="Layers")
    assert "as every criterion sees it" not in said(at)
    at.text_input(key="w_chosen_layers").set_value("2")
    rerun(at)
    assert "Layer 2 as every criterion sees it" in said(at)
    score_L = cached.importance(cached.find_scores(draft), "layers", RankSpec(), 2)
    assert at.metric[0].delta == f"rank {1 + int((score_L > score_L[2]).sum())} of 5"
    assert any("of 4 criteria would keep it" in alt for alt in charts(at))


def test_only_aggregated_criteria_offer_aggregations(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, rank=RankSpec(heads="magnitude")), view="Heads")
    assert "w_batch" not in [control.key for control in at.segmented_control]
    at.selectbox(key="w_criterion_heads").set_value("channel_first")
    rerun(at)
    assert "w_batch" in [control.key for control in at.segmented_control]


def test_protected_layers_stay(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=Targets(num_hidden_layers=3)), view="Layers")
    for first, last in ((3, 0), (0, 3)):
        at.number_input(key="w_protect_first").set_value(first)
        at.number_input(key="w_protect_last").set_value(last)
        rerun(at)
        kept = next(bar for bar in figure(at)["data"] if bar["name"] == "removed in this draft")["x"]
        assert values(kept) == ([3, 4] if first else [0, 1])
    assert draft_in(at).rank == RankSpec(protect_last=3)


def test_more_protection_than_layers_stay_is_told(draft: Draft) -> None:
    rank = RankSpec(protect_first=2, protect_last=2)
    at = open_page("importance", dataclasses.replace(draft, targets=Targets(num_hidden_layers=3), rank=rank), view="Layers")
    assert "more than the 3 that stay" in at.warning[0].value


def test_runs_of_layers_are_as_long_as_the_draft_removes(tmp_path: Path) -> None:
    draft = Draft(model=str(make_model(tmp_path / "small")), score=ScoreSpec(windows=(2,)), rank=RankSpec(depth="window"))
    make_scores(Path(draft.model), draft)
    at = open_page("importance", dataclasses.replace(draft, targets=Targets(num_hidden_layers=3)), view="Layers")
    assert not at.warning
    gone = values(next(bar for bar in figure(at)["data"] if bar["name"] == "removed in this draft")["x"])
    assert gone[1] - gone[0] == 1
    at = open_page("importance", dataclasses.replace(draft, targets=Targets(num_hidden_layers=2)), view="Layers")
    assert "Runs of 3 layers were not measured" in at.warning[0].value
    assert len(at.warning) == 1
    assert "Block importance" in charts(at)[0]


def test_a_criterion_that_was_not_measured_is_told_and_can_be_changed(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, rank=RankSpec(neurons="taylor")), view="Neurons")
    assert "Score again with gradient_blocks above 0" in at.warning[0].value
    assert len(at.warning) == 1
    assert at.selectbox(key="w_criterion_neurons").value == "taylor"
    assert not charts(at)
    at.selectbox(key="w_criterion_neurons").set_value("wanda")
    rerun(at)
    assert not at.warning
    assert charts(at)


def test_another_aggregation_changes_the_draft_and_is_compared_with_the_default(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=CUT), view="Neurons")
    assert "This is the default" in said(at)
    at.segmented_control(key="w_batch").set_value("var")
    rerun(at)
    assert draft_in(at).rank == RankSpec(batch="var")
    assert "Spearman's ρ" in said(at)
    assert "would be kept by the default too" in said(at)


def test_a_head_is_chosen_from_the_keyboard(draft: Draft) -> None:
    at = open_page("importance", draft, view="Heads")
    at.number_input(key="w_head_layer").set_value(3)
    rerun(at)
    at.number_input(key="w_head_head").set_value(4)
    rerun(at)
    rings = [shape for shape in figure(at)["layout"]["shapes"] if shape["type"] == "rect"]
    assert [(ring["x0"], ring["y0"]) for ring in rings] == [(2.5, 3.5)]


def test_clicked_heads_are_ringed_and_summed_up(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=CUT), view="Heads")
    select(at, "heads", (0.6, 1.4), (1.6, 4.4))
    shown = {metric.label: metric.value for metric in at.metric}
    assert shown["Selected"] == "3 heads"
    assert len([shape for shape in figure(at)["layout"]["shapes"] if shape["type"] == "rect"]) == 3


def test_a_chart_can_be_read_as_a_table(draft: Draft) -> None:
    at = open_page("importance", draft, view="Heads")
    at.toggle(key="table_heads").set_value(True)
    rerun(at)
    assert len(at.dataframe[0].value) == 30


def test_heads_within_the_noise_are_dotted_and_counted(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=CUT), view="Heads")
    scores = store.all_scores()[0]
    subject = subject_of(dataclasses.replace(draft, targets=CUT), card(draft.model), scores)
    undecided_LH = subject.undecided("heads")
    assert undecided_LH is not None
    dots = next(trace for trace in figure(at)["data"] if trace.get("name") == "undecided")
    assert len(values(dots["x"])) == undecided_LH.sum() > 0
    assert not undecided_LH[~subject.masks["layers"]].any()
    assert f"For {undecided_LH.sum()} of 18 the cut is within the noise" in said(at)


def test_without_shards_of_a_criterion_nothing_is_said_to_be_sure(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=CUT, rank=RankSpec(heads="magnitude")), view="Heads")
    assert "How sure this cut is cannot be told, so nothing is marked" in said(at)
    assert all(trace.get("name") != "undecided" for trace in figure(at)["data"])
    assert not {metric.label: metric.delta for metric in at.metric}["Rank in its layer"]


def test_a_chosen_head_tells_its_rank_interval_and_its_place_under_every_criterion(draft: Draft) -> None:
    at = open_page("importance", draft, view="Heads")
    scores = store.all_scores()[0]
    sure = confidence(scores, "heads", RankSpec())
    for head in np.argsort(sure.high_RU[0] - sure.low_RU[0])[[0, -1]].tolist():
        at.number_input(key="w_head_head").set_value(head)
        rerun(at)
        low, high = math.ceil(sure.low_RU[0, head]), math.floor(sure.high_RU[0, head])
        reach = "sure" if low == high else f"within {low} to {high}"
        rank = next(metric for metric in at.metric if metric.label == "Rank in its layer")
        assert (rank.value, rank.delta) == (str(sure.rank_RU[0, head]), reach)
    assert low < high
    at.toggle(key="table_heads_profile").set_value(True)
    rerun(at)
    table = at.dataframe[0].value
    assert table["criterion"].tolist() == [found.title for found in scores.offered("heads").values()]
    ranks_of = {name: ranks(scores.importance("heads", RankSpec(heads=name)))[0, head] for name in scores.offered("heads")}
    assert table["rank"].tolist() == list(ranks_of.values())
    reach = table.set_index("criterion")[["from", "to"]]
    wanda = confidence(scores, "heads", RankSpec(heads="wanda"))
    assert reach.loc["Wanda, structured"].tolist() == pytest.approx([wanda.low_RU[0, head], wanda.high_RU[0, head]])
    assert reach.loc["Weight magnitude"].isna().all()


def test_the_neighbours_of_a_unit_stand_beside_it_in_rank(draft: Draft) -> None:
    at = open_page("importance", draft, view="Embedding")
    at.number_input(key="w_channel_unit").set_value(17)
    rerun(at)
    order = (-store.all_scores()[0].importance("channels", RankSpec())).argsort(kind="stable").tolist()
    place = min(max(order.index(17), 2), 21)
    shown = [int(cell.split()[0]) for cell in at.table[0].value["Channel"]]
    assert shown == order[place - 2 : place + 3]
    assert "Channel 17 as every criterion sees it" in said(at)


def test_one_neuron_of_the_chosen_layer_is_shown(draft: Draft) -> None:
    at = open_page("importance", draft, view="Neurons")
    at.number_input(key="w_neuron_layer").set_value(2)
    at.number_input(key="w_neuron_unit").set_value(31)
    rerun(at)
    shown = {metric.label: metric.value for metric in at.metric}
    assert shown["Importance"] == number(store.all_scores()[0].importance("neurons", RankSpec())[2, 31])
    assert "Layer 2, neuron 31 as every criterion sees it" in said(at)


def test_the_cut_curve_of_neurons_shades_the_undecided(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=CUT), view="Embedding")
    band = [shape for shape in figure(at)["layout"]["shapes"] if shape.get("name") == "undecided"]
    assert len(band) == 1
    assert band[0]["x0"] < 18.5 < band[0]["x1"]


def test_a_clicked_head_is_pinned_the_plan_follows_and_undo_takes_it_back(draft: Draft) -> None:
    cut = dataclasses.replace(draft, targets=dataclasses.replace(CUT, num_hidden_layers=None))
    at = open_page("importance", cut, view="Heads")
    subject = subject_of(cut, card(draft.model), store.all_scores()[0])
    layer, head = np.argwhere(~subject.masks["heads"])[0].tolist()
    select(at, "heads", (layer, layer), (head, head))
    at.button(key="pin_heads_keep").click()
    rerun(at)
    pinned = draft_in(at)
    assert pinned.pins == Pins(keep_heads=(f"{layer}.{head}",))
    after = subject_of(pinned, card(draft.model), store.all_scores()[0]).masks["heads"]
    assert after[layer, head]
    assert after.sum() == subject.masks["heads"].sum()
    marks = next(trace for trace in figure(at, "heads")["data"] if trace.get("name") == "pinned to stay")
    assert (round(values(marks["x"])[0]), round(values(marks["y"])[0])) == (layer, head)
    assert f"--keep-heads {layer}.{head}" in said(at)
    assert not at.button(key="pin_heads_keep").disabled, "the button that was pressed must not lose the keyboard's focus"
    at.button(key="undo").click()
    rerun(at)
    assert draft_in(at) == cut


@pytest.mark.parametrize(
    ("view", "chart", "x", "y", "axis", "expected"),
    [
        ("Layers", "layers", (1.2, 3.4), (0, 1), "layers", ("2-3",)),
        ("Heads", "heads", (1, 1), (1.5, 3.5), "heads", ("1.2-3",)),
        ("Neurons", "neurons", (4, 4), (1.25, 1.25), "neurons", None),
        ("Embedding", "channels_curve", (1, 2.5), (0, 1), "channels", None),
    ],
)
def test_what_is_boxed_can_be_pinned_to_go_and_freed_again(
    draft: Draft, view: str, chart: str, x: tuple[float, float], y: tuple[float, float], axis: str, expected: tuple[str, ...] | None
) -> None:
    at = open_page("importance", draft, view=view)
    select(at, chart, x, y)
    at.button(key=f"pin_{axis}_prune").click()
    rerun(at)
    found = getattr(draft_in(at).pins, f"prune_{axis}")
    if expected is None:
        scores = store.all_scores()[0].importance(axis, RankSpec())
        best = int(np.argmax(scores[4])) if axis == "neurons" else np.sort(np.argsort(-scores)[:2])
        expected = (f"4.{best}",) if axis == "neurons" else written(np.isin(np.arange(24), best))
    assert found == expected
    assert at.warning, "nothing is cut yet, so nothing can be pinned to go"
    at.button(key=f"pin_{axis}_None").click()
    rerun(at)
    assert draft_in(at).pins == Pins()
    assert not at.warning


def test_a_selection_is_typed_and_a_typing_error_is_told_in_a_sentence(draft: Draft) -> None:
    at = open_page("importance", draft, view="Heads")
    at.text_input(key="w_chosen_heads").set_value("1.2-3, 4.0")
    rerun(at)
    assert {metric.label: metric.value for metric in at.metric}["Selected"] == "3 heads"
    for text, told in (("9.0", "The model has no 9.0"), ("two", "Must hold layer and number"), ("3.4-2", "got '3.4-2'")):
        at.text_input(key="w_chosen_heads").set_value(text)
        rerun(at)
        assert told in at.error[0].value
        assert at.text_input(key="w_chosen_heads").value == "1.2-3, 4.0"


def test_pins_that_cannot_be_met_are_told_and_can_be_cleared(draft: Draft) -> None:
    at = open_page(
        "importance", dataclasses.replace(draft, targets=CUT, pins=Pins(keep_heads=("0-1.0",), keep_layers=("0-3",))), view="Heads"
    )
    assert not at.warning, "a draft that is no draft is not opened"
    at = open_page("importance", dataclasses.replace(draft, targets=CUT, pins=Pins(keep_layers=("0-3",))), view="Heads")
    assert "4 layers are pinned to stay, but the target keeps 3" in at.warning[0].value
    at.button(key="clear_pins").click()
    rerun(at)
    assert not at.warning
    assert draft_in(at).pins == Pins()


@pytest.mark.parametrize("page", ["importance", "targets", "candidates", "distill"])
def test_a_draft_of_a_model_that_is_gone_says_so_and_leads_on(page: str) -> None:
    at = open_page(page, Draft(model="/nowhere/model", targets=Targets(num_hidden_layers=2)))
    assert "/nowhere/model" in said(at)
    assert not charts(at)
    at.button(key="to_model").click()
    rerun(at)
    assert at.title[0].value == "Model & data"


@pytest.mark.parametrize("page", ["importance", "targets", "candidates", "distill"])
def test_before_the_embedded_model_is_fetched_nothing_is_called_broken(page: str) -> None:
    at = open_page(page, Draft(targets=Targets(num_hidden_layers=2)))
    assert "The embedded model is not here yet" in "".join(heading.value for heading in at.subheader)
    assert "cannot be read" not in said(at)
    assert not at.error
    assert at.button(key="to_model")


def test_scores_of_other_settings_are_offered_where_the_draft_has_none(draft: Draft) -> None:
    other = dataclasses.replace(draft, score=ScoreSpec(shards=2))
    at = open_page("importance", other)
    assert "scored on" in said(at)
    at.button(key=f"use_{store.all_scores()[0].key}").click()
    rerun(at)
    assert draft_in(at) == draft
    assert charts(at)


@pytest.mark.parametrize("view", ["Nonsense", "", "Heads<script>"])
def test_a_view_that_does_not_exist_shows_the_first(draft: Draft, view: str) -> None:
    assert "Block importance" in charts(open_page("importance", draft, view=view))[0]


def test_sizes_out_of_range_in_a_linked_draft_are_told(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=Targets(num_hidden_layers=99)), view="Heads")
    assert "99 is more than the model has (5)" in at.warning[0].value


def values(numbers: Any) -> list[int]:
    """What a trace holds, whether it is written as a list or as bytes."""
    if isinstance(numbers, dict):
        return np.frombuffer(base64.b64decode(numbers["bdata"]), numbers["dtype"]).tolist()
    return list(numbers)


def test_a_field_that_the_browser_sends_as_it_was_before_it_was_set_changes_nothing(draft: Draft) -> None:
    """The browser sends all fields with each, also those that it has not yet heard of."""
    at = open_page("importance", draft, view="Neurons")
    before = {state.id: state for state in at._tree.get_widget_states().widgets}
    text, number = (at.text_input(key="w_chosen_neurons").id, at.number_input(key="w_neuron_unit").id)
    for unit in (1, 2, 3):
        states = WidgetStates(widgets=before.values())
        next(state for state in states.widgets if state.id == number).double_value = unit
        if unit == 3:  # by now it has heard of the first
            next(state for state in states.widgets if state.id == text).string_value = "0.1"
        at._run(widget_state=states)
    assert at.text_input(key="w_chosen_neurons").value == "0.3"
    assert at.number_input(key="w_neuron_unit").value == 3
