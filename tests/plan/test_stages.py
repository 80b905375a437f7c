"""A family's sizes: every member can be cut from the one before, and the way down is even."""

import itertools

import pytest

from core.model.cost import cost_of
from core.model.dims import Config, dims_of, resized
from core.plan.stages import between, members_of, stage_problems_of, targets_of
from core.specs import Targets

LLAMA = {
    "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "tie_word_embeddings": True,
}  # fmt: skip
ENDS = (
    Targets(intermediate_size=512), Targets(num_hidden_layers=12), Targets(num_hidden_layers=20, intermediate_size=896),
    Targets(hidden_size=396, intermediate_size=1024), Targets(num_attention_heads=3, num_key_value_heads=3),
    Targets(num_attention_heads=2, num_key_value_heads=2, hidden_size=500), Targets(num_hidden_layers=29),
)  # fmt: skip


@pytest.mark.parametrize("targets", ENDS, ids=str)
@pytest.mark.parametrize("members", [1, 2, 3, 6])
def test_every_member_can_be_cut_from_the_one_before_and_the_last_is_what_was_asked_for(targets: Targets, members: int) -> None:
    stages = between(LLAMA, targets, members)
    assert stage_problems_of(LLAMA, stages) == []
    assert 1 <= len(stages) <= members
    assert {key: size for key, size in targets_of(LLAMA, stages).to_dict().items() if targets.to_dict()[key]} == {
        key: size for key, size in targets.to_dict().items() if size
    }
    sizes = [_parameters(LLAMA, stages[:number]) for number in range(1, len(stages) + 1)]
    assert sizes == sorted(sizes, reverse=True)


def test_the_steps_are_even_as_factors() -> None:
    layers = [30, *(dims.layers for dims in members_of(LLAMA, between(LLAMA, Targets(num_hidden_layers=10), 4)))]
    factors = [after / before for before, after in itertools.pairwise(layers)]
    assert max(factors) - min(factors) < 0.06


def _parameters(config: Config, stages: list[str]) -> int:
    return cost_of(config, resized(dims_of(config), targets_of(config, stages))).parameters
