"""Laws of the pool: every candidate fits, counts what the model counts, and gives something for what it takes."""

import dataclasses
from typing import Any

import pytest

from core.errors import UserError
from core.model.cost import cost_of
from core.model.dims import dims_of, resized
from core.model.families import FAMILIES
from core.plan.sizes import problems
from core.search.space import VARIED, candidates, possible
from core.specs import Pins, RankSpec, RunSpec, SearchSpec
from tests.tiny import tiny_config

CONFIG: dict[str, Any] = tiny_config().to_dict()


@pytest.mark.parametrize("keep", [0.9, 0.6, 0.4])
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_every_candidate_is_under_the_budget_and_near_it_can_be_built_and_costs_what_is_said(kind: str, keep: float) -> None:
    config = tiny_config(kind).to_dict()
    whole, spec = cost_of(config).parameters, SearchSpec(keep=keep, within=0.1)
    found = candidates(config, spec)
    assert found
    for one in found:
        cost = cost_of(config, resized(dims_of(config), one.targets))
        assert (one.parameters, one.flops) == (cost.parameters, cost.flops_per_token())
        assert 0.9 * keep * whole - 1 <= one.parameters <= keep * whole
        assert one.dims == resized(dims_of(config), one.targets)
        assert not problems(config, one.targets)


def test_none_is_at_least_as_small_as_another_everywhere_and_none_comes_twice() -> None:
    found = candidates(CONFIG, SearchSpec(keep=0.6))
    sizes = [tuple(getattr(one.dims, name) for name in VARIED) for one in found]
    assert len(set(sizes)) == len(sizes)
    assert not [(a, b) for a in sizes for b in sizes if a != b and all(x <= y for x, y in zip(a, b, strict=True))]


def test_the_largest_stand_first() -> None:
    counts = [one.parameters for one in candidates(CONFIG, SearchSpec(keep=0.6))]
    assert counts == sorted(counts, reverse=True)


def test_every_size_of_the_grid_that_is_left_out_is_too_large_too_small_or_within_another() -> None:
    spec = SearchSpec(keep=0.5, within=0.05)
    whole, source, found = cost_of(CONFIG).parameters, dims_of(CONFIG), candidates(CONFIG, spec)
    kept = [tuple(getattr(one.dims, name) for name in VARIED) for one in found]
    for layers in range(1, 6):
        for kv_heads, heads in ((1, 1), (1, 2), (2, 2), (2, 4), (3, 3), (3, 6)):
            for hidden in (24, 16, 12, 8, 6):
                for ffn in range(1, 41, 3):
                    dims = dataclasses.replace(source, layers=layers, hidden=hidden, ffn=ffn, heads=heads, kv_heads=kv_heads)
                    parameters, size = cost_of(CONFIG, dims).parameters, (layers, hidden, ffn, heads, kv_heads)
                    fits = 0.475 * whole <= parameters <= 0.5 * whole
                    on_grid = hidden % heads == 0 and (
                        hidden % 8 == 0 or hidden == 24 or not [w for w in range(heads, 24, heads) if w % 8 == 0]
                    )
                    if fits and on_grid:
                        assert any(all(a <= b for a, b in zip(size, one, strict=True)) for one in kept), size


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (SearchSpec(keep=0.001), "the smallest model that this grid holds has"),
        (SearchSpec(keep=0.9, within=1e-6), "no sizes on the grid have between"),
    ],
)
def test_a_budget_that_nothing_meets_is_told_with_the_way_out(spec: SearchSpec, told: str) -> None:
    with pytest.raises(UserError, match=told):
        candidates(CONFIG, spec)


def test_sizes_that_cannot_keep_what_is_pinned_are_left_out() -> None:
    spec, pins = SearchSpec(keep=0.6, within=0.2), Pins(keep_layers=("0-4",))
    found = possible(CONFIG, spec, RankSpec(), pins)
    assert [one.dims for one in found] == [one.dims for one in candidates(CONFIG, spec) if one.dims.layers == 5]
    assert possible(CONFIG, spec, RankSpec()) == candidates(CONFIG, spec)


@pytest.mark.parametrize(
    ("pins", "rank", "told"),
    [
        (Pins(keep_layers=("0-4",), keep_channels=("0-23",), keep_neurons=("0.0-39",)), RankSpec(), r"^None of the \d+ sizes within keep 0.3 .*; of .*: .* are pinned to stay .*, but .* Or raise keep\.$"),
        (Pins(keep_layers=("0-99",)), RankSpec(), r"^keep_layers: the model has no 0-99; its layers count from 0 to 4\.$"),
        (Pins(), RankSpec(protect_first=3, protect_last=3), r"^None of .* are protected, more than the"),
    ],
)  # fmt: skip
def test_pins_that_no_size_can_keep_are_told_before_anything_is_scored(pins: Pins, rank: RankSpec, told: str) -> None:
    with pytest.raises(UserError, match=told):
        possible(CONFIG, SearchSpec(keep=0.3, within=0.3), rank, pins)


def test_a_search_leaves_training_blocks_to_learn_from() -> None:
    data = RunSpec().data
    for blocks, steps, told in ((data.train_blocks + 1, 0, "cannot be 129 of 128"), (data.train_blocks, 4, "none is left to retrain on")):
        (found,) = RunSpec(kind="search", search=SearchSpec(blocks=blocks, retrain_steps=steps)).problems()
        assert told in found
    assert not RunSpec(kind="search", search=SearchSpec(blocks=data.train_blocks)).problems()
    assert not RunSpec(kind="prune", search=SearchSpec(blocks=data.train_blocks + 1)).problems()
