"""What is kept of a block's activations: four numbers a unit, over the tokens that count.

Reading the activations again costs as much as anything done with them, so they are read five times and no more: summed, squared
and summed, made absolute and summed, into one buffer that is used over and over (fresh memory costs more than arithmetic).
A variance that would be a small difference of large numbers is taken again, in float64, around the mean.
"""

import torch
from torch import Tensor

STEEP = 4.0
"""A squared mean of more than this many variances makes the difference of sums too inexact."""


class TokenStatistics:
    """Takes statistics of batches of activations; holds the buffer."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0)

    def __call__(self, acts_BTC: Tensor, keep_BT: Tensor | None = None) -> Tensor:
        """Statistics of every block: ``[4, B, C]`` float64 (float32 where the device has none), in the order of ``aggregate.STATISTICS``.

        Args:
            acts_BTC: any float dtype; not changed.
            keep_BT: False for tokens that do not count (padding); None if all do.
        """
        if keep_BT is not None:
            found = [self(acts_TC[keep_T][None]) for acts_TC, keep_T in zip(acts_BTC, keep_BT, strict=True)]
            return torch.cat(found, dim=1)
        acts_BTC = acts_BTC.float() if acts_BTC.dtype != torch.float64 else acts_BTC
        tokens, spare_BTC = acts_BTC.shape[1], self._spare(acts_BTC)
        signed_BC = _sum(acts_BTC) / tokens
        absolute_BC = _sum(torch.abs(acts_BTC, out=spare_BTC)) / tokens
        squares_BC = _sum(torch.mul(acts_BTC, acts_BTC, out=spare_BTC)) / tokens
        variance_BC = squares_BC - signed_BC**2
        steep_C = (signed_BC**2 > STEEP * variance_BC).any(0).nonzero().flatten()
        if len(steep_C):
            steep_BTC = acts_BTC[..., steep_C].to(signed_BC.dtype)
            variance_BC[:, steep_C] = steep_BTC.var(dim=1, correction=0)
        return torch.stack([absolute_BC, (tokens * squares_BC).sqrt(), variance_BC, signed_BC])

    def _spare(self, acts_BTC: Tensor) -> Tensor:
        """A buffer of that shape."""
        if self._buffer.numel() < acts_BTC.numel() or (self._buffer.dtype, self._buffer.device) != (acts_BTC.dtype, acts_BTC.device):
            self._buffer = torch.empty(acts_BTC.numel(), dtype=acts_BTC.dtype, device=acts_BTC.device)
        return self._buffer[: acts_BTC.numel()].view(acts_BTC.shape)


def _sum(values_BTC: Tensor) -> Tensor:
    """Sum over tokens, ``[B, C]``; torch adds in a cascade, so float32 loses a few parts in ten million however long the block."""
    return values_BTC.sum(1).to(torch.float32 if values_BTC.device.type == "mps" else torch.float64)
