"""How alike two rankings are. Rows are ranked by themselves, as pruning ranks the units of each layer by themselves."""

from collections.abc import Sequence

import numpy as np


def spearman(first_LN: np.ndarray, second_LN: np.ndarray) -> float:
    """Mean over rows of Spearman's rank correlation, in [-1, 1]; rows that are constant under either count as 0.

    Ties share the mean of their places.
    """
    return float(spearman_matrix([first_LN, second_LN])[0, 1])


def spearman_matrix(scores: Sequence[np.ndarray]) -> np.ndarray:
    """``spearman`` of every two of C scores, ``[C, C]``; each is ranked once."""
    standard_CLN = np.stack([_standard(_places(scores_LN)) for scores_LN in scores])
    return np.einsum("aln,bln->ab", standard_CLN, standard_CLN, optimize=True) / standard_CLN.shape[1]


def _standard(places_LN: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and length 1; a constant row becomes 0."""
    centred_LN = places_LN - places_LN.mean(1, keepdims=True)
    return centred_LN / np.maximum(np.linalg.norm(centred_LN, axis=1, keepdims=True), 1e-30)


def overlap(first_LN: np.ndarray, second_LN: np.ndarray, kept_count: int) -> float:
    """Part of the ``kept_count`` largest of each row under ``first`` that are so under ``second`` too, in [0, 1]."""
    return float(overlap_matrix([first_LN, second_LN], kept_count)[0, 1])


def overlap_matrix(scores: Sequence[np.ndarray], kept_count: int) -> np.ndarray:
    """``overlap`` of every two of C scores, ``[C, C]``."""
    best_CU = np.stack([_best(scores_LN, kept_count).ravel() for scores_LN in scores]).astype(float)
    return best_CU @ best_CU.T / np.maximum(best_CU.sum(1, keepdims=True), 1)


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


def ranks(score_LN: np.ndarray) -> np.ndarray:
    """Place of each score in its row, ``[L, N]``; 1 is the largest, ties in order of index."""
    order_LN = np.argsort(-score_LN, axis=1, kind="stable")
    rank_LN = np.empty_like(order_LN)
    np.put_along_axis(rank_LN, order_LN, np.arange(1, score_LN.shape[1] + 1)[None], axis=1)
    return rank_LN
