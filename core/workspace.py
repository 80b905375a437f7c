"""Where Coppice keeps what it makes: one folder, ``workspace/`` beside the code unless COPPICE_WORKSPACE names another."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""


def home() -> Path:
    """The workspace folder; read anew at each call, so that a test or a user can point it elsewhere."""
    return Path(os.environ.get("COPPICE_WORKSPACE") or ROOT / "workspace").expanduser().absolute()


def room(name: str) -> Path:
    """A folder of the workspace (``models``, ``texts``, ``blocks``, ``scores``, ``runs``, ``locks``, ``uploads``), made if absent."""
    path = home() / name
    if not path.is_dir():  # looking takes a tenth of the time of trying to make it, and pages ask at every click
        path.mkdir(parents=True, exist_ok=True)
    return path
