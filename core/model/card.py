"""The architecture card: what a model is and what of it can be cut, from config.json alone and without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.model.cost import Cost, cost_of, parts_of
from core.model.dims import Dims, dims_of, family_of, is_tied
from core.model.embedded import MODEL_NAME
from core.model.source import config_path, read_config
from core.specs import EMBEDDED_MODEL


@dataclass(frozen=True, kw_only=True)
class Cuttable:
    """One row of the table of what can be cut."""

    what: str
    key: str
    """Its Hugging Face config key, which is also its name in ``Targets``."""
    size: int
    unit: str
    rule: str
    """Which sizes are possible, and why."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What can be said of a model before its weights are touched."""

    model: str
    name: str
    folder: Path
    config: dict[str, Any]
    dims: Dims
    cost: Cost
    parts: dict[str, int]
    family: str
    tied: bool
    dtype: str
    weights_bytes: int | None
    """Size of the weight files here; None if they are not here yet."""
    cuttable: tuple[Cuttable, ...]


def card(model: str) -> Card:
    """Read a model's card.

    Raises:
        UserError: there is no such model, its config is unusable, or its family is not supported.
    """
    config, folder = read_config(model), config_path(model).parent
    sizes = [file.stat().st_size for file in folder.glob("*.safetensors")]
    return Card(
        model=model, name=MODEL_NAME if model == EMBEDDED_MODEL else Path(model).name, folder=folder, config=config, dims=dims_of(config),
        cost=cost_of(config), parts=parts_of(config), family=config["model_type"], tied=is_tied(config),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"), weights_bytes=sum(sizes) if sizes else None, cuttable=_cuttable(config),
    )  # fmt: skip


def _cuttable(config: dict[str, Any]) -> tuple[Cuttable, ...]:
    """The table of what can be cut, with the rules that follow from the family and the dimensions."""
    dims, family = dims_of(config), family_of(config)
    shared = f"{dims.group} query heads share a key-value head: whole groups leave, or equally many heads from every group"
    heads = shared if dims.group > 1 else "each query head has its own key-value head; they leave together"
    hidden = "multiples of the number of heads, else the checkpoint could not be reloaded" if family.hidden_multiple_of_heads else "any"
    joint = "; queries and keys are normalised over all heads, so a cut only approximates a mask" if family.joint_qk_norm else ""
    return (
        Cuttable(what="Layers", key="num_hidden_layers", size=dims.layers, unit="layers", rule="any"),
        Cuttable(what="Attention heads", key="num_attention_heads", size=dims.heads, unit="query heads a layer", rule=heads + joint),
        Cuttable(
            what="Key-value heads",
            key="num_key_value_heads",
            size=dims.kv_heads,
            unit="heads a layer",
            rule="any that divides the query heads",
        ),
        Cuttable(
            what="FFN neurons", key="intermediate_size", size=dims.ffn, unit="neurons a layer", rule="any; multiples of 64 run fastest"
        ),
        Cuttable(what="Embedding channels", key="hidden_size", size=dims.hidden, unit="channels", rule=hidden),
    )
