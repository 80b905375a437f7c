"""optipfair (pip, 0.4.2): data-driven selection of MLP neurons, the hybrid of weight ranges and activation norms of arXiv 2512.22671.

By formula where the package is not installed: each neuron's peak-to-peak range in the gate, up and down projection, each divided
by the layer's largest, summed, times the norm of its activation (summed over batches).
"""

import numpy as np
import torch
from torch import Tensor

from bench.peers.ground import Cut, Ground, read_everywhere


def by_formula(ground: Ground, share: float) -> Cut:
    """Neurons by the hybrid score."""
    norms_LF = _activation_norms(ground)
    scores_LF = [_ranges(layer.mlp) * norm_F for layer, norm_F in zip(ground.layers(), norms_LF, strict=True)]
    return ground.selection(ground.keep(ground.ffn_for(share), {"neurons": np.stack([score_F.numpy() for score_F in scores_LF])}))


def _ranges(mlp: torch.nn.Module) -> Tensor:
    """Sum of the three projections' normalised ranges, ``[F]``."""
    rows = (mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight.T)
    spans = [(weight.max(1).values + weight.min(1).values.abs()).detach() for weight in rows]
    return sum((span_F / (span_F.max() + 1e-8) for span_F in spans), torch.zeros_like(spans[0]))


def _activation_norms(ground: Ground) -> Tensor:
    """Norms of the neurons over each batch, summed over batches, ``[L, F]``."""
    norms_LF = torch.zeros(ground.dims.layers, ground.dims.ffn)
    modules = [layer.mlp.down_proj for layer in ground.layers()]
    read_everywhere(ground, modules, lambda layer, rows_NF: norms_LF[layer].add_(rows_NF.norm(dim=0)))
    return norms_LF
