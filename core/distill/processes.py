"""The other processes of a training, if a launcher started several."""

import torch


def is_main_process() -> bool:
    """Whether this is the only process of the training, or the one of them that writes and reports."""
    return not _distributed() or torch.distributed.get_rank() == 0


def wait_for_all() -> None:
    """Wait until every process of a distributed training is here."""
    if _distributed():
        torch.distributed.barrier()


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is set in any process of a distributed training."""
    if not _distributed():
        return flag
    flags = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
    return bool(flags.item())


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
