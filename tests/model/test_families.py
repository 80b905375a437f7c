"""The map is the models: checked against transformers' own, so a new row is tested by existing."""

import math
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM

from core.errors import UserError
from core.model.cost import cost_of, parts_of
from core.model.dims import axes_of, dims_of, family_of, resized_config, setting, shape
from core.model.families import FAMILIES
from tests.tiny import SIZES, tiny_config

VARIANTS: list[dict[str, Any]] = [{}, {"tie_word_embeddings": True}, {"attention_bias": True}, {"mlp_bias": True}]
CASES = [(kind, variant) for kind in sorted(FAMILIES) for variant in VARIANTS]


def named(config: Any) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_map_names_every_tensor_with_its_shape_and_no_other(kind: str, variant: dict[str, Any]) -> None:
    config = tiny_config(kind, **variant)
    dims = dims_of(config.to_dict())
    assert {name: shape(axes, dims) for name, axes in axes_of(config.to_dict()).items()} == named(config)


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_analytic_count_equals_numel(kind: str, variant: dict[str, Any]) -> None:
    config = tiny_config(kind, **variant)
    expected = sum(math.prod(size) for size in named(config).values())
    assert cost_of(config.to_dict()).parameters == expected == sum(parts_of(config.to_dict()).values())


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_what_a_config_leaves_out_is_what_transformers_fills_in(kind: str) -> None:
    spelled_out = tiny_config(kind).to_dict()
    for key in ("num_key_value_heads", "head_dim", "tie_word_embeddings", "attention_bias", "mlp_bias"):
        bare = {k: v for k, v in SIZES.items() if k != key} | {"model_type": kind}
        config = AutoConfig.for_model(**bare).to_dict()
        assert setting(bare, "tie_word_embeddings") in (config.get("tie_word_embeddings"), None)
        assert dims_of(bare) == dims_of(config), key
    assert dims_of(spelled_out).layers == SIZES["num_hidden_layers"]


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_the_hidden_size_rule_is_the_one_that_transformers_enforces(kind: str) -> None:
    refused = False
    try:
        tiny_config(kind, hidden_size=SIZES["hidden_size"] + 1)
    except StrictDataclassError:
        refused = True
    assert family_of({"model_type": kind}).hidden_multiple_of_heads is refused


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_per_layer_lists_are_cut_with_the_layers(kind: str) -> None:
    config = tiny_config(kind).to_dict()
    lists = {key for key, value in config.items() if isinstance(value, list) and len(value) == SIZES["num_hidden_layers"]}
    assert lists == set(family_of(config).per_layer_keys)
    marked = config | {key: [f"mark-{i}" for i in range(SIZES["num_hidden_layers"])] for key in lists}
    cut = resized_config(marked, dims_of(config), [0, 3])
    assert all(cut[key] == ["mark-0", "mark-3"] for key in lists)


def test_flops_of_a_hand_counted_model() -> None:
    config = tiny_config("llama").to_dict()
    # per layer: q 24*48 + k 24*24 + v 24*24 + o 48*24 + gate, up, down 3*24*40 = 6336; five layers and the head 97*24
    assert cost_of(config).matmul_parameters == 5 * 6336 + 97 * 24
    # attention over 10 earlier tokens: QK and AV, 2 FLOPs each for 5 layers * 6 heads * 8 channels
    assert cost_of(config).flops_per_token(10) - cost_of(config).flops_per_token() == 4 * 5 * 48 * 10
    # keys and values of 3 heads of 8 channels in 5 layers, 2 bytes each
    assert cost_of(config).kv_bytes_per_token == 2 * 5 * 24 * 2


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "mamba"}, "'mamba' is not supported"),
        ({}, "'' is not supported"),
        ({"model_type": "llama", **SIZES, "hidden_size": 0}, "hidden_size is 0"),
        ({"model_type": "llama", **SIZES, "intermediate_size": "wide"}, "intermediate_size is 'wide'"),
    ],
)
def test_unusable_configs_are_refused_by_name(config: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        dims_of(config)
