"""What a model's weights alone say of its units: norms, taken in float64 and kept beside the scores. No text is needed."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from core.model.dims import Config, axes_of, dims_of, layer_axes
from core.score.sites import sites_of

Arrays = dict[str, np.ndarray]


def weight_norms(model: nn.Module, config: Config) -> Arrays:
    """Norms of the weights of every unit.

    Returns:
        ``magnitude.heads`` ``[L, H]``, ``magnitude.neurons`` ``[L, F]``, ``magnitude.channels`` ``[D]``: L2 norm of all weights that
        belong to the unit. ``reader_l1.SITE`` and ``reader_l2.SITE`` for the sites head_channels ``[L, Q]``, neurons ``[L, F]`` and
        channels ``[N, D]``: L1 and L2 norm of the column with which the next projections read it.
    """
    sites = sites_of(config)
    reading: dict[str, list[tuple[str, ...]]] = {
        "head_channels": [(name,) for name in sites.output_projections], "neurons": [(name,) for name in sites.down_projections],
        "channels": list(sites.readers),
    }  # fmt: skip
    found = _magnitudes(model, config)
    for site, places in reading.items():
        columns = [_column_norms(model.get_parameter(f"{name}.weight") for name in names) for names in places]
        found[f"reader_l1.{site}"], found[f"reader_l2.{site}"] = (np.stack(norms) for norms in zip(*columns, strict=True))
    return found


def _column_norms(weights: Iterable[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """L1 and L2 norm of every column, over all matrices that share the columns."""
    joined_OI = torch.cat([weight_OI.detach().cpu().double() for weight_OI in weights])
    return joined_OI.abs().sum(0).cpu().numpy(), torch.linalg.vector_norm(joined_OI, dim=0).cpu().numpy()


def _magnitudes(model: nn.Module, config: Config) -> Arrays:
    """L2 norm of all weights of each head (its queries and its output), neuron and channel."""
    dims, tensors = dims_of(config), dict(model.named_parameters())
    squares = {"q": np.zeros((dims.layers, dims.heads * dims.head_dim)), "ffn": np.zeros((dims.layers, dims.ffn))}
    for i in range(dims.layers):
        for dim, total in squares.items():
            total[i] = sum(_squares_along(tensors[name], axes, dim, dims.sizes[dim]) for name, axes in layer_axes(config, i).items())
    channels = sum(_squares_along(tensors[name], axes, "hidden", dims.hidden) for name, axes in axes_of(config).items())
    heads = squares["q"].reshape(dims.layers, dims.heads, dims.head_dim).sum(2)
    return {"magnitude.heads": np.sqrt(heads), "magnitude.neurons": np.sqrt(squares["ffn"]), "magnitude.channels": np.sqrt(channels)}


def _squares_along(tensor: Tensor, axes: tuple[tuple[str, ...], ...], dim: str, size: int) -> np.ndarray:
    """Sum of squares of a tensor for each index of one dimension; zeros if the tensor does not have it."""
    total = np.zeros(size)
    for place, names in enumerate(axes):
        if dim in names:
            squares = tensor.detach().cpu().double().square().movedim(place, 0)
            total += squares.reshape(len(names), size, -1).sum((0, 2)).numpy()
    return total
