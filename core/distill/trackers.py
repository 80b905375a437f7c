"""Trackers that can follow a training, and whether they are installed. Needs no torch: forms ask it too."""

from collections.abc import Iterable
from importlib.util import find_spec

PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",), "trackio": ("trackio",)}
"""Tracker -> the packages of which one must be there."""


def tracker_problems(trackers: Iterable[str]) -> list[str]:
    """What keeps trackers of ``core.specs.TRACKERS`` from being reported to: a sentence for each whose package is missing."""
    return [
        f"report_to: {name} cannot be reported to, its package is not installed. Install it (pip install {PACKAGES[name][0]}), or leave it out."
        for name in trackers
        if not any(map(find_spec, PACKAGES[name]))
    ]
