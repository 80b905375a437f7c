"""Importance of heads, neurons and embedding channels, and block importance of layers: one forward pass, hooks only.

Formulas (Minitron, arXiv 2407.14679, section 2.2; ShortGPT, arXiv 2403.03853, for block importance):

    head i      ||Attn(X W_Q,i, X W_K,i, X W_V,i)||_2 of each token, before W_O
    neuron i    act(X W_gate)_i (X W_up)_i, the down projection's input; or X W_1,i before the activation, as printed
    channel i   LN(X)_i at every normalisation inside the layers
    layer       1 - cos(x_in, x_out), averaged over tokens

Activations are reduced over their tokens inside the hook, in two passes so that a variance never is a difference of large
sums; no activation outlives its batch.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from core.errors import UserError
from core.model.dims import dims_of
from core.model.head import body
from core.score.aggregate import merge
from core.score.sites import Sites, modules_at, site_sizes, sites_of
from core.specs import AGGREGATIONS

Hook = Callable[..., None]


class WidthAccumulator:
    """Moments of every unit, and block importance, over the blocks seen so far."""

    def __init__(self, config: dict[str, Any], neuron_site: str = "down_input") -> None:
        self.sites: Sites = sites_of(config)
        self.dims = dims_of(config)
        self.neuron_site = neuron_site
        self.count = 0
        shapes = site_sizes(config, self.dims)
        self.moments = {axis: np.zeros((len(AGGREGATIONS), 2, *shape)) for axis, shape in shapes.items()}
        self.distance_L = np.zeros(self.dims.layers)
        """Sum over blocks of 1 - cos, averaged over each block's tokens."""
        self._batch: dict[tuple[str, int], np.ndarray] = {}
        self._inputs: dict[int, torch.Tensor] = {}

    def feed(self, model: nn.Module, ids_BT: torch.Tensor) -> None:
        """Run the model's body over a batch of blocks and take its activations in.

        Raises:
            UserError: an activation is not finite.
        """
        self._batch.clear()
        with self._hooks(model), torch.no_grad():
            body(model)(ids_BT, use_cache=False)
        before, seen = self.count, len(ids_BT)
        for axis, moments in self.moments.items():
            stats_SBC = np.stack([self._batch[axis, site] for site in range(moments.shape[2])], axis=1)
            new = np.stack([stats_SBC.mean(2), ((stats_SBC - stats_SBC.mean(2, keepdims=True)) ** 2).sum(2)], axis=1)
            self.moments[axis] = merge(moments, before, new, seen)
        self.distance_L += np.stack([self._batch["layers", i] for i in range(self.dims.layers)]).sum(1)
        self.count += seen

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything there is to keep, for the score store or for a checkpoint of the scoring itself."""
        return {**self.moments, "distance": self.distance_L, "count": np.array(self.count)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from what ``arrays`` returned."""
        self.moments = {axis: arrays[axis].copy() for axis in self.moments}
        self.distance_L, self.count = arrays["distance"].copy(), int(arrays["count"])

    @contextlib.contextmanager
    def _hooks(self, model: nn.Module) -> Iterator[None]:
        """Hang the hooks in, and take every one out again."""
        handles = [self._neuron_hook(model, i) for i in range(self.dims.layers)]
        for i, (layer, projection) in enumerate(
            zip(modules_at(model, self.sites.layers), modules_at(model, self.sites.output_projections), strict=True)
        ):
            handles.append(layer.register_forward_pre_hook(self._layer_in(i)))
            handles.append(layer.register_forward_hook(self._layer_out(i)))
            handles.append(projection.register_forward_pre_hook(self._heads(i)))
        norms = [name for names in self.sites.norms for name in names]
        for site, norm in enumerate(modules_at(model, tuple(norms))):
            handles.append(norm.register_forward_hook(self._channels(site, norms[site])))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._inputs.clear()

    def _neuron_hook(self, model: nn.Module, i: int) -> Any:
        if self.neuron_site == "down_input":
            name = self.sites.down_projections[i]
            return model.get_submodule(name).register_forward_pre_hook(lambda _, args: self._take("neurons", i, name, args[0]))
        name = self.sites.gates[i]
        return model.get_submodule(name).register_forward_hook(lambda _, args, output: self._take("neurons", i, name, output))

    def _heads(self, i: int) -> Hook:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            heads_BTHd = args[0].unflatten(-1, (self.dims.heads, self.dims.head_dim))
            self._take("heads", i, self.sites.output_projections[i], torch.linalg.vector_norm(heads_BTHd.float(), dim=-1))

        return hook

    def _channels(self, site: int, name: str) -> Hook:
        return lambda _, args, output: self._take("channels", site, name, output)

    def _layer_in(self, i: int) -> Hook:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            self._inputs[i] = args[0]

        return hook

    def _layer_out(self, i: int) -> Hook:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            out_BTD = output[0] if isinstance(output, tuple) else output
            cosine_BT = torch.cosine_similarity(self._inputs.pop(i).float(), out_BTD.float(), dim=-1)
            self._batch["layers", i] = (1 - cosine_BT.double()).mean(1).cpu().numpy()

        return hook

    def _take(self, axis: str, site: int, name: str, acts_BTC: torch.Tensor) -> None:
        """Reduce one site's activations over their tokens."""
        stats = sequence_stats(acts_BTC).cpu().numpy()
        if not np.isfinite(stats).all():
            raise UserError(
                f"The activations of {name} are not finite, so nothing can be scored. Load the model in float32, or check its weights."
            )
        self._batch[axis, site] = stats


def sequence_stats(acts_BTC: torch.Tensor) -> torch.Tensor:
    """Mean of |a|, L2 norm and variance over each block's tokens: ``[3, B, C]``, in the order of ``AGGREGATIONS``.

    Sums over tokens are products with a row of ones, which BLAS does several times faster than a strided reduction; they run
    over pieces of at most 64 tokens and are added up in float64, so rounding does not grow with the block's length.
    """
    acts_BTC = acts_BTC.float()
    tokens = acts_BTC.shape[1]
    mean_BC = _token_sum(acts_BTC) / tokens
    spare = acts_BTC - mean_BC.to(acts_BTC.dtype).unsqueeze(1)
    variance_BC = _token_sum(spare.square_()) / tokens
    absolute_BC = _token_sum(torch.abs(acts_BTC, out=spare)) / tokens
    return torch.stack([absolute_BC, (tokens * (variance_BC + mean_BC**2)).sqrt(), variance_BC])


def _token_sum(values_BTC: torch.Tensor, piece: int = 64) -> torch.Tensor:
    """Sum over tokens, ``[B, C]`` float64 (float32 where the device has no float64)."""
    wide = torch.float32 if values_BTC.device.type == "mps" else torch.float64
    tokens = values_BTC.shape[1]
    whole = tokens - tokens % piece
    ones = values_BTC.new_ones(1, piece)
    total_BC = (ones @ values_BTC[:, :whole].unflatten(1, (-1, piece))).squeeze(2).to(wide).sum(1) if whole else 0
    return total_BC + values_BTC[:, whole:].sum(1, dtype=wide)
