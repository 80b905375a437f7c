"""Importance from the units' covariances: what the units that stay could do in the place of one that goes.

C = E[a a^T] over all tokens, uncentred, of the inputs a that the next projections W read. From it follow

    leverage      [C (C + ridge I)^-1]_jj, the share of a unit that the ridge does not explain away (MoDeGPT, arXiv 2408.09632, section 3.2)
    obs           tr(W_G ([(C + ridge I)^-1]_GG)^-1 W_G^T), the output error of removing the columns G when all others adapt (Optimal
                  Brain Surgeon; ZipLM, arXiv 2302.04089, equation 3, for groups)
    contribution  E||W_G a_G||^2, the output error of removing G when nothing adapts
    iterative     the order in which units go if, every time, the one goes that adds least to E||W_R a_R||^2 of all that went (the exact
                  form of Puzzle's iterative channel contribution, arXiv 2411.19146, in mean squares)

Matrices are gathered in one pass and let go of; only the results are kept.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.errors import UserError
from core.model.dims import Config, dims_of
from core.model.head import wide
from core.score.batch import Batch, read
from core.score.sites import COVARIED, covariance_bytes, modules_at, site_sizes, sites_of

STRIPES = 8
"""A symmetric product is made in so many stripes, each without what lies below its diagonal block: 9/16 of the whole."""


class CovarianceAccumulator:
    """Sum of a a^T at every place of every site."""

    def __init__(self, model: nn.Module, config: Config, share: float = 1.0) -> None:
        """Make room.

        Args:
            share: part of the tokens that is taken in, see ``Batch.drawn``; the sum then stands for less, and ``errors`` says how surely.

        Raises:
            UserError: there is not enough memory.
        """
        self.sites, self.dims, self.share, self.tokens, self.taken = sites_of(config), dims_of(config), share, 0, 0
        sizes = site_sizes(config, self.dims)
        weight = next(model.parameters())
        empty = wide(weight.new_empty(0))
        check_memory(covariance_bytes(config, empty.itemsize), weight.device)
        self.sums = {site: empty.new_zeros(sizes[site][0], sizes[site][1], sizes[site][1]) for site in COVARIED}
        self.energies: dict[str, list[list[Tensor]]] = {site: [[] for _ in range(sizes[site][0])] for site in COVARIED}
        """Squared length of what each place reads, token by token; only where not all tokens are taken in."""

    def feed(self, model: PreTrainedModel, batch: Batch) -> None:
        """Run the model's body over a batch of blocks and take its activations in."""
        read(model, batch, [self])

    def ran(self, batch: Batch) -> None:
        """Count a batch's tokens."""
        self.tokens += batch.tokens
        self.taken += batch.tokens if self.share == 1 else int(batch.drawn(self.share).sum())

    def covariance(self, site: str, place: int) -> Tensor:
        """``[C, C]`` float64, mean over tokens."""
        upper = self.sums[site][place].cpu().double().triu() / self.taken
        return upper + upper.triu(1).T

    def errors(self, site: str) -> np.ndarray:
        """Standard error of the trace of each place's covariance, as a share of it: ``[places]``; 0 where all tokens were taken in."""
        rest = 1 - self.taken / self.tokens
        if not rest:
            return np.zeros(len(self.sums[site]))
        found = [torch.cat(parts) for parts in self.energies[site]]
        return np.array([math.sqrt(rest / len(each_N)) * float(each_N.std() / each_N.mean().clamp_min(1e-30)) for each_N in found])

    @contextlib.contextmanager
    def hooks(self, model: nn.Module, batch: Batch) -> Iterator[None]:
        """Take in what runs through the model, which is to be ``batch``, while the block lasts."""
        drawn_BT = None if self.share == 1 else batch.drawn(self.share)
        handles = []
        for site, names in (("head_channels", self.sites.output_projections), ("neurons", self.sites.down_projections)):
            for place, module in enumerate(modules_at(model, names)):
                handles.append(module.register_forward_pre_hook(self._taking(site, place, batch, drawn_BT, lambda args, _: args[0])))
        for place, module in enumerate(modules_at(model, self.sites.all_norms)):
            handles.append(module.register_forward_hook(self._taking("channels", place, batch, drawn_BT, lambda _, output: output)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _taking(
        self, site: str, place: int, batch: Batch, drawn_BT: Tensor | None, of: Callable[[Any, Any], Tensor]
    ) -> Callable[..., None]:
        """A hook that takes in what ``of`` finds in a module's arguments and output."""

        def hook(_: nn.Module, args: Any, output: Any = None) -> None:
            acts_BTC = of(args, output)
            acts_NC = batch.counting(acts_BTC) if drawn_BT is None else acts_BTC[drawn_BT]
            add_gram(self.sums[site][place], acts_NC)
            if drawn_BT is not None:
                self.energies[site][place].append(torch.linalg.vecdot(wide(acts_NC), wide(acts_NC)).cpu().double())

        return hook


def check_memory(needed: int, device: torch.device) -> None:
    """Refuse what does not fit.

    Raises:
        UserError: less than ``needed`` bytes are free on the device.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"The covariances of this model take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free. Score without covariances."
        )


def add_gram(sum_CC: Tensor, acts_NC: Tensor) -> None:
    """Add a^T a to the upper triangle of ``sum_CC``, stripe by stripe; what is below the diagonal blocks is left out."""
    acts_NC = wide(acts_NC)
    width = max(64, -(-sum_CC.shape[0] // STRIPES))
    for start in range(0, sum_CC.shape[0], width):
        stop = min(start + width, sum_CC.shape[0])
        sum_CC[start:stop, start:].addmm_(acts_NC[:, start:stop].T, acts_NC[:, start:])


def covariance_scores(accumulator: CovarianceAccumulator, model: PreTrainedModel, ridge: float) -> dict[str, np.ndarray]:
    """All criteria of this module, once everything has run through.

    Returns:
        ``leverage.AXIS``, ``obs.AXIS``, ``contribution.AXIS``, ``iterative.AXIS``: heads ``[L, H]``, neurons ``[L, F]``, channels ``[D]``.
        Sites of channels are summed after each was divided by the output's whole energy there, so that no layer outweighs the others.
        Where a share of the tokens was taken also ``error.AXIS``, see ``CovarianceAccumulator.errors``.
    """
    sites, width = accumulator.sites, accumulator.dims.head_dim
    parts = {
        "heads": [_scores_at(accumulator, model, "head_channels", i, (name,), ridge, width) for i, name in enumerate(sites.output_projections)],
        "neurons": [_scores_at(accumulator, model, "neurons", i, (name,), ridge, 1) for i, name in enumerate(sites.down_projections)],
    }  # fmt: skip
    found = {f"{name}.{axis}": np.stack([part[name] for part in of_axis]) for axis, of_axis in parts.items() for name in of_axis[0]}
    errors = {"heads": "head_channels", "neurons": "neurons", "channels": "channels"} if accumulator.share < 1 else {}
    found |= {f"error.{axis}": accumulator.errors(site) for axis, site in errors.items()}
    return found | _channel_scores(accumulator, model, ridge)


def _scores_at(
    accumulator: CovarianceAccumulator, model: nn.Module, site: str, place: int, readers: tuple[str, ...], ridge: float, width: int
) -> dict[str, np.ndarray]:
    """The criteria of one place, for groups of ``width`` columns."""
    cov_CC, gram_CC = accumulator.covariance(site, place), _reader_gram(model, readers)
    amount, inverse_CC = _ridged_inverse(cov_CC, ridge)
    effect_GG = _pooled(cov_CC * gram_CC, width)
    return {
        "leverage": _leverage(amount, inverse_CC).view(-1, width).sum(1).numpy(),
        "obs": _surgeon(inverse_CC, gram_CC, width).numpy(),
        "contribution": effect_GG.diagonal().numpy(),
        "iterative": removal_places(effect_GG.numpy()),
    }


def _channel_scores(accumulator: CovarianceAccumulator, model: nn.Module, ridge: float) -> dict[str, np.ndarray]:
    """The criteria of embedding channels, over all normalisations."""
    size = accumulator.dims.hidden
    sums: dict[str, Any] = {"leverage": 0.0, "obs": 0.0, "contribution": 0.0}
    effect_DD = torch.zeros(size, size, dtype=torch.float64)
    for place, readers in enumerate(accumulator.sites.readers):
        cov_DD, gram_DD = accumulator.covariance("channels", place), _reader_gram(model, readers)
        energy = (cov_DD * gram_DD).sum().clamp_min(1e-30)
        amount, inverse_DD = _ridged_inverse(cov_DD, ridge)
        effect_DD += cov_DD * gram_DD / energy
        sums["leverage"] += _leverage(amount, inverse_DD).numpy()
        sums["obs"] += (_surgeon(inverse_DD, gram_DD, 1) / energy).numpy()
    sums |= {"contribution": effect_DD.diagonal().numpy(), "iterative": removal_places(effect_DD.numpy())}
    return {f"{name}.channels": values for name, values in sums.items()}


def _reader_gram(model: nn.Module, readers: tuple[str, ...]) -> Tensor:
    """W^T W over all matrices that read the columns, float64."""
    joined_OC = torch.cat([model.get_parameter(f"{name}.weight").detach().cpu().double() for name in readers])
    return joined_OC.T @ joined_OC


def _ridged_inverse(cov_CC: Tensor, ridge: float) -> tuple[float, Tensor]:
    """The ridge as a number, and (C + ridge)^-1.

    Raises:
        UserError: the ridge is too small for so few tokens.
    """
    amount = ridge * float(cov_CC.diagonal().mean()) or 1e-30  # a place may be dead
    factor_CC, failed = torch.linalg.cholesky_ex(cov_CC + amount * torch.eye(len(cov_CC), dtype=cov_CC.dtype))
    if failed:
        raise UserError(
            f"The covariances cannot be inverted with a ridge of {ridge:g}: too few tokens for it. Raise ridge (0.01 is usual), or score more text."
        )
    return amount, torch.cholesky_inverse(factor_CC)


def _leverage(amount: float, inverse_CC: Tensor) -> Tensor:
    """[C (C + ridge)^-1]_jj, which is 0 for a dead unit whatever is rounded."""
    return (1 - amount * inverse_CC.diagonal()).clamp_min(0)


def _pooled(effect_CC: Tensor, width: int) -> Tensor:
    """Sum blocks of ``width`` rows and columns."""
    groups = len(effect_CC) // width
    return effect_CC.view(groups, width, groups, width).sum((1, 3))


def _surgeon(inverse_CC: Tensor, gram_CC: Tensor, width: int) -> Tensor:
    """tr(([C^-1]_GG)^-1 (W^T W)_GG) for every group G."""
    groups = len(inverse_CC) // width
    places = torch.arange(groups)
    inverse_GWW = inverse_CC.view(groups, width, groups, width).transpose(1, 2)[places, places]
    gram_GWW = gram_CC.view(groups, width, groups, width).transpose(1, 2)[places, places]
    return torch.linalg.solve(inverse_GWW, gram_GWW).diagonal(dim1=1, dim2=2).sum(1)


def removal_places(effect_GG: np.ndarray) -> np.ndarray:
    """Place of every unit in the order of removal, 1 the first to go: each time the one that adds least to the summed effect."""
    cost_G, place_G = effect_GG.diagonal().copy(), np.zeros(len(effect_GG))
    for place in range(1, len(effect_GG) + 1):
        least = int(np.argmin(np.where(place_G == 0, cost_G, np.inf)))
        place_G[least] = place
        cost_G += 2 * effect_GG[least]
    return place_G
