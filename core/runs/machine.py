"""The machine that a run runs on: what a report says about it, and how much of it a worker may take.

Everything is read without importing torch; versions come from the packages' own metadata.
"""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "safetensors", "numpy")
"""Whose versions can change a result."""

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says how much memory a container may use (version 2, version 1)."""


def describe(device: str) -> dict[str, Any]:
    """Describe this machine for ``results.json``: cpu, cores, memory_bytes, device, platform, python, versions."""
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "memory_bytes": memory_bytes(),
        "device": device,
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(),
    }


def cpu_model() -> str:
    """Name the processor as its maker does, or as well as the system can."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        if named := [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]:
            return named[0]
    if platform.system() == "Darwin":
        asked = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            return asked.stdout.strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Count the physical cores that this process may use, which is also how many threads torch takes by itself."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def memory_bytes() -> int:
    """Return how much memory there is to use: the machine's, or the container's limit if that is lower."""
    total = int(psutil.virtual_memory().total)
    texts = [path.read_text().strip() for path in CGROUP_LIMITS if path.exists()]
    return min([total, *(int(text) for text in texts if text.isdigit())])


def versions() -> dict[str, str]:
    """Map each installed package of ``PACKAGES`` to its version."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
