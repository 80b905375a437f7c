"""Criteria for layers: ``[L]``, such that the layers to remove have the lowest values.

Criteria that judge runs of consecutive layers give every layer the value of the best run that holds it; so the layers of the
best run of all come out lowest.
"""

import numpy as np

from core.errors import UserError
from core.score.criteria.registry import Depth, Measured, criterion


@criterion("layers", "bi", "Block importance", paper="ShortGPT, arXiv 2403.03853, equation 2; Minitron", needs="activations")
def block_importance(measured: Measured, depth: Depth) -> np.ndarray:
    """1 - cosine similarity of a layer's input and output, mean over tokens."""
    return measured.mean("activations", "distance")


@criterion("layers", "ppl", "Loss when removed", paper="Shortened LLaMA, arXiv 2402.02834; Minitron", needs="removal", unit="nats a token")
def loss_when_removed(measured: Measured, depth: Depth) -> np.ndarray:
    """Rise of the loss without the layer."""
    losses = measured.mean("removal", "losses")
    return losses[1:] - losses[0]


@criterion(
    "layers",
    "kl",
    "Divergence when removed",
    paper="Puzzle, arXiv 2411.19146, replace-1-block scores",
    needs="removal",
    unit="nats a token",
)
def divergence_when_removed(measured: Measured, depth: Depth) -> np.ndarray:
    """KL divergence of the model without the layer from the whole one."""
    return measured.mean("removal", "kl")


@criterion("layers", "angle", "Angle across a run", paper="Gromov et al., arXiv 2403.17887, equation 7", needs="removal", unit="half turns")
def angle(measured: Measured, depth: Depth) -> np.ndarray:
    """Angle between the residual stream before and after a run of as many layers as go; every layer has that of its best run."""
    angles_SS, length = measured.mean("removal", "angles"), max(depth.removed, 1)
    return best_run(np.diagonal(angles_SS, offset=length), length, depth.free_L)


@criterion(
    "layers",
    "window",
    "Loss without a run",
    paper="Minitron in practice, arXiv 2408.11796, section 3",
    needs="windows",
    unit="nats a token",
)
def window(measured: Measured, depth: Depth) -> np.ndarray:
    """Rise of the loss without a run of as many layers as go; every layer has that of its best run.

    Raises:
        UserError: runs of this length were not measured.
    """
    lengths = measured.array("windows", "lengths")[0].tolist()
    length = depth.removed or min(lengths)
    if length not in lengths:
        raise UserError(
            f"Runs of {length} layers were not measured, only of {', '.join(map(str, lengths))}. Score again with {length} among the windows."
        )
    losses = measured.mean("windows", f"losses.{length}")
    return best_run(losses[1:] - losses[0], length, depth.free_L)


@criterion(
    "layers",
    "greedy",
    "Removed one by one",
    paper="BlockPruner, arXiv 2406.10594, for whole layers",
    needs="greedy",
    unit="place",
    sharded=False,
)
def greedy(measured: Measured, depth: Depth) -> np.ndarray:
    """Place in the order in which layers go when, every time, the one goes whose loss hurts least.

    Raises:
        UserError: fewer layers that may go were removed than are to go.
    """
    order = measured.array("greedy", "order")
    usable = int(depth.free_L[order].sum())
    if usable < depth.removed < depth.free_L.sum():
        raise UserError(
            f"Only {usable} layers that may go were removed one by one. Score again with greedy of at least {len(order) - usable + depth.removed}."
        )
    place_L = np.full(measured.dims.layers, float(len(order) + 1))
    place_L[order] = np.arange(1, len(order) + 1)
    return place_L


def best_run(values_R: np.ndarray, length: int, free_L: np.ndarray) -> np.ndarray:
    """For every layer the least value of a run that holds it and no protected layer; infinite if there is none."""
    scores_L = np.full(len(free_L), np.inf)
    for start, value in enumerate(values_R):
        run = slice(start, start + length)
        if free_L[run].all():
            scores_L[run] = np.minimum(scores_L[run], value)
    return scores_L
