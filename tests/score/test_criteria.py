"""Every criterion of every axis against its formula, written once more without the engine (``oracles``)."""

import subprocess
import sys

import numpy as np
import pytest

from core.errors import UserError
from core.score.criteria import CRITERIA, criteria_of
from core.score.criteria.registry import AXES
from core.score.passes import PASSES
from core.score.scoring import score_model
from core.specs import AGGREGATIONS, RankSpec, ScoreSpec
from core.workspace import ROOT
from tests.score.oracles import ORACLES
from tests.score.world import KINDS, world
from tests.tiny import random_blocks, tiny_model

EXACT = 1e-6
"""Relative, of a float64 model: the engine sums in float64 what comes in float64."""


def ranking(axis: str, name: str, **settings: object) -> RankSpec:
    """A ranking by one criterion."""
    return RankSpec(**settings).by(axis, name)


def rankings(axis: str, name: str) -> list[RankSpec]:
    """All that a criterion makes a difference of."""
    if CRITERIA[axis, name].aggregated:
        return [ranking(axis, name, batch=batch, sequence=sequence) for batch in AGGREGATIONS for sequence in AGGREGATIONS]
    if name in ("angle", "window"):
        return [ranking(axis, name), ranking(axis, name, protect_first=1), ranking(axis, name, protect_last=1)]
    return [ranking(axis, name)]


def test_no_criterion_is_without_an_oracle() -> None:
    assert set(ORACLES) == set(CRITERIA)


@pytest.mark.parametrize(("axis", "name"), CRITERIA, ids=lambda part: part)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True], ids=["whole", "packed"])
def test_importance_equals_the_literal_formula(packed: bool, kind: str, axis: str, name: str) -> None:
    here, removals = world(kind, packed), (1, 2, 3) if name in ("angle", "window") else (1,)
    for rank in rankings(axis, name):
        for removed in removals:
            found, expected = here.scores.importance(axis, rank, removed), ORACLES[axis, name](here, axis, rank, removed)
            assert found.dtype == np.float64
            told = f"{rank.batch} {rank.sequence} {removed}"
            np.testing.assert_allclose(found, expected, rtol=EXACT, err_msg=told)


@pytest.mark.parametrize(("axis", "name"), CRITERIA, ids=lambda part: part)
def test_only_criteria_that_say_so_listen_to_the_aggregation(axis: str, name: str) -> None:
    here = world("llama")
    one, other = (here.scores.importance(axis, ranking(axis, name, batch=batch, sequence="l2")) for batch in ("mean", "var"))
    assert (not np.array_equal(one, other)) == CRITERIA[axis, name].aggregated


@pytest.mark.parametrize(("axis", "name"), CRITERIA, ids=lambda part: part)
def test_only_criteria_that_say_so_listen_to_the_shards(axis: str, name: str) -> None:
    scores = world("llama").scores
    one, all_ = scores.on((0,)).importance(axis, ranking(axis, name)), scores.importance(axis, ranking(axis, name))
    assert (not np.array_equal(one, all_)) == CRITERIA[axis, name].sharded


def test_every_criterion_says_what_it_is_and_names_a_pass_that_there_is() -> None:
    for (axis, name), found in CRITERIA.items():
        assert (found.axis, found.name) == (axis, name)
        assert axis in AXES
        assert found.needs in PASSES
        assert found.title
        assert found.paper
        assert found.says.endswith("."), "a sentence"
    assert {axis for axis, _ in CRITERIA} == set(AXES)


@pytest.mark.parametrize("axis", AXES)
def test_an_unknown_criterion_is_answered_with_those_that_there_are(axis: str) -> None:
    with pytest.raises(UserError) as caught:
        world("llama").scores.importance(axis, ranking(axis, "astrology"))
    assert "'astrology'" in str(caught.value)
    assert all(name in str(caught.value) for name in criteria_of(axis))


@pytest.mark.parametrize(("axis", "name"), [key for key, found in CRITERIA.items() if found.needs not in ("weights", "activations")])
def test_a_criterion_whose_pass_was_not_made_is_refused_with_what_to_ask_for(axis: str, name: str) -> None:
    scores = score_model(tiny_model(), random_blocks(2, 8), ScoreSpec(shards=1, ppl_blocks=0))
    assert name not in scores.offered(axis)
    with pytest.raises(UserError) as caught:
        scores.importance(axis, ranking(axis, name))
    assert PASSES[CRITERIA[axis, name].needs].advice in str(caught.value)
    assert scores.offered(axis), "the cheap ones are always there"


def test_criteria_confidence_and_the_store_bring_no_torch() -> None:
    modules = [f"core.score.{name}" for name in ("store", "passes", "sites", "aggregate", "agreement", "confidence", "criteria")]
    code = f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
