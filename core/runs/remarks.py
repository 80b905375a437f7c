"""What people say of a run: a name, a star, a note. It lies beside the run as ``remarks.json``, because a spec is never changed."""

import contextlib
from dataclasses import asdict, dataclass

from core.errors import UserError
from core.files import read_json, write_json
from core.report.tables import title_of
from core.runs.folder import Run

MOST_NAME, MOST_NOTE = 120, 4000
"""Characters of a name and of a note; what is longer is cut."""


@dataclass(frozen=True, kw_only=True)
class Remarks:
    """What was said of one run."""

    name: str = ""
    """Shown instead of the run's title; empty for that title."""
    star: bool = False
    note: str = ""


def remarks(run: Run) -> Remarks:
    """What was said of a run: nothing if there is no such file, or if it cannot be understood."""
    data = None
    with contextlib.suppress(OSError, ValueError):
        data = read_json(run.path / "remarks.json")
    if not isinstance(data, dict):
        return Remarks()
    name, note = (str(data.get(key) or "") for key in ("name", "note"))
    return Remarks(name=name, star=data.get("star") is True, note=note)


def remark(run: Run, said: Remarks) -> None:
    """Write down what is said of a run, in place of what was.

    Raises:
        RunGone: the folder is no longer there.
        UserError: it cannot be written.
    """
    run.require()
    kept = Remarks(name=" ".join(said.name.split())[:MOST_NAME], star=said.star, note=said.note.strip()[:MOST_NOTE])
    write_json(run.path / "remarks.json", asdict(kept))


def title(run: Run) -> str:
    """What a run is called: the name that it was given, else its title; its id if its spec cannot be read."""
    try:
        return remarks(run).name or title_of(run.spec)
    except UserError:
        return run.id
