"""The training loop for a student that is sharded over processes. Its checkpoints are those of one process: whole, for any number of them."""

import contextlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from core.distill.loop import DistillTrainer
from core.distill.processes import is_main_process
from core.distill.sharding import gathered, sliced, take


class ShardedTrainer(DistillTrainer):
    """``DistillTrainer`` on a model that ``core.distill.sharding.shard`` was given.

    Gradients are averaged over processes in every backward pass, accumulated ones too: what is kept of them is this
    process's slice.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.is_distributed_loading_by_transformers = True
        """Trainer's word for a model that is neither to be moved to a device nor wrapped in DDP."""

    def _defer_fsdp_gradient_reduction(self) -> contextlib.AbstractContextManager[None]:
        """Defer nothing: gradients that wait for a later pass would have to be kept whole."""
        return contextlib.nullcontext()

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        norm = super()._clip_grad_norm(model)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        weights = gathered(dict(self.model.named_parameters()))
        if is_main_process():
            super()._save(output_dir, weights)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = self.optimizer.state_dict()
        state["state"] = {number: gathered(kept) for number, kept in state["state"].items()}
        if is_main_process():
            torch.save(state, Path(output_dir) / "optimizer.pt")
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.load_balance(Path(resume_from_checkpoint))
        files = sorted(Path(resume_from_checkpoint).glob("*.safetensors"))
        take(self.model, {name: tensor for file in files for name, tensor in load_file(file).items()})

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state, scheduler = (
            torch.load(Path(checkpoint) / name, map_location="cpu", mmap=True, weights_only=True)
            for name in ("optimizer.pt", "scheduler.pt")
        )
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for number, kept in state["state"].items():
            like = parameters[number]
            kept.update({name: sliced(value, like) for name, value in kept.items() if value.shape == like.shape})
        self.optimizer.load_state_dict(state)
        self.lr_scheduler.load_state_dict(scheduler)
