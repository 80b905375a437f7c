"""Which device does the work, and in which number format it computes best."""

import os
import re

import torch

from core.errors import UserError


def pick(device: str = "auto") -> torch.device:
    """Turn ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:N`` into a device that is really there.

    Raises:
        UserError: the name is none of these, or this machine has no such device.
    """
    if device == "auto" and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))  # one process a device, as launchers start them
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise UserError(f"The device {device!r} is not known. Take auto, cpu, mps, cuda or cuda:N.")
    found = torch.device(device)
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("This machine has no Apple GPU that torch can use (mps). Take cpu or auto.")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(f"The device {device} is not there: torch sees {torch.cuda.device_count()} CUDA devices. Take cpu or auto.")
    return found


def default_dtype(device: torch.device) -> torch.dtype:
    """The format to compute in: bfloat16 on a CUDA device made for it, else float32."""
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32


PEAK_FLOPS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "RTX 4090": 165e12,
}  # fmt: skip
"""Part of a CUDA device's name -> its makers' bfloat16 operations a second, dense, accumulated in float32. The first that fits counts."""


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """The most operations a second that a device can do in ``dtype``; None where nobody knows."""
    if device.type != "cuda" or dtype != torch.bfloat16:
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)
