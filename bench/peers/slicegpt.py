"""SliceGPT (Ashkboos et al., arXiv 2401.15024): every block's input is rotated to its principal components, of which the first d stay.

In the old coordinates that is a projection of the residual stream before every attention and every MLP, whose bases are found in
sequence from what the already sliced network gives; its normalisation keeps dividing by the old width. Measured that way. The smaller
model has two d x d matrices more a layer, and an untied head that is rotated but, as in its code, not sliced: all are counted.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bench.peers.ground import BATCH, Cut, Ground
from core.model.dims import Dims

DAMPING = 0.01


def slices(ground: Ground, share: float) -> Cut:
    """The width d whose parameters come closest to the budget."""
    width = min(range(8, ground.dims.hidden), key=lambda d: abs(parameters(ground.dims, d) - ground.budget(share)))
    hidden_NTD = ground.embedded()
    positions = ground.positions(hidden_NTD)
    bases = []
    for layer in ground.layers():
        before_DD = principal(hidden_NTD, width)
        middle_NTD = _attend(layer, project(hidden_NTD, before_DD), positions)
        between_DD = principal(middle_NTD, width)
        middle_NTD = project(middle_NTD, between_DD)
        with torch.no_grad():
            hidden_NTD = torch.cat([part + layer.mlp(layer.post_attention_layernorm(part)) for part in middle_NTD.split(BATCH)])
        bases.append((before_DD, between_DD))
    return Cut(parameters=parameters(ground.dims, width), apply=lambda: _projected(ground, bases), note=f"d = {width}, layers of its own")


def parameters(dims: Dims, width: int) -> int:
    """Parameters after slicing to ``width``, normalisation gains absorbed."""
    a_layer = (2 * dims.heads * dims.head_dim + 2 * dims.kv_heads * dims.head_dim + 3 * dims.ffn) * width + 2 * width**2
    last = (dims.hidden - width) * (width + dims.ffn)
    return dims.vocab * (width + dims.hidden) + dims.layers * a_layer + last


def principal(hidden_NTD: Tensor, width: int) -> Tensor:
    """The first ``width`` eigenvectors of the second moments, ``[D, d]``, found in float64."""
    rows_ND = hidden_NTD.flatten(0, 1).double()
    moments_DD = rows_ND.T @ rows_ND
    moments_DD += DAMPING * moments_DD.diagonal().mean() * torch.eye(len(moments_DD), dtype=torch.float64)
    return torch.linalg.eigh(moments_DD).eigenvectors[:, -width:].float()


def project(hidden_NTD: Tensor, basis_DW: Tensor) -> Tensor:
    """What is left of a stream on the principal components, in the old coordinates."""
    return hidden_NTD @ basis_DW @ basis_DW.T


def _attend(layer: Any, hidden_NTD: Tensor, positions: tuple[Tensor, Tensor]) -> Tensor:
    """The residual stream after a layer's attention."""
    with torch.no_grad():
        return torch.cat([
            part + layer.self_attn(layer.input_layernorm(part), position_embeddings=positions, attention_mask=None)[0]
            for part in hidden_NTD.split(BATCH)
        ])  # fmt: skip


@contextlib.contextmanager
def _projected(ground: Ground, bases: list[tuple[Tensor, Tensor]]) -> Iterator[Any]:
    """Project the residual stream in front of every attention and every MLP."""
    forwards = []
    for layer, (before_DD, between_DD) in zip(ground.layers(), bases, strict=True):
        forwards.append((layer, layer.forward))

        def forward(hidden_BTD: Tensor, *, layer: Any = layer, a: Tensor = before_DD, b: Tensor = between_DD, **given: Any) -> Tensor:
            hidden_BTD = project(hidden_BTD, a)
            hidden_BTD = project(hidden_BTD + layer.self_attn(layer.input_layernorm(hidden_BTD), **given)[0], b)
            return hidden_BTD + layer.mlp(layer.post_attention_layernorm(hidden_BTD))

        layer.forward = forward
    try:
        yield ground.model
    finally:
        for layer, old in forwards:
            layer.forward = old
