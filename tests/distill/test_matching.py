"""Which states are matched: the paper's default, what a plan implies, and what a person writes."""

from typing import Any

import pytest

from core.distill.matching import advised, conflicts, derived, kinds_of, member_conflicts, pairs_of, stored_as
from core.errors import UserError
from core.specs import DistillSpec, RunSpec
from tests.tiny import tiny_config


def test_states_help_when_much_depth_went_and_logits_suffice_when_little_did() -> None:
    assert advised(32, 32) == advised(25, 32) == ()
    assert advised(24, 32) == advised(16, 32) == ("output", "embedding")


def test_auto_stands_for_what_is_advised_and_no_kind_comes_twice() -> None:
    assert kinds_of(DistillSpec(), 16, 32) == ("output", "embedding"), "by default as advised"
    assert kinds_of(DistillSpec(), 32, 32) == ()
    assert kinds_of(DistillSpec(intermediate=()), 16, 32) == ()
    assert kinds_of(DistillSpec(intermediate=("embedding", "auto", "attention")), 16, 32) == ("embedding", "output", "attention")


@pytest.mark.parametrize("settings", [{"kl_weight": 0.0, "ce_weight": 1.0}, {"intermediate_weight": 0.0}, {"teacher_cache": "float32"}])
def test_nothing_is_advised_that_the_other_settings_leave_no_room_for(settings: dict[str, Any]) -> None:
    """Conventional training, or a stored teacher, need not turn the default off; who names states is told."""
    assert kinds_of(DistillSpec(**settings), 16, 32) == ()
    assert DistillSpec(**settings).problems() == []
    assert DistillSpec(**settings, intermediate=("output",)).problems()


def test_the_default_is_the_papers_pair() -> None:
    """Table 17 of 2407.14679: 16 of 32 layers, student 13 from teacher 29."""
    assert pairs_of((), 16, 32, None) == ((13, 29),)
    assert pairs_of((), 16, 32, [*range(14), 30, 31]) == ((13, 29),)
    assert pairs_of((), 2, 5, None) == ((0, 2),)


def test_a_kept_layer_is_held_against_what_the_next_one_was_trained_to_read() -> None:
    assert derived([0, 1, 4, 5], 7) == ((0, 0), (1, 3), (2, 4), (3, 6))
    assert derived(range(5), 5) == tuple((i, i) for i in range(5)), "nothing cut, every layer against itself"
    assert pairs_of(("plan",), 4, 7, [0, 1, 4, 5]) == derived([0, 1, 4, 5], 7)
    assert pairs_of((), 4, 7, [0, 1, 4, 5]) == ((1, 3),)


def test_pairs_are_taken_as_written() -> None:
    assert pairs_of(("0:0", " 3 : 6 "), 4, 7, None) == ((0, 0), (3, 6))


@pytest.mark.parametrize("text", ["4:0", "0:7", "1", "a:b", "-1:2", "1:2:3"])
def test_pairs_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="layer_map"):
        pairs_of((text,), 4, 7, None)


def test_a_plan_that_is_not_there_cannot_be_followed() -> None:
    with pytest.raises(UserError, match="cut by a plan"):
        pairs_of(("plan",), 4, 7, None)


def test_conflicts_are_known_before_any_model_is_loaded() -> None:
    stored = DistillSpec(intermediate=("output", "embedding"), teacher_cache="float32")
    assert conflicts(stored, 16, 32)[0].startswith("teacher_cache: keeps final states only, and output and embedding")
    assert conflicts(DistillSpec(teacher_cache="float32"), 16, 32) == []


@pytest.mark.parametrize(
    ("settings", "kinds", "rows", "stored"),
    [
        ({}, (), 129, "float32"), ({}, (), 128, "off"), ({}, ("output",), 129, "off"), ({"sharding": "both"}, (), 129, "off"),
        ({"sharding": "student"}, (), 129, "float32"), ({"teacher_cache": "off"}, (), 129, "off"), ({"teacher_cache": "bfloat16"}, (), 1, "bfloat16"),
    ],
)  # fmt: skip
def test_the_teachers_states_are_stored_by_default_where_blocks_come_again(
    settings: dict[str, Any], kinds: tuple[str, ...], rows: int, stored: str
) -> None:
    assert stored_as(DistillSpec(**settings), kinds, rows, 128) == stored
    assert "out of range" in conflicts(DistillSpec(intermediate=("output",), layer_map=("30:2",)), 16, 32)[0]
    assert conflicts(DistillSpec(intermediate=("output",), layer_map=("plan",)), 16, 32) == []
    assert conflicts(DistillSpec(intermediate=(), layer_map=("30:2",)), 16, 32) == [], "no state is compared, so no map is read"
    assert "cut by a plan" in conflicts(DistillSpec(intermediate=("output",), layer_map=("plan",)), 16, 32, planned=False)[0]


@pytest.mark.parametrize(
    ("lineage", "layer_map", "told"),
    [("previous", ("2:4",), "Member 2: layer_map: 2:4 is out of range"), ("first", ("2:4",), ""), ("first", ("3:4",), "Member 2: layer_map: 3:4"),
     ("previous", ("plan",), ""), ("first", ("plan",), "Member 2: layer_map: 'plan' needs")],
)  # fmt: skip
def test_every_member_of_a_family_is_checked_and_the_first_that_cannot_be_is_named(
    lineage: str, layer_map: tuple[str, ...], told: str
) -> None:
    """Five layers, then four, then three; what is wrong with the second member alone is known before the first is made."""
    distill = DistillSpec(intermediate=("output",), layer_map=layer_map)
    spec = RunSpec(kind="family", stages=("num_hidden_layers=4", "num_hidden_layers=3"), lineage=lineage, distill=distill)
    found = member_conflicts(spec, tiny_config().to_dict())
    assert len(found) == bool(told)
    assert all(problem.startswith(told) for problem in found)
