"""Ridge least squares with its strength, and the decision to leave everything as it is, made on tokens that were not fitted.

Wanted is the change D of a matrix W that reads z, so that (W + D) z comes nearest to a target, with e = target - W z:

    D = E[e z'] (E[z z'] + r diag(E[z z']))^-1

The ridge r pulls towards the weights that are there, not towards zero: with few tokens they know more than the fit
(RCPU, arXiv 2510.07782, on plain least squares that overfits a small calibration set). It is a share of each input's own mean
square: neurons differ in theirs by orders of magnitude, and a ridge that suits the mean would hold the quiet ones fast.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""What is tried where no ridge is given."""

LEAST_GAIN = 1e-3
"""A fit that takes less than this share of the error away is not worth a change."""

ROUNDING = 1e-9
"""A mean squared error below this, of targets whose mean square is about 1, is none."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over tokens, float64: all that a fit and its error need."""

    zz_CC: Tensor
    ez_OC: Tensor
    ee: float
    """Squared error of the weights as they are."""
    tokens: int

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            zz_CC=self.zz_CC + other.zz_CC, ez_OC=self.ez_OC + other.ez_OC, ee=self.ee + other.ee, tokens=self.tokens + other.tokens
        )

    def single(self) -> "Moments":
        """The same in float32, in which ridges are compared: half the time, and far finer than their differences."""
        return replace(self, zz_CC=self.zz_CC.float(), ez_OC=self.ez_OC.float())

    def error(self, change_OC: Tensor) -> float:
        """Squared error once W is changed: sum of |e - D z|^2."""
        return self.ee - 2 * float((change_OC * self.ez_OC).sum()) + float(((change_OC @ self.zz_CC) * change_OC).sum())


def moments(rows: Iterable[tuple[Tensor, Tensor]]) -> Moments:
    """Add up batches of regressors ``[N, C]`` and errors ``[N, O]``, both already weighted. Products float32, sums float64."""
    total = None
    for z_NC, e_NO in rows:
        zz_CC, ez_OC = (z_NC.T @ z_NC).double(), (e_NO.T @ z_NC).double()
        part = Moments(zz_CC=zz_CC, ez_OC=ez_OC, ee=float(e_NO.double().square().sum()), tokens=len(z_NC))
        total = part if total is None else total + part
    assert total is not None, "there is always a token"
    return total


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What became of one matrix."""

    change_OC: Tensor | None
    """None: it stays as it is."""
    ridge: float | None
    gain: float
    """Share of the squared error on the held-back tokens that the fit takes away."""
    short: bool = False
    """Whether there are fewer tokens than the matrix has inputs, so that nothing was tried."""


def fit(fitted: Moments, held_back: Moments, ridge: float | None) -> Fit:
    """Fit on one part of the tokens, choose on the other, and fit what was chosen on both.

    Args:
        ridge: its strength; None tries ``RIDGES``.
    """
    if fitted.tokens < len(fitted.zz_CC):
        return Fit(change_OC=None, ridge=None, gain=0.0, short=True)
    some, others = fitted.single(), held_back.single()
    tried = {share: others.error(ridged(some, share)) for share in (RIDGES if ridge is None else (ridge,))}
    best = min(tried, key=lambda share: tried[share])
    exact = held_back.ee <= ROUNDING * held_back.tokens * len(held_back.ez_OC)
    gain = 0.0 if exact else 1 - tried[best] / held_back.ee
    if not gain > LEAST_GAIN:
        return Fit(change_OC=None, ridge=None, gain=0.0)
    return Fit(change_OC=ridged(fitted + held_back, best), ridge=best, gain=gain)


def ridged(sums: Moments, share: float) -> Tensor:
    """The change ``[O, C]`` for a ridge that is a share of every regressor's own mean square."""
    squares_C, damped_CC = sums.zz_CC.diagonal(), sums.zz_CC.clone()
    damped_CC.diagonal().add_(share * squares_C + 1e-12 * squares_C.mean() + 1e-30)  # a regressor may be dead
    factor_CC, failed = torch.linalg.cholesky_ex(damped_CC)
    if failed:  # a ridge below the rounding of dead inputs
        return torch.zeros_like(sums.ez_OC)
    return torch.cholesky_solve(sums.ez_OC.T, factor_CC).T
