"""Weights that no process holds whole while it trains: FSDP2, torch's ``fully_shard``.

Accelerate's own FSDP2 does not know CPUs (it falls back to DDP there without a word), so nobody could test it where this is
developed. It is three calls of torch, made here for every device alike; ``transformers.Trainer`` does the rest
(``core.distill.sharded``). Between passes each process holds a slice of every weight, its gradient and its Adam moments.
"""

import atexit
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from core.distill.processes import is_main_process
from core.model.checkpoint import load_model
from core.model.head import body, head_weight


def shard(model: PreTrainedModel, device: torch.device) -> None:
    """Shard a model in place, layer by layer, so that a device never holds more than one whole layer beside its slices.

    What is no layer (embedding, head, final norm, up-projection) belongs to the model itself: it is whole exactly while the
    model's forward runs. The fused head reads its weight there (``core.distill.loop.through``), and its gradient goes back the
    same way, tied to the embedding's or not.
    """
    _shard_layers(model, device)
    _shard(model, device)


def shard_body(teacher: PreTrainedModel, device: torch.device) -> None:
    """Shard a teacher's body in place. Its head stays whole on every device: each pass needs all of it, between two forwards of the body."""
    head: Any = teacher.get_output_embeddings()
    head.weight = nn.Parameter(head_weight(teacher).detach().to(device, copy=True), requires_grad=False)  # no longer the embedding's
    _shard_layers(teacher, device)
    _shard(body(teacher), device)


def _shard_layers(model: PreTrainedModel, device: torch.device) -> None:
    decoder: Any = body(model)
    for layer in decoder.layers:
        _shard(layer, device)


def _shard(module: nn.Module, device: torch.device) -> None:
    _leave_in_order()
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    fully_shard(module, mesh=mesh, reshard_after_forward=True)


@cache
def _leave_in_order() -> None:
    """Close the connections before the process ends: one that ended while another still worked was now and then aborted for it (gloo)."""
    atexit.register(lambda: torch.distributed.is_initialized() and torch.distributed.destroy_process_group())


def is_sharded(model: nn.Module) -> bool:
    """Whether ``shard`` was here."""
    return isinstance(model, FSDPModule)


@torch.no_grad()
def gathered(tensors: dict[str, Any]) -> dict[str, Any]:
    """The same tensors whole, on the CPU of the main process; elsewhere nothing. All processes must ask, for the same in the same order."""
    found = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if is_main_process():
            found[name] = full.cpu() if isinstance(full, Tensor) else full
    return found


def sliced(full: Tensor, like: Any) -> DTensor:
    """This process's slice of a tensor that every process has whole, cut as ``like`` (a sharded one) is; nothing is sent."""
    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def take(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Set the weights of a sharded model, each process to its slice of them."""
    for name, parameter in model.named_parameters():
        parameter.copy_(sliced(weights[name].to(parameter.dtype), parameter))


@torch.no_grad()
def whole(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """A plain copy of a sharded model, to be measured or written by the main process; other processes get the model itself.

    All processes must ask. A model that is not sharded is given back as it is.
    """
    if not is_sharded(model):
        return model
    weights = gathered(dict(model.named_parameters()))
    if not is_main_process():
        return model
    copy = load_model(Path(model.name_or_path), device)
    for name, parameter in copy.named_parameters():
        parameter.copy_(weights[name])
    return copy
