"""From stored moments to importance: all nine (batch, sequence) aggregations of one forward pass. No torch.

Each block b of the calibration set first yields four numbers a unit, over its tokens t: the mean of |a|, the L2 norm and the
variance (Minitron, arXiv 2407.14679, section 2.2: sequence first, then batch), and the mean with its sign. Of each only the
count, the mean over blocks and the sum of squared deviations from it are kept; the three batch aggregations follow from
those, and so do sums and variances over all tokens.
"""

import numpy as np

from core.specs import AGGREGATIONS

Moments = np.ndarray
"""``[4, 2, ...]`` float64: statistic over tokens (``STATISTICS``), then mean and squared deviation over blocks."""

STATISTICS = (*AGGREGATIONS, "signed")
"""Over a block's tokens: the paper's three, and the mean with its sign."""


def aggregate(moments: Moments, count: int, *, batch: str, sequence: str) -> np.ndarray:
    """Importance under one pair of aggregations, shape of a unit axis.

    mean: the blocks' mean. l2: the root of the sum of squares over blocks. var: the variance between blocks.
    """
    mean, deviation = moments[STATISTICS.index(sequence)]
    if batch == "mean":
        return mean.copy()
    if batch == "l2":
        return np.sqrt(deviation + count * mean**2)
    return deviation / count


def merge(first: Moments, first_count: int, second: Moments, second_count: int) -> Moments:
    """Moments of two disjoint sets of blocks together, exactly (Chan, Golub, LeVeque 1979)."""
    total = first_count + second_count
    if total == 0:
        return first
    shift = second[:, 0] - first[:, 0]
    mean = first[:, 0] + shift * (second_count / total)
    deviation = first[:, 1] + second[:, 1] + shift**2 * (first_count * second_count / total)
    return np.stack([mean, deviation], axis=1)


def pooled_square(moments: Moments, count: int) -> np.ndarray:
    """Sum of squares over all tokens of all blocks: the L2 norm of the blocks' L2 norms, squared."""
    mean, deviation = moments[STATISTICS.index("l2")]
    return deviation + count * mean**2


def pooled_variance(moments: Moments, count: int) -> np.ndarray:
    """Variance over all tokens of equally long blocks: the mean variance within them and the variance of their means."""
    return moments[STATISTICS.index("var"), 0] + moments[STATISTICS.index("signed"), 1] / count
