"""Goals are met by counting: within the limit, as large as it allows, of sizes that can be loaded again."""

import dataclasses
import itertools
from typing import Any

import pytest

from core.errors import UserError
from core.model.cost import DTYPE_BYTES, cost_of
from core.model.dims import CONFIG_KEYS, dims_of, resized
from core.model.families import FAMILIES
from core.plan.goals import MEASURES, SHAPES, choices_of, limit_of, reach, sizes, value_of
from core.plan.sizes import problems
from core.specs import GOAL_MEASURES, GOAL_SHAPES, WEIGHT_DTYPES, Goal, Targets
from tests.plan.test_presets import SMALL, WIDE
from tests.tiny import tiny_config

CONFIGS = {"small": SMALL, "wide": WIDE} | {kind: tiny_config(kind).to_dict() for kind in sorted(FAMILIES)}
SHARES = (90, 75, 60)


def test_the_names_in_specs_are_those_that_are_known() -> None:
    assert (tuple(MEASURES), tuple(SHAPES), tuple(DTYPE_BYTES)) == (GOAL_MEASURES, GOAL_SHAPES, WEIGHT_DTYPES)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_goal_is_met_and_no_larger_model_of_its_shape_would_meet_it(name: str, measure: str, shape: str) -> None:
    config: Any = CONFIGS[name]
    source = dims_of(config)
    for share in SHARES:
        goal = Goal(at_most=f"{share}%", measure=measure, shape=shape, context=64)
        try:
            targets = reach(config, goal)
        except UserError:
            values = [value_of(config, resized(source, found), goal) for found in sizes(config, goal, Targets())]
            assert min(values) > limit_of(config, goal), "it is refused only where nothing meets it"
            continue
        assert not problems(config, targets)
        assert value_of(config, resized(source, targets), goal) <= limit_of(config, goal)
        larger = [found for found in sizes(config, goal, Targets()) if _contains(config, found, targets) and found != targets]
        assert all(value_of(config, resized(source, found), goal) > limit_of(config, goal) for found in larger)
        if "ffn" in SHAPES[shape]:
            wider = [size for size in choices_of(config, "ffn", source, goal.multiple) if size > resized(source, targets).ffn]
            assert not wider or value_of(
                config, resized(source, dataclasses.replace(targets, intermediate_size=wider[0])), goal
            ) > limit_of(config, goal)


def _contains(config: Any, large: Targets, small: Targets) -> bool:
    a, b = resized(dims_of(config), large), resized(dims_of(config), small)
    return all(getattr(a, name) >= getattr(b, name) for name in CONFIG_KEYS)


@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_go_from_the_model_itself_to_small_and_never_grow(shape: str) -> None:
    found = list(sizes(WIDE, Goal(shape=shape), Targets()))
    dims = [resized(dims_of(WIDE), targets) for targets in found]
    assert dims[0] == dims_of(WIDE)
    for large, small in itertools.pairwise(dims):
        assert all(getattr(large, name) >= getattr(small, name) for name in CONFIG_KEYS)
        assert large != small


def test_a_larger_limit_never_gives_a_smaller_model() -> None:
    goals = [Goal(at_most=f"{share}%", shape="balanced") for share in range(40, 101, 5)]
    counts = [value_of(WIDE, resized(dims_of(WIDE), reach(WIDE, goal)), goal) for goal in goals]
    assert counts == sorted(counts)
    assert counts[-1] == value_of(WIDE, dims_of(WIDE), goals[-1]), "all of the model is all of the model"


def test_sizes_that_are_fixed_stay_and_the_goal_moves_the_rest() -> None:
    goal = Goal(at_most="60%", shape="balanced")
    targets = reach(WIDE, goal, Targets(num_hidden_layers=25))
    assert targets.num_hidden_layers == 25
    assert targets.intermediate_size is not None
    with pytest.raises(UserError, match="fixed by hand"):
        reach(WIDE, Goal(at_most="60%", shape="depth"), Targets(num_hidden_layers=25))


def test_sizes_are_multiples_unless_that_is_switched_off() -> None:
    snapped, free = (reach(WIDE, Goal(at_most="77%", shape="width", multiple=multiple)) for multiple in (64, 1))
    assert snapped.intermediate_size is not None
    assert snapped.hidden_size is not None
    assert snapped.intermediate_size % 64 == 0
    assert snapped.hidden_size % 8 == snapped.hidden_size % 9 == 0
    goal = Goal(at_most="77%")
    counts = [value_of(WIDE, resized(dims_of(WIDE), found), goal) for found in (snapped, free)]
    assert counts[0] <= counts[1] <= limit_of(WIDE, goal)


