"""The cut: a plan applied to tensors. Pure: nothing that comes in is changed, and every rule is the family map's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from core.model.dims import Axis, Config, layer_axes, outer_axes, resized_config
from core.plan.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Move:
    """One tensor's way from the uncut checkpoint into the cut one."""

    old: str
    new: str
    axes: tuple[Axis, ...]
    position: int | None
    """Place of its layer among the kept ones; None outside the layers."""


def moves(config: Config, plan: Plan) -> Iterator[Move]:
    """Every tensor that the cut model has, and where it comes from."""
    for position, layer in enumerate(plan.layers):
        for (old, axes), new in zip(layer_axes(config, int(layer)).items(), layer_axes(config, position), strict=True):
            yield Move(old=old, new=new, axes=axes, position=position)
    for name, axes in outer_axes(config).items():
        yield Move(old=name, new=name, axes=axes, position=None)


def cut_tensor(tensor: torch.Tensor, move: Move, plan: Plan) -> torch.Tensor:
    """Return the kept part of one tensor, contiguous and with memory of its own."""
    tensor = with_residual(tensor, move.old, move.axes[0], plan, move.position)
    for axis, dims in enumerate(move.axes):
        if (kept := kept_along(dims, plan, move.position)) is not None:
            tensor = tensor.index_select(axis, kept.to(tensor.device))
    return tensor.contiguous().clone()


def with_residual(tensor: torch.Tensor, name: str, axis: Axis, plan: Plan, position: int | None) -> torch.Tensor:
    """The uncut tensor with the head residual in its query rows, head <- head + (head - partner), if the plan asks for it and it has such rows.

    Gains of a norm over queries are no queries: they stay.
    """
    if plan.partners is None or position is None or "q" not in axis or "norm" in name:
        return tensor
    sizes, size = plan.source.sizes, plan.source.head_dim
    offset = sum(sizes[dim] for dim in axis[: axis.index("q")])
    made = tensor.clone()
    for head, partner in zip(plan.heads[position].tolist(), plan.partners[position].tolist(), strict=True):
        if partner >= 0:
            own, other = (slice(offset + unit * size, offset + (unit + 1) * size) for unit in (head, partner))
            made[own] = 2 * tensor[own] - tensor[other]
    return made


def kept_along(axis: Axis, plan: Plan, position: int | None) -> torch.Tensor | None:
    """Indices kept along one, possibly fused, axis; None if all are."""
    sizes = plan.source.sizes
    offsets = np.cumsum([0, *(sizes[dim] for dim in axis)])
    parts = [_kept(dim, plan, position) + offset for dim, offset in zip(axis, offsets, strict=False)]
    kept = np.concatenate(parts)
    return None if len(kept) == offsets[-1] else torch.from_numpy(kept)


def _kept(dim: str, plan: Plan, position: int | None) -> np.ndarray:
    """Indices kept of one dimension of the family map."""
    if dim == "hidden":
        return plan.channels
    if dim == "ffn":
        return plan.neurons[position]
    if dim in ("q", "kv"):
        heads = (plan.heads if dim == "q" else plan.kv_heads)[position]
        return (heads[:, None] * plan.source.head_dim + np.arange(plan.source.head_dim)).ravel()
    return np.arange(plan.source.sizes[dim])


def cut(state: Mapping[str, torch.Tensor], config: Config, plan: Plan) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Cut a state dict and its config to a plan."""
    new_state = {move.new: cut_tensor(state[move.old], move, plan) for move in moves(config, plan)}
    return new_state, resized_config(config, plan.dims, plan.layers.tolist())
