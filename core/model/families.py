"""The families of decoders that Coppice understands. DATA ONLY: adding a family is adding a row here.

A tensor is one string: its axes in state-dict order, ``"q hidden"`` for a query projection. The axes are

    hidden    residual width                    ffn     neurons of the MLP
    q         query heads x head_dim            kv      key-value heads x head_dim
    head_dim  one head                          vocab   rows of the embedding

``+`` fuses two along one axis (``"ffn+ffn hidden"``). A tensor that only some configs have says so:
``"q if attention_bias"``, ``"vocab hidden unless tie_word_embeddings"``. Everything else, coverage, parameter count,
FLOPs, KV-cache, what can be scored and how it is cut, is derived from this map; there is no second list of names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Family:
    """One row: what all models of some Hugging Face ``model_type``s have in common."""

    model_types: tuple[str, ...]
    tensors: Mapping[str, str]
    """Template of each tensor's name (``{i}`` stands for the layer) -> its axes."""
    config_keys: Mapping[str, str] = field(default_factory=dict)
    """Where this family's config.json names a dimension otherwise than Llama's does."""
    defaults: Mapping[str, object] = field(default_factory=dict)
    """What a key means when config.json leaves it out, where that is not simply absent or False."""
    per_layer_keys: tuple[str, ...] = ()
    """Config lists with one entry a layer, which are cut together with the layers."""
    hidden_multiple_of_heads: bool = False
    """Whether transformers refuses a hidden_size that num_attention_heads does not divide."""
    joint_qk_norm: bool = False
    """Whether queries and keys are normalised over all heads at once, so that cutting heads only approximates masking."""


def extend(
    base: Family, model_types: tuple[str, ...], extra: Mapping[str, str] | None = None, *, drop: tuple[str, ...] = (), **facts: object
) -> Family:
    """A row that differs from ``base`` by some tensors and facts."""
    tensors = {name: axes for name, axes in base.tensors.items() if name not in drop} | dict(extra or {})
    return Family(model_types=model_types, tensors=tensors, **facts)  # type: ignore[arg-type]


ATTENTION = "model.layers.{i}.self_attn."
MLP = "model.layers.{i}.mlp."

LLAMA = Family(
    model_types=("llama",),
    tensors={
        "model.embed_tokens.weight": "vocab hidden",
        "model.layers.{i}.input_layernorm.weight": "hidden",
        ATTENTION + "q_proj.weight": "q hidden",
        ATTENTION + "q_proj.bias": "q if attention_bias",
        ATTENTION + "k_proj.weight": "kv hidden",
        ATTENTION + "k_proj.bias": "kv if attention_bias",
        ATTENTION + "v_proj.weight": "kv hidden",
        ATTENTION + "v_proj.bias": "kv if attention_bias",
        ATTENTION + "o_proj.weight": "hidden q",
        ATTENTION + "o_proj.bias": "hidden if attention_bias",
        "model.layers.{i}.post_attention_layernorm.weight": "hidden",
        MLP + "gate_proj.weight": "ffn hidden",
        MLP + "gate_proj.bias": "ffn if mlp_bias",
        MLP + "up_proj.weight": "ffn hidden",
        MLP + "up_proj.bias": "ffn if mlp_bias",
        MLP + "down_proj.weight": "hidden ffn",
        MLP + "down_proj.bias": "hidden if mlp_bias",
        "model.norm.weight": "hidden",
        "lm_head.weight": "vocab hidden unless tie_word_embeddings",
    },
    hidden_multiple_of_heads=True,
)
MISTRAL = extend(
    LLAMA, ("mistral",), drop=tuple(name for name in LLAMA.tensors if name.endswith(".bias")), defaults={"num_key_value_heads": 8}
)
SMOLLM3 = extend(
    LLAMA, ("smollm3",), per_layer_keys=("layer_types", "no_rope_layers"), defaults={"num_key_value_heads": 4, "tie_word_embeddings": True}
)
QWEN2 = extend(
    MISTRAL,
    ("qwen2",),
    {ATTENTION + "q_proj.bias": "q", ATTENTION + "k_proj.bias": "kv", ATTENTION + "v_proj.bias": "kv"},
    per_layer_keys=("layer_types",),
    defaults={"num_key_value_heads": 32},
)
QWEN3 = extend(
    LLAMA,
    ("qwen3",),
    {ATTENTION + "q_norm.weight": "head_dim", ATTENTION + "k_norm.weight": "head_dim"},
    drop=tuple(name for name in LLAMA.tensors if ".mlp." in name and name.endswith(".bias")),
    per_layer_keys=("layer_types",),
    defaults={"num_key_value_heads": 32, "head_dim": 128},
)

FAMILIES: Mapping[str, Family] = {kind: row for row in (LLAMA, MISTRAL, SMOLLM3, QWEN2, QWEN3) for kind in row.model_types}
"""Every supported ``model_type`` -> its row."""
