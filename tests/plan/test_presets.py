"""Presets are found by counting: each meets its size, can be built, and is the largest of its shape."""

from typing import Any

import pytest

from core.model.cost import cost_of
from core.model.dims import dims_of, resized
from core.plan.presets import ffn_choices, presets
from core.plan.sizes import problems

SMALL = {
    "model_type": "llama", "vocab_size": 97, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 5, "num_attention_heads": 6,
    "num_key_value_heads": 3, "head_dim": 8, "tie_word_embeddings": True,
}  # fmt: skip
WIDE = SMALL | {
    "vocab_size": 4096,
    "hidden_size": 576,
    "intermediate_size": 1530,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "head_dim": 64,
}


@pytest.mark.parametrize("config", [SMALL, WIDE], ids=["small", "wide"])
def test_every_preset_can_be_built_and_meets_its_size(config: dict[str, Any]) -> None:
    whole = cost_of(config).parameters
    found = presets(config)
    assert found
    for preset in found:
        part = cost_of(config, resized(dims_of(config), preset.targets)).parameters / whole
        assert not problems(config, preset.targets), preset.name
        assert part <= (0.5 if preset.name.startswith("50") else 0.75), preset.name


def test_the_depth_preset_removes_no_layer_more_than_it_must() -> None:
    targets = next(preset.targets for preset in presets(WIDE) if preset.name == "25 % by depth")
    assert targets.num_hidden_layers is not None
    dims = resized(dims_of(WIDE), targets)
    one_more = resized(dims, type(targets)(num_hidden_layers=dims.layers + 1))
    assert cost_of(WIDE, one_more).parameters > 0.75 * cost_of(WIDE).parameters


def test_a_shape_that_cannot_reach_its_size_is_left_out() -> None:
    mostly_embedding = SMALL | {"vocab_size": 50_000}
    assert "25 % by FFN" not in [preset.name for preset in presets(mostly_embedding)]


def test_ffn_sizes_are_multiples_and_end_with_the_models_own() -> None:
    choices = ffn_choices(dims_of(WIDE))
    assert choices[-1] == 1530
    assert all(size % 64 == 0 for size in choices[:-1])
    assert ffn_choices(dims_of(SMALL)) == list(range(1, 41))
