"""What a model of given dimensions costs: plain, exact arithmetic on a config, no weights and no torch."""

import math
from dataclasses import dataclass

from core.model.dims import Axis, Config, Dims, axes_of, dims_of, is_tied, layer_axes, outer_axes, shape

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "int4": 0.5}
"""Bytes a parameter."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Exact counts for one set of dimensions."""

    parameters: int
    """All parameters; a tied head counts once."""
    embedding_parameters: int
    """Those of the token embedding and of an untied head."""
    matmul_parameters: int
    """Weights that every token is multiplied with: all matrices, the head included, the embedding look-up not."""
    kv_bytes_per_token: int
    """Key-value cache, 16-bit."""
    attention_width: int
    """Layers x query heads x head_dim: what attention over the context costs in proportion to."""

    @property
    def non_embedding_parameters(self) -> int:
        """Parameters without embedding and untied head."""
        return self.parameters - self.embedding_parameters

    def flops_per_token(self, context: int = 0) -> int:
        """Forward FLOPs a token: two a weight, and attention over ``context`` earlier tokens (4 a channel: QK, then AV)."""
        return 2 * self.matmul_parameters + 4 * self.attention_width * context

    def bytes_read(self, dtype: str, context: int, sequences: int) -> int:
        """Bytes that writing one token of each of ``sequences`` has to read: all matrices once, and every sequence's key-value cache of ``context`` tokens."""
        return math.ceil(self.matmul_parameters * DTYPE_BYTES[dtype]) + self.kv_bytes_per_token * context * sequences

    def weight_bytes(self, dtype: str = "bfloat16") -> int:
        """Bytes of all weights in ``dtype`` (see ``DTYPE_BYTES``)."""
        return math.ceil(self.parameters * DTYPE_BYTES[dtype])


def cost_of(config: Config, dims: Dims | None = None) -> Cost:
    """Count what ``config``'s model costs, or would cost with other ``dims``."""
    dims = dims or dims_of(config)
    layer, outer = list(layer_axes(config, 0).values()), list(outer_axes(config).values())  # all layers have the same shapes
    vocabulary = _count([axes for axes in outer if ("vocab",) in axes], dims)
    matrices = dims.layers * _count([axes for axes in layer if len(axes) == 2], dims) + _count(
        [axes for axes in outer if len(axes) == 2], dims
    )
    look_up = 0 if is_tied(config) else dims.vocab * dims.hidden
    return Cost(
        parameters=dims.layers * _count(layer, dims) + _count(outer, dims), embedding_parameters=vocabulary, matmul_parameters=matrices - look_up,
        kv_bytes_per_token=2 * 2 * dims.layers * dims.sizes["kv"], attention_width=dims.layers * dims.sizes["q"],
    )  # fmt: skip


def _count(tensors: list[tuple[Axis, ...]], dims: Dims) -> int:
    """Elements of all these tensors."""
    return sum(math.prod(shape(axes, dims)) for axes in tensors)


def parts_of(config: Config, dims: Dims | None = None) -> dict[str, int]:
    """Parameters by part of the model: embeddings, attention, MLP, norms, head."""
    dims = dims or dims_of(config)
    parts = dict.fromkeys(("embeddings", "attention", "mlp", "norms", "head"), 0)
    for name, axes in axes_of(config, layers=dims.layers).items():
        parts[_part(name, axes)] += math.prod(shape(axes, dims))
    return parts


def _part(name: str, axes: tuple[tuple[str, ...], ...]) -> str:
    """The part of the model that a tensor belongs to, told by its axes."""
    used = {dim for axis in axes for dim in axis}
    if "vocab" in used:
        return "head" if "head" in name else "embeddings"
    if "ffn" in used or ".mlp." in name:
        return "mlp"
    return "attention" if used & {"q", "kv", "head_dim"} or ".self_attn." in name else "norms"
