"""The runs of the workspace, each spec read once."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from core.errors import UserError
from core.runs.folder import Run, RunGone, all_runs
from core.runs.status import Status
from core.specs import RunSpec
from core.workspace import room

BEING_MADE_SECONDS = 10
"""How long a run's folder may be without its spec."""


@dataclass(frozen=True)
class KnownRun:
    """A run as it stood at one look."""

    run: Run
    spec: RunSpec
    status: Status


def known_runs() -> list[KnownRun]:
    """All runs newest first, each looked at once; those that were just deleted or cannot be understood are passed over."""
    found = []
    for run in all_runs():
        with contextlib.suppress(UserError):
            known = _run(str(run.path))
            found.append(KnownRun(known, known.spec, known.status()))
    return found


def broken_runs() -> list[tuple[Path, str]]:
    """Folders among the runs that cannot be read as one, with the reason. A run that is just being made is none of them."""
    found, now = [], time.time()
    for path in sorted(room("runs").iterdir()):
        if not path.name.startswith(".") and path.is_dir():
            try:
                Run(path).require()
                _ = Run(path).spec
            except RunGone:
                with contextlib.suppress(FileNotFoundError):
                    if now - path.stat().st_mtime > BEING_MADE_SECONDS:
                        found.append((path, "It has no spec.json, so what was run is not known."))
            except UserError as error:
                found.append((path, str(error)))
    return found


@st.cache_resource(max_entries=512)
def _run(path: str) -> Run:
    """A run whose spec, which never changes, is read once."""
    return Run(Path(path))
