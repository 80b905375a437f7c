"""The dimensions of a model, read from its config.json alone, and the shapes that the family map derives from them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import UserError
from core.model.families import FAMILIES, Family
from core.specs import Targets

Config = Mapping[str, Any]
"""A config.json."""

Axis = tuple[str, ...]
"""One axis of a tensor: the names of the dimensions that are fused along it, usually one."""

CONFIG_KEYS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocab": "vocab_size",
}
"""Our name of each dimension -> its usual config key."""


@dataclass(frozen=True, kw_only=True)
class Dims:
    """The sizes that decide every shape of a decoder."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    @property
    def group(self) -> int:
        """Query heads that share one key-value head."""
        return self.heads // self.kv_heads

    @property
    def sizes(self) -> dict[str, int]:
        """Size of every axis name of the family map."""
        return {
            "hidden": self.hidden, "ffn": self.ffn, "q": self.heads * self.head_dim, "kv": self.kv_heads * self.head_dim,
            "head_dim": self.head_dim, "vocab": self.vocab,
        }  # fmt: skip


def family_of(config: Config) -> Family:
    """Look up the family of a config.

    Raises:
        UserError: the model type is missing or not among the supported ones.
    """
    kind = config.get("model_type", "")
    if kind not in FAMILIES:
        raise UserError(f"The model type {kind!r} is not supported. Supported are: {', '.join(sorted(FAMILIES))}.")
    return FAMILIES[kind]


def setting(config: Config, key: str) -> Any:
    """A config value, or what transformers takes in its absence."""
    return config[key] if key in config else family_of(config).defaults.get(key)


def dims_of(config: Config) -> Dims:
    """Read the dimensions from a config.

    Raises:
        UserError: the model type is not supported, or a dimension is missing or not a positive whole number.
    """
    keys = CONFIG_KEYS | dict(family_of(config).config_keys)
    found = {name: setting(config, key) for name, key in keys.items()}
    found["kv_heads"] = found["kv_heads"] or found["heads"]
    if found["head_dim"] is None and found["hidden"] and found["heads"]:
        found["head_dim"] = found["hidden"] // found["heads"]
    wrong = [f"{keys[name]} is {value!r}" for name, value in found.items() if type(value) is not int or value < 1]
    if wrong:
        raise UserError(f"The model's config.json is not usable: {'; '.join(wrong)}. Each must be a whole number above 0.")
    return Dims(**found)


def is_tied(config: Config) -> bool:
    """Whether the output head shares the embedding's weights."""
    return bool(setting(config, "tie_word_embeddings"))


def axes_of(config: Config, *, layers: int | None = None) -> dict[str, tuple[Axis, ...]]:
    """Every tensor of the checkpoint -> its axes, in state-dict order; a tied head is not listed."""
    depth, rows = dims_of(config).layers if layers is None else layers, _present(config)
    return {name: axes for i in range(depth) for name, axes in _of_layer(rows, i).items()} | _outer(rows)


def layer_axes(config: Config, layer: int) -> dict[str, tuple[Axis, ...]]:
    """Tensors of one layer -> their axes."""
    return _of_layer(_present(config), layer)


def outer_axes(config: Config) -> dict[str, tuple[Axis, ...]]:
    """Tensors outside the layers -> their axes."""
    return _outer(_present(config))


def _of_layer(rows: Mapping[str, tuple[Axis, ...]], layer: int) -> dict[str, tuple[Axis, ...]]:
    return {name.replace("{i}", str(layer)): axes for name, axes in rows.items() if "{i}" in name}


def _outer(rows: Mapping[str, tuple[Axis, ...]]) -> dict[str, tuple[Axis, ...]]:
    return {name: axes for name, axes in rows.items() if "{i}" not in name}


def _present(config: Config) -> dict[str, tuple[Axis, ...]]:
    """Name templates that this config has -> their axes."""
    rows = {name: _parse(text, config) for name, text in family_of(config).tensors.items()}
    return {name: axes for name, axes in rows.items() if axes is not None}


def _parse(text: str, config: Config) -> tuple[Axis, ...] | None:
    """``"ffn+ffn hidden if mlp_bias"`` -> ``(("ffn", "ffn"), ("hidden",))``, or None where the condition fails."""
    for word, wanted in ((" if ", True), (" unless ", False)):
        text, found, key = text.partition(word)
        if found and bool(setting(config, key)) is not wanted:
            return None
    return tuple(tuple(axis.split("+")) for axis in text.split())


def shape(axes: tuple[Axis, ...], dims: Dims) -> tuple[int, ...]:
    """The shape that a tensor of these axes has."""
    return tuple(sum(dims.sizes[name] for name in axis) for axis in axes)


def resized(dims: Dims, targets: Targets) -> Dims:
    """The dimensions after a cut to ``targets``. Key-value heads that leave take their query heads along, unless both are named."""
    wanted = {name: getattr(targets, key) for name, key in CONFIG_KEYS.items() if hasattr(targets, key)}
    if wanted["heads"] is None and wanted["kv_heads"] is not None:
        wanted["heads"] = wanted["kv_heads"] * dims.group
    return dataclasses.replace(dims, **{name: size for name, size in wanted.items() if size is not None})


def resized_config(config: Config, dims: Dims, kept_layers: list[int]) -> dict[str, Any]:
    """The config of the model cut to ``dims``, per-layer lists cut along with the layers."""
    family, old = family_of(config), dims_of(config)
    keys = CONFIG_KEYS | dict(family.config_keys)
    cut = dict(config) | {keys[name]: size for name, size in dataclasses.asdict(dims).items()}
    for key in family.per_layer_keys:
        values = config.get(key)
        if isinstance(values, list) and len(values) == old.layers:
            cut[key] = [values[i] for i in kept_layers]
    return cut
