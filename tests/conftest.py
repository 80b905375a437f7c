"""What all tests share: a workspace of their own, and no hub."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REAL_WORKSPACE = os.environ.get("COPPICE_WORKSPACE", "")


@pytest.fixture(autouse=True)
def workspace(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace that only this test sees."""
    path = tmp_path_factory.mktemp("workspace")
    monkeypatch.setenv("COPPICE_WORKSPACE", str(path))
    return path


@pytest.fixture
def embedded_workspace(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own workspace, with the embedded model and texts in it; fetched if they are not there yet."""
    from core.model.embedded import ensure_model, ensure_text
    from core.specs import EMBEDDED_TEXTS
    from core.workspace import home

    monkeypatch.setenv("COPPICE_WORKSPACE", REAL_WORKSPACE)
    ensure_model()
    for name in EMBEDDED_TEXTS:
        ensure_text(name)
    return home()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs are minutes of work, so the fast part of the tests leaves them out."""
    for item in items:
        if "whole" in item.path.parent.parts[-1:]:
            item.add_marker("whole")
