"""The story's choices, sentences and figures."""

import copy
import itertools

from core.report.story import choices, numbers, story_picture, told
from tests.synthetic_runs import results


def shrunk(parameters: int, loss: float) -> dict[str, object]:
    """Results of a run whose distilled model has this size and loss."""
    made = copy.deepcopy(results())
    made["pruned"]["parameters"] = made["distilled"]["parameters"] = parameters
    made["distilled"]["heldout"]["wikipedia"]["loss_nats"] = loss
    return made


RUNS = {"a": shrunk(107_000_000, 3.4), "b": shrunk(90_000_000, 3.9), "beaten": shrunk(110_000_000, 3.8)}


def test_choices_go_from_the_original_down_and_each_step_costs_more_and_is_smaller() -> None:
    found = choices(RUNS)
    assert [(one.run, one.role) for one in found] == [("a", "teacher"), ("a", "distilled"), ("b", "distilled")]
    for earlier, later in itertools.pairwise(found):
        assert later.parameters < earlier.parameters
        assert later.cost_nats > earlier.cost_nats
    assert found[0].cost_nats == 0


def test_the_sentence_tells_size_speed_and_agreement_before_and_after() -> None:
    small = choices(RUNS)[1]
    assert told(small) == (
        "A model 20.5 % smaller that writes 25.7 % faster. On wikipedia text that it never saw, it picks the same next word piece as the "
        "original 81 times in 100; cut but not retrained, it was 54 times in 100."
    )
    assert "original model, uncut" in told(choices(RUNS)[0])


def test_every_figure_says_where_it_comes_from() -> None:
    for one in choices(RUNS):
        size, speed, quality = numbers(one)
        assert size.basis == "Counted."
        assert "Synthetic CPU" in speed.basis
        assert "4088 word pieces" in quality.basis
    assert numbers(choices(RUNS)[1])[0].value == "−20.5 %"
    assert numbers(choices(RUNS)[0])[2].value == "100.0 %"


def test_what_was_not_measured_is_no_choice() -> None:
    assert choices({}) == []
    assert choices({"a": {}, "b": {"teacher": {"parameters": 3, "heldout": {}}}}) == []


def test_the_chosen_model_is_the_largest_mark_and_the_text_names_it() -> None:
    picture = story_picture(choices(RUNS), 2)
    sizes = picture.figure.data[1].marker.size
    assert max(range(3), key=lambda i: sizes[i]) == 2
    assert "Chosen: 90.0 M" in picture.alt
