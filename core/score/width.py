"""Statistics of heads, neurons and embedding channels, and block importance of layers: one forward pass, hooks only.

Formulas (Minitron, arXiv 2407.14679, section 2.2; ShortGPT, arXiv 2403.03853, for block importance):

    head i      ||Attn(X W_Q,i, X W_K,i, X W_V,i)||_2 of each token, before W_O
    neuron i    act(X W_gate)_i (X W_up)_i, the down projection's input; or X W_1,i before the activation, as printed
    channel i   LN(X)_i at every normalisation inside the layers
    layer       1 - cos(x_in, x_out), averaged over tokens

Activations are reduced over their tokens inside the hook; none outlives its batch, but for the residual stream, whose last
state is held until the next layer's end.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.errors import UserError
from core.model.dims import Config, Dims, dims_of
from core.model.head import wide
from core.score.aggregate import STATISTICS, merge
from core.score.batch import Batch, read
from core.score.sites import Sites, modules_at, site_sizes, sites_of
from core.score.statistics import TokenStatistics

Hook = Callable[..., None]

SITES = ("heads", "head_channels", "neurons", "channels")
"""What one pass sees: heads by their norm, the channels of their outputs, neurons, and embedding channels."""


class WidthAccumulator:
    """Moments of every unit, and block importance, over the blocks seen so far."""

    def __init__(self, config: Config, sites: tuple[str, ...] = SITES) -> None:
        self.sites: Sites = sites_of(config)
        self.dims: Dims = dims_of(config)
        self.count = 0
        shapes = site_sizes(config, self.dims)
        self.moments = {site: np.zeros((len(STATISTICS), 2, *shapes[site])) for site in sites}
        self.distance_L = np.zeros(self.dims.layers)
        """Sum over blocks of 1 - cos, averaged over each block's tokens."""
        self._batch: dict[tuple[str, int], np.ndarray] = {}
        self._statistics = TokenStatistics()
        self._state: tuple[Tensor, Tensor] | None = None
        self._keep_BT: Tensor | None = None

    def feed(self, model: PreTrainedModel, batch: Batch) -> None:
        """Run the model's body over a batch of blocks and take its activations in.

        Raises:
            UserError: an activation is not finite.
        """
        read(model, batch, [self])

    def ran(self, batch: Batch) -> None:
        """Merge what the hooks found in a batch into the moments."""
        before, seen = self.count, len(batch.ids_BT)
        for site, moments in self.moments.items():
            stats_SBC = np.stack([self._batch[site, place] for place in range(moments.shape[2])], axis=2)
            mean_SC = stats_SBC.mean(1)
            new = np.stack([mean_SC, ((stats_SBC - mean_SC[:, None]) ** 2).sum(1)], axis=1)
            self.moments[site] = merge(moments, before, new, seen)
        if ("layers", 0) in self._batch:
            self.distance_L += np.stack([self._batch["layers", i] for i in range(self.dims.layers)]).sum(1)
        self.count += seen

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything there is to keep: moments of each site, ``distance`` ``[L]`` and ``count``."""
        return {**self.moments, "distance": self.distance_L / max(self.count, 1), "count": np.array(self.count)}

    @contextlib.contextmanager
    def hooks(self, model: nn.Module, batch: Batch) -> Iterator[None]:
        """Hang the hooks in, and take every one out again."""
        self._batch.clear()
        self._keep_BT = batch.counts
        handles = [handle for site in self.moments for handle in HANGERS[site](self, model)]
        if "channels" in self.moments:
            for i, layer in enumerate(modules_at(model, self.sites.layers)):
                handles.append(layer.register_forward_pre_hook(self._layer_in))
                handles.append(layer.register_forward_hook(self._layer_out(i)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._state = None

    def _hang_inputs(self, model: nn.Module, site: str, names: tuple[str, ...], of: Callable[[Tensor], Tensor]) -> Iterator[Any]:
        """Hooks that take what these modules read."""
        for place, (name, module) in enumerate(zip(names, modules_at(model, names), strict=True)):
            yield module.register_forward_pre_hook(lambda _, args, place=place, name=name: self._take(site, place, name, of(args[0])))

    def _hang_outputs(self, model: nn.Module, site: str, names: tuple[str, ...]) -> Iterator[Any]:
        """Hooks that take what these modules give."""
        for place, (name, module) in enumerate(zip(names, modules_at(model, names), strict=True)):
            yield module.register_forward_hook(lambda _, args, output, place=place, name=name: self._take(site, place, name, output))

    def norms_of(self, joined_BTQ: Tensor) -> Tensor:
        """Norm of each head's output, ``[B, T, H]``."""
        return torch.linalg.vector_norm(wide(joined_BTQ).unflatten(-1, (self.dims.heads, self.dims.head_dim)), dim=-1)

    def _layer_in(self, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Remember the residual stream and its norm; they are there already after the layer before."""
        if self._state is None or self._state[0] is not args[0]:
            self._state = (args[0], torch.linalg.vector_norm(wide(args[0]), dim=-1))

    def _layer_out(self, i: int) -> Hook:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            out_BTD = output[0] if isinstance(output, tuple) else output
            assert self._state is not None
            (in_BTD, in_norm_BT), out_norm_BT = self._state, torch.linalg.vector_norm(wide(out_BTD), dim=-1)
            norms_BT = (in_norm_BT.cpu().double() * out_norm_BT.cpu().double()).clamp_min(1e-60)  # an embedding may be zero
            cosine_BT = torch.linalg.vecdot(wide(in_BTD), wide(out_BTD)).cpu().double() / norms_BT
            self._state = (out_BTD, out_norm_BT)
            self._batch["layers", i] = self._mean_over_tokens(1 - cosine_BT).numpy()

        return hook

    def _mean_over_tokens(self, values_BT: Tensor) -> Tensor:
        if self._keep_BT is None:
            return values_BT.mean(1)
        keep_BT = self._keep_BT.cpu()
        return torch.where(keep_BT, values_BT, 0).sum(1) / keep_BT.sum(1)

    def _take(self, site: str, place: int, name: str, acts_BTC: Tensor) -> None:
        """Reduce one site's activations over their tokens."""
        stats_SBC = self._statistics(acts_BTC, self._keep_BT).cpu().numpy()
        if not np.isfinite(stats_SBC).all():
            raise UserError(
                f"The activations of {name} are not finite, so nothing can be scored. Load the model in float32, or check its weights."
            )
        self._batch[site, place] = stats_SBC


HANGERS: dict[str, Callable[[WidthAccumulator, nn.Module], Iterator[Any]]] = {
    "heads": lambda all_, model: all_._hang_inputs(model, "heads", all_.sites.output_projections, all_.norms_of),
    "head_channels": lambda all_, model: all_._hang_inputs(model, "head_channels", all_.sites.output_projections, lambda joined: joined),
    "neurons": lambda all_, model: all_._hang_inputs(model, "neurons", all_.sites.down_projections, lambda acts: acts),
    "gates": lambda all_, model: all_._hang_outputs(model, "gates", all_.sites.gates),
    "channels": lambda all_, model: all_._hang_outputs(model, "channels", all_.sites.all_norms),
}
"""Site -> the hooks that see it."""
