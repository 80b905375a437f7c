"""How alike two rankings are. Rows are ranked by themselves, as pruning ranks the units of each layer by themselves."""

import numpy as np


def spearman(first_LN: np.ndarray, second_LN: np.ndarray) -> float:
    """Mean over rows of Spearman's rank correlation, in [-1, 1]; rows that are constant under either count as 0.

    Ties share the mean of their places.
    """
    first_LN, second_LN = _places(first_LN), _places(second_LN)
    first_LN, second_LN = first_LN - first_LN.mean(1, keepdims=True), second_LN - second_LN.mean(1, keepdims=True)
    scale_L = np.sqrt((first_LN**2).sum(1) * (second_LN**2).sum(1))
    return float(np.mean((first_LN * second_LN).sum(1) / np.maximum(scale_L, 1e-30)))


def overlap(first_LN: np.ndarray, second_LN: np.ndarray, kept_count: int) -> float:
    """Part of the ``kept_count`` largest of each row under ``first`` that are so under ``second`` too, in [0, 1]."""
    first_best_LN, second_best_LN = _best(first_LN, kept_count), _best(second_LN, kept_count)
    return float((first_best_LN & second_best_LN).sum() / max(int(first_best_LN.sum()), 1))


def _best(scores_LN: np.ndarray, kept_count: int) -> np.ndarray:
    mask_LN = np.zeros(scores_LN.shape, bool)
    np.put_along_axis(mask_LN, np.argsort(-scores_LN, axis=1, kind="stable")[:, :kept_count], True, axis=1)
    return mask_LN


def _places(scores_LN: np.ndarray) -> np.ndarray:
    """Place of each score in its row from the smallest, ``[L, N]``."""
    places_LN = np.empty(scores_LN.shape)
    for row, scores_N in enumerate(scores_LN):
        _, inverse, counts = np.unique(scores_N, return_inverse=True, return_counts=True)
        places_LN[row] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return places_LN
