"""Each rule speaks where it should and is silent where it should; following it makes it silent."""

import dataclasses
import re
from typing import Any

import pytest

from core.model.cost import cost_of
from core.model.dims import dims_of, resized
from core.plan.advice import DEEP as DEEP_PART
from core.plan.advice import RULES, Situation, advice
from core.plan.effort import PUBLISHED
from core.plan.sizes import problems
from core.specs import RankSpec, RunSpec, Targets
from tests.plan.test_presets import WIDE

DEEP, SHALLOW, FFN = Targets(num_hidden_layers=15), Targets(num_hidden_layers=28), Targets(intermediate_size=1024)
HALVED = Targets(num_hidden_layers=8)
HEADS = Targets(num_attention_heads=6, num_key_value_heads=2)

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "width_before_depth": ({"targets": DEEP}, {"targets": FFN}),
    "keep_the_heads": ({"targets": HEADS}, {"targets": FFN}),
    "loss_for_depth": ({"targets": DEEP}, {"targets": DEEP, "rank": RankSpec(depth="ppl")}),
    "contiguous_depth": ({"targets": DEEP}, {"targets": DEEP, "rank": RankSpec(depth="window")}),
    "aggregate_l2_mean": ({"targets": FFN, "rank": RankSpec(sequence="l2")}, {"targets": DEEP, "rank": RankSpec(sequence="l2")}),
    "single_shot": ({"targets": FFN, "rank": RankSpec(rounds=2)}, {"targets": FFN}),
    "largest_first": ({"targets": HALVED}, {"targets": FFN}),
    "start_from_the_closest": ({"targets": HALVED}, {"targets": FFN}),
    "states_for_depth": ({"targets": DEEP}, {"targets": SHALLOW}),
    "distil_only": ({"targets": DEEP}, {"targets": DEEP, "steps": 0}),
    "logits_alone": ({"targets": SHALLOW}, {"targets": DEEP}),
    "judge_after_retraining": ({"targets": FFN}, {"targets": FFN, "steps": 0}),
    "last_stage_checkpoint": ({"targets": FFN}, {"targets": Targets()}),
}
"""Rule -> where it applies, and where it does not."""


def found(**said: Any) -> dict[str, Any]:
    return advice(Situation(**({"config": WIDE, "rank": RankSpec(), "steps": 60} | said)))  # type: ignore[return-value]


def test_every_rule_has_its_case() -> None:
    assert list(CASES) == list(RULES)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_speaks_where_it_applies_only(name: str) -> None:
    speaks, silent = CASES[name]
    assert name in found(**speaks)
    assert name not in found(**silent)
    said = found(**speaks)[name]
    assert said.says.endswith(".")
    assert any(digit.isdigit() for digit in said.why), "advice has a number behind it"
    assert "arXiv" in said.source
    assert said.targets or said.rank or said.settings, "a click follows it"


def test_the_ten_best_practices_are_all_there() -> None:
    told = " ".join(judge.__doc__ or "" for judge in RULES.values())
    assert {int(number) for number in re.findall(r"[Bb]est practice (\d+)", told)} == set(range(1, 11))


@pytest.mark.parametrize("name", [name for name, (speaks, _) in CASES.items() if found(**speaks)[name].settings])
def test_settings_that_follow_advice_are_those_of_a_run(name: str) -> None:
    for setting, value in found(**CASES[name][0])[name].settings.items():
        part, _, field = setting.partition(".")
        spec = RunSpec(**{part: dataclasses.replace(getattr(RunSpec(), part), **{field: value}) if field else value or RunSpec().model})
        assert not [problem for problem in spec.problems() if not problem.startswith("stages")]


def test_depth_is_judged_by_the_part_of_the_layers_and_halves_by_that_of_the_parameters() -> None:
    layers = dims_of(WIDE).layers
    quarter = layers - round(layers * DEEP_PART)
    assert "states_for_depth" in found(targets=Targets(num_hidden_layers=quarter))
    assert "logits_alone" in found(targets=Targets(num_hidden_layers=quarter + 1))
    whole = cost_of(WIDE).parameters
    sizes = [Targets(num_hidden_layers=n) for n in range(1, layers)]
    for targets in sizes:
        beyond = cost_of(WIDE, resized(dims_of(WIDE), targets)).parameters < whole / 2
        assert ("largest_first" in found(targets=targets)) == beyond


@pytest.mark.parametrize("name", [name for name, (speaks, _) in CASES.items() if (a := found(**speaks)[name]).rank or a.targets])
def test_following_advice_makes_it_silent_and_keeps_the_budget(name: str) -> None:
    speaks, _ = CASES[name]
    said = found(**speaks)[name]
    followed = speaks | ({"rank": said.rank} if said.rank else {}) | ({"targets": said.targets} if said.targets else {})
    assert name not in found(**followed)
    if said.targets:
        before, after = (cost_of(WIDE, resized(dims_of(WIDE), targets)).parameters for targets in (speaks["targets"], said.targets))
        assert not problems(WIDE, said.targets)
        assert after <= before


def test_nothing_is_said_of_an_uncut_model() -> None:
    assert found(targets=Targets()) == {}


def test_large_models_may_lose_depth() -> None:
    config, targets = PUBLISHED["Llama 3.1 70B"], Targets(num_hidden_layers=60)
    assert "width_before_depth" not in found(config=config, targets=targets)
    small = dataclasses.replace(targets, num_hidden_layers=24)
    assert "width_before_depth" in found(config=PUBLISHED["Llama 3.1 8B"], targets=small)
