"""From stored moments to importance: all nine (batch, sequence) aggregations of one forward pass. No torch.

Each block b of the calibration set first yields three numbers a unit, over its tokens t: the mean of |a|, the L2 norm and
the variance (Minitron, arXiv 2407.14679, section 2.2: sequence first, then batch). Of each of the three only the count, the
mean over blocks and the sum of squared deviations from it are kept; the three batch aggregations follow from those.
"""

import numpy as np

from core.specs import AGGREGATIONS

Moments = np.ndarray
"""``[3, 2, ...]`` float64: sequence aggregation (in ``AGGREGATIONS``' order), then mean and squared deviation over blocks."""


def aggregate(moments: Moments, count: int, *, batch: str, sequence: str) -> np.ndarray:
    """Importance under one pair of aggregations, shape of a unit axis.

    mean: the blocks' mean. l2: the root of the sum of squares over blocks. var: the variance between blocks.
    """
    mean, deviation = moments[AGGREGATIONS.index(sequence)]
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