@pytest.mark.parametrize(
    ("at_most", "measure", "value"),
    [("107.6M", "parameters", 107.6e6), ("1.2 B", "non_embedding", 1.2e9), ("200MB", "weights", 200e6), ("2 gb", "memory", 2e9), ("3g", "flops", 3e9), ("12345", "parameters", 12345)],
)  # fmt: skip
def test_limits_are_read_with_their_units(at_most: str, measure: str, value: float) -> None:
    assert limit_of(WIDE, Goal(at_most=at_most, measure=measure)) == pytest.approx(value)


@pytest.mark.parametrize("at_most", ["", "many", "-3M", "0%", "100 MB", "1e6", "5 %%", "M"])
def test_a_limit_that_cannot_be_read_is_refused_with_the_units_that_can(at_most: str) -> None:
    with pytest.raises(UserError, match=r"at_most.*units"):
        limit_of(WIDE, Goal(at_most=at_most))


def test_a_limit_below_the_smallest_model_names_it_and_what_keeps_it_large() -> None:
    with pytest.raises(UserError, match=r"num_hidden_layers.*stay as they are; the nearest is .*intermediate_size=64"):
        reach(WIDE, Goal(at_most="1%", shape="ffn"))
    told = Goal(at_most="100", shape="all")
    with pytest.raises(UserError, match="even the smallest"):
        reach(WIDE, told)


@pytest.mark.parametrize("measure", ["reading", "writing"])
def test_a_speed_is_a_share_of_the_time_and_is_called_estimated(measure: str) -> None:
    whole = value_of(WIDE, dims_of(WIDE), Goal(measure=measure))
    assert limit_of(WIDE, Goal(at_most="1.25x", measure=measure)) == pytest.approx(0.8 * whole)
    assert limit_of(WIDE, Goal(at_most="80%", measure=measure)) == pytest.approx(0.8 * whole)
    for bare in ("1.25", "1.25 M"):
        with pytest.raises(UserError, match=r"at_most.*such as 1\.3x.*units"):
            limit_of(WIDE, Goal(at_most=bare, measure=measure))
    with pytest.raises(UserError, match=r"100x as fast at .*\(estimated\) cannot be reached.*the nearest is [\d.]+x as fast"):
        reach(WIDE, Goal(at_most="100x", measure=measure))


def test_writing_reads_all_weights_once_and_the_cache_of_every_sequence_and_reading_is_arithmetic() -> None:
    cost, dims = cost_of(WIDE), dims_of(WIDE)
    cache = 2 * 2 * dims.layers * dims.kv_heads * dims.head_dim
    goal = Goal(measure="writing", dtype="float32", context=100, batch=3)
    assert value_of(WIDE, dims, goal) == 4 * cost.matmul_parameters + 3 * 100 * cache
    assert value_of(WIDE, dims, Goal(measure="reading", context=64)) == cost.flops_per_token(32)


def test_what_is_fixed_by_hand_is_named_where_it_binds() -> None:
    with pytest.raises(UserError, match=r"because intermediate_size is fixed by hand; the nearest is .*intermediate_size=1472"):
        reach(WIDE, Goal(at_most="0.1%", shape="all"), Targets(intermediate_size=1472))
    with pytest.raises(UserError, match=r"intermediate_size: 9999 is more than the model has"):
        reach(WIDE, Goal(at_most="50%", shape="all"), Targets(intermediate_size=9999))
    with pytest.raises(
        UserError, match=r"because hidden_size, num_key_value_heads stay as they are and num_hidden_layers is fixed by hand"
    ):
        reach(WIDE, Goal(at_most="1%", shape="balanced"), Targets(num_hidden_layers=30))


def test_memory_counts_the_cache_of_every_sequence() -> None:
    one, many = (value_of(WIDE, dims_of(WIDE), Goal(measure="memory", context=100, batch=batch)) for batch in (1, 5))
    dims = dims_of(WIDE)
    assert many - one == 4 * 100 * 2 * 2 * dims.layers * dims.kv_heads * dims.head_dim
