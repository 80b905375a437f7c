"""Where importance is read off a model, derived from its family's map: no second list of names.

A head's output is what the attention's output projection reads, a neuron's what the down projection reads; embedding
channels are seen at the output of every normalisation inside the layers (the final one is left out, as in NVIDIA's code).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.model.dims import Axis, Config, Dims, dims_of, layer_axes, outer_axes

if TYPE_CHECKING:  # the dashboard asks for sizes, and imports no torch
    from torch import nn

COVARIED = ("head_channels", "neurons", "channels")
"""Sites whose units' covariances are measured."""

READS_HEADS: tuple[Axis, ...] = (("hidden",), ("q",))
READS_NEURONS: tuple[Axis, ...] = (("hidden",), ("ffn",))
MAKES_NEURONS: tuple[Axis, ...] = (("ffn",), ("hidden",))
SCALES_HIDDEN: tuple[Axis, ...] = (("hidden",),)


@dataclass(frozen=True, kw_only=True)
class Sites:
    """Module names, layer by layer."""

    layers: tuple[str, ...]
    """The decoder layers."""
    output_projections: tuple[str, ...]
    """Their inputs are the heads' outputs, ``[B, T, H * head_dim]``."""
    down_projections: tuple[str, ...]
    """Their inputs are the neurons, ``[B, T, F]``."""
    gates: tuple[str, ...]
    """Their outputs are the neurons before the activation: of a gated MLP the half that passes through it, which a family row names first."""
    norms: tuple[tuple[str, ...], ...]
    """Each layer's normalisations of the residual stream."""
    readers: tuple[tuple[str, ...], ...]
    """For each normalisation, all layers' in turn, the projections that read its output."""
    final_norm: str
    embedding: str

    @property
    def all_norms(self) -> tuple[str, ...]:
        """The normalisations of all layers in turn."""
        return tuple(name for names in self.norms for name in names)


def sites_of(config: Config) -> Sites:
    """Find the sites of a model of this config."""
    per_layer = [layer_axes(config, i) for i in range(dims_of(config).layers)]
    return Sites(
        layers=tuple(_layer_module(names) for names in per_layer),
        output_projections=tuple(_modules(names, READS_HEADS)[0] for names in per_layer),
        down_projections=tuple(_modules(names, READS_NEURONS)[0] for names in per_layer),
        gates=tuple(_modules(names, MAKES_NEURONS)[0] for names in per_layer),
        norms=tuple(_modules(names, SCALES_HIDDEN) for names in per_layer),
        readers=tuple(found for names in per_layer for found in _readers(names)),
        final_norm=_modules(outer_axes(config), SCALES_HIDDEN)[0],
        embedding=_modules(outer_axes(config), (("vocab",), ("hidden",)))[0],
    )


def _modules(tensors: dict[str, tuple[Axis, ...]], axes: tuple[Axis, ...]) -> tuple[str, ...]:
    """Modules whose weight has exactly these axes, in the row's order."""
    return tuple(name.removesuffix(".weight") for name, found in tensors.items() if found == axes and name.endswith(".weight"))


def _readers(tensors: dict[str, tuple[Axis, ...]]) -> list[tuple[str, ...]]:
    """For each normalisation of a layer what reads it: a row lists a normalisation in front of its readers."""
    found: list[list[str]] = []
    for name, axes in tensors.items():
        if axes == SCALES_HIDDEN and name.endswith(".weight"):
            found.append([])
        elif len(axes) == 2 and axes[1] == ("hidden",):
            found[-1].append(name.removesuffix(".weight"))
    return [tuple(names) for names in found]


def _layer_module(tensors: dict[str, tuple[Axis, ...]]) -> str:
    """The module that holds all tensors of a layer: their names' common path."""
    paths = [name.split(".") for name in tensors]
    shared = next(k for k in range(len(paths[0])) if len({path[k] for path in paths}) > 1)
    return ".".join(paths[0][:shared])


def modules_at(model: "nn.Module", names: tuple[str, ...]) -> "list[nn.Module]":
    """The modules of these names."""
    return [model.get_submodule(name) for name in names]


def num_norms(config: Config) -> int:
    """Normalisation sites of the whole model."""
    return sum(len(names) for names in sites_of(config).norms)


def site_sizes(config: Config, dims: Dims) -> dict[str, tuple[int, int]]:
    """Shape ``[places, units]`` of what is accumulated at each site."""
    layers = dims.layers
    return {
        "heads": (layers, dims.heads), "head_channels": (layers, dims.heads * dims.head_dim), "neurons": (layers, dims.ffn),
        "gates": (layers, dims.ffn), "channels": (num_norms(config), dims.hidden),
    }  # fmt: skip


def covariance_bytes(config: Config, number_bytes: int = 4) -> int:
    """Memory of the covariances of a model: a square at every place, of float32 unless the model is float64."""
    sizes = site_sizes(config, dims_of(config))
    return number_bytes * sum(places * units**2 for places, units in (sizes[site] for site in COVARIED))
