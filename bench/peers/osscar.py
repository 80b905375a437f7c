"""OSSCAR (Meng et al., arXiv 2403.12983) on the FFN, as in fmchisel 0.1.2: local removal by least squares, layer after layer.

Of each layer's down projection the neurons go, ``UPDATE`` at a time, whose removal adds least to ``||X (B - B')||^2`` when all others
adapt; X is what the already cut network gives, damped by a hundredth of the mean of its Gram matrix' diagonal. What stays is the
least-squares fit. Its solver needs llmcompressor and an older torch, so it is written down here from the formula.
"""

import torch
from torch import Tensor

from bench.peers.ground import Cut, Ground, changed, inputs_of, run_layer

UPDATE = 8
"""Neurons removed between two updates of the inverse (``update_iter``)."""
DAMPING = 0.01


def ffn(ground: Ground, share: float) -> Cut:
    """Neurons only: selection and refit."""
    targets, tensors = ground.ffn_for(share), {}
    hidden_NTD = ground.embedded()
    positions = ground.positions(hidden_NTD)
    for i, layer in enumerate(ground.layers()):
        gram_FF = torch.zeros(ground.dims.ffn, ground.dims.ffn)
        with inputs_of(layer.mlp.down_proj, lambda rows_NF, gram_FF=gram_FF: gram_FF.addmm_(rows_NF.T, rows_NF)):
            run_layer(layer, hidden_NTD, positions)
        name = f"model.layers.{i}.mlp.down_proj.weight"
        tensors[name] = solve(gram_FF, layer.mlp.down_proj.weight.detach().T, targets.intermediate_size or 0).T.contiguous()
        with changed(ground.model, {name: tensors[name]}):
            hidden_NTD = run_layer(layer, hidden_NTD, positions)
    return Cut(parameters=ground.parameters(targets), apply=lambda: changed(ground.model, tensors))


def solve(gram_FF: Tensor, weight_FD: Tensor, kept: int) -> Tensor:
    """The refitted weight ``[F, D]``, zero in the rows of the removed neurons."""
    gram_FF = gram_FF + DAMPING * gram_FF.diagonal().mean() * torch.eye(len(gram_FF))
    inverse_FF, rest_FD = torch.linalg.inv(gram_FF), weight_FD.clone()
    gone_F, left = torch.zeros(len(gram_FF), dtype=torch.bool), len(gram_FF) - kept
    while left:
        count = min(UPDATE, left)
        errors_F = (rest_FD**2).sum(1) / inverse_FF.diagonal().masked_fill(gone_F, 1.0)
        out = errors_F.masked_fill(gone_F, torch.inf).topk(count, largest=False).indices
        block_RF = torch.linalg.solve(inverse_FF[out][:, out], inverse_FF[out])
        rest_FD -= inverse_FF[:, out] @ torch.linalg.solve(inverse_FF[out][:, out], rest_FD[out])
        inverse_FF -= inverse_FF[:, out] @ block_RF
        gone_F[out], left = True, left - count
        rest_FD[gone_F] = 0
        inverse_FF[gone_F] = 0
        inverse_FF[:, gone_F] = 0
    stay = (~gone_F).nonzero().squeeze(1)
    fitted_FD = torch.zeros_like(weight_FD)
    fitted_FD[stay] = torch.linalg.solve(gram_FF[stay][:, stay], gram_FF[stay] @ weight_FD)
    return fitted_FD
