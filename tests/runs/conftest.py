"""Every test has a workspace of its own, and leaves no worker behind."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.runs import control


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("COPPICE_WORKSPACE", str(tmp_path))
    yield tmp_path
    for child in control._children.values():
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        child.wait()
    control._children.clear()
