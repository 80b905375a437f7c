"""Several processes on one run, as ``accelerate launch`` or ``torchrun`` starts them: each takes its share.

What they hand each other are files in the workspace, so it has to be one that all of them see.
"""

import os
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist

from core.errors import UserError

PATIENCE = timedelta(hours=12)
"""How long processes wait for each other: a share of a large model takes hours, and a process that dies ends all of them at once."""


def place() -> tuple[int, int]:
    """This process's number, and how many there are."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def mine(units: int) -> range:
    """The units of this process."""
    index, processes = place()
    return range(index, units, processes)


def meet() -> None:
    """Wait until all processes are here.

    Raises:
        UserError: another process has ended, by a mistake or because it was stopped.
    """
    if place()[1] > 1:
        try:
            dist.barrier(group=_group())
        except RuntimeError as error:  # all that gloo says when a connection is lost
            raise UserError(
                "Another process of this run has ended. What was computed is kept; start all of them again to go on."
            ) from error


def tell(message: str) -> str:
    """Give every process the message of the first; a process alone just gets its own back."""
    if place()[1] == 1:
        return message
    said: list[str] = [message]
    dist.broadcast_object_list(said, src=0, group=_group())
    return said[0]


@cache
def _group() -> "dist.ProcessGroup":
    """A group for waiting only: gloo, because it needs no device."""
    if not dist.is_initialized():
        # The default group is the training's too, which on CUDA wants NCCL.
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    return dist.new_group(backend="gloo", timeout=PATIENCE)
