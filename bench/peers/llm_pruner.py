"""LLM-Pruner (Ma et al., arXiv 2305.11627): first-order Taylor importance of every weight, summed over a neuron's three vectors.

``|w dL/dw|`` (its Element1, "param_first", aggregation "sum"), equal widths in every layer so that the shape is stock.
"""

import numpy as np
import torch

from bench.peers.ground import Cut, Ground


def taylor_ffn(ground: Ground, share: float) -> Cut:
    """Neurons by the Taylor score, gradients over all calibration blocks."""
    weights = [[layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight, layer.mlp.down_proj.weight] for layer in ground.layers()]
    wanted = [weight for group in weights for weight in group]
    for parameter in ground.model.parameters():
        parameter.requires_grad_(False)
    for weight in wanted:
        weight.requires_grad_(True)
    for ids_T in ground.calibration_NT:
        ground.model(ids_T[None], labels=ids_T[None], use_cache=False).loss.backward()
    scores_LF = np.stack([_score(*group).numpy() for group in weights])
    for weight in wanted:
        weight.grad = None
        weight.requires_grad_(False)
    return ground.selection(ground.keep(ground.ffn_for(share), {"neurons": scores_LF}))


def _score(gate_FD: torch.Tensor, up_FD: torch.Tensor, down_DF: torch.Tensor) -> torch.Tensor:
    """Sum of ``|weight x gradient|`` over a neuron's row of gate and up and column of down, ``[F]``."""
    return sum((abs(w * w.grad).detach().sum(axis) for w, axis in ((gate_FD, 1), (up_FD, 1), (down_DF, 0))), torch.zeros(len(gate_FD)))
