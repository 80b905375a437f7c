"""A run is a folder: ``workspace/runs/<id>/``, which any number of pages and commands read and one worker writes.

``spec.json`` what was asked for, never changed · ``status.json`` the worker's last word, replaced whole · ``events.jsonl``
· ``out.log`` · ``lock`` held by the worker for life, so that running means locked · ``cancel`` the wish to stop ·
``launched`` when a worker was last started · ``saving`` there while a file is written that must not be torn. The steps add
plan, pruned/, checkpoints/, model/, results.json, generations.json and report.html.
"""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock

from core.errors import UserError
from core.files import HASH_TAG, read_json, write_json, writing_to
from core.runs.events import Event, read_events
from core.runs.failures import explain_silence
from core.runs.status import Status
from core.specs import RunSpec
from core.workspace import room

STARTUP_SECONDS = 10.0
"""How long a run that was just launched may be without a lock before it counts as interrupted."""


SECONDS_IN_ID = len("20250131-235959")
"""How much of an id is its time. Runs of the same second are told apart by the age of spec.json."""


def member_id(family: str, number: int) -> str:
    """Name of the run that makes a family's member, from 1."""
    return f"{family}-member{number}"


class RunGone(UserError):
    """The run's folder was deleted, perhaps by another tab, while somebody looked at it."""


@dataclass(frozen=True)
class Run:
    """One run folder. Holds no state but its path, so two of the same path are equal."""

    path: Path

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @cached_property
    def spec(self) -> RunSpec:
        """What was asked for.

        Raises:
            RunGone: the folder is no longer there.
            UserError: spec.json cannot be understood.
        """
        try:
            data = read_json(self.path / "spec.json")
        except FileNotFoundError as error:
            raise self._gone() from error
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise UserError(f"{self.path / 'spec.json'} does not hold a spec, which is a JSON object. Start the run anew.")
        return RunSpec.from_dict({"repair": {"method": "none"}} | data)  # what runs did before there was repair

    def status(self) -> Status:
        """Return how the run stands: the worker's last word, put right where the lock contradicts it.

        Raises:
            RunGone: the folder is no longer there.
        """
        said = self.last_word()
        if said.live and not self.held():
            # Read again: the worker may have finished, or begun, between the first look at the file and that at the lock.
            said = self.last_word()
            if said.live and not self.held():
                return self._without_worker(said)
        return dataclasses.replace(said, state="stopping") if said.live and self.cancel_request() else said

    def last_word(self) -> Status:
        """Return status.json as it was written, true or not.

        Raises:
            RunGone: the folder is no longer there.
        """
        data = self._read("status.json")
        known = {field.name for field in dataclasses.fields(Status)}
        return Status(**{name: value for name, value in data.items() if name in known})

    def write_status(self, status: Status) -> None:
        """Replace status.json. Only for who holds the lock.

        Raises:
            RunGone: the folder is no longer there.
            UserError: the disk is full.
        """
        self.require()
        write_json(self.path / "status.json", dataclasses.asdict(status))

    def events(self, offset: int = 0) -> tuple[list[Event], int]:
        """Return the events from byte ``offset`` on, and the offset for the next call; see ``read_events``."""
        return read_events(self.path / "events.jsonl", offset)

    def log_tail(self, n_bytes: int = 8192) -> str:
        """Return the last ``n_bytes`` of what the worker printed, from the start of a line."""
        try:
            with (self.path / "out.log").open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - n_bytes))
                data = file.read()
        except FileNotFoundError:
            return ""
        return (data if size <= n_bytes else data[data.find(b"\n") + 1 :]).decode(errors="replace")

    def write_log(self, text: str) -> None:
        """Append to out.log, where the worker's own output goes too."""
        with writing_to(self.path), (self.path / "out.log").open("a", encoding="utf-8") as file:
            file.write(text.rstrip("\n") + "\n")

    def results(self) -> dict[str, Any]:
        """Return results.json, or nothing while there is none."""
        return self._read("results.json")

    def generations(self) -> dict[str, Any]:
        """Return generations.json, or nothing while there is none."""
        return self._read("generations.json")

    def cancel_request(self) -> dict[str, Any] | None:
        """Return the wish to stop: ``keep`` (or discard what was made) and ``time``; None if nobody has it."""
        try:
            since = (self.path / "cancel").stat().st_mtime
        except FileNotFoundError:
            return None
        return {"keep": True, "time": since} | self._read("cancel")

    def held(self) -> bool:
        """Say whether a worker holds the lock. Takes it for an instant, which workers are patient with."""
        try:
            with self.hold():
                return False
        except filelock.Timeout:
            return True
        except RunGone:
            return False

    @contextlib.contextmanager
    def hold(self, patience: float = 0.0) -> Iterator[None]:
        """Hold the run's lock, waiting up to ``patience`` seconds for it.

        Raises:
            filelock.Timeout: another holds it.
            RunGone: the folder is no longer there.
        """
        self.require()
        lock = filelock.FileLock(self.path / "lock")
        try:
            with writing_to(self.path):
                lock.acquire(timeout=patience)
        except FileNotFoundError as error:
            raise self._gone() from error
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Mark the block as writing what must not be torn: a stop that is overdue waits longer before it uses force."""
        mark = self.path / "saving"
        mark.touch()
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)

    def is_saving(self) -> bool:
        """Say whether a block of ``saving`` is under way."""
        return (self.path / "saving").exists()

    def discard_weights(self) -> None:
        """Remove the checkpoints and the finished model; spec, events and plan stay."""
        for name in ("checkpoints", "teacher-checkpoints", "teacher", "model"):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def require(self) -> None:
        """Do nothing if the run is there.

        Raises:
            RunGone: its folder is no longer there.
        """
        if not (self.path / "spec.json").exists():
            raise self._gone()

    def _gone(self) -> RunGone:
        return RunGone(f"Run {self.id} is no longer at {self.path}: it was deleted or moved. Choose another run.")

    def _read(self, name: str) -> dict[str, Any]:
        """Read one of the run's JSON files; empty if it is absent or holds no JSON object."""
        try:
            data = read_json(self.path / name)
        except FileNotFoundError:
            self.require()
            return {}
        except ValueError:
            return {}
        return data if isinstance(data, dict) else {}

    def _without_worker(self, said: Status) -> Status:
        """Conclude what became of a run in a live state whose lock is free."""
        request = self.cancel_request()
        if said.state == "queued" and time.time() - self._launched(said) < STARTUP_SECONDS:
            return dataclasses.replace(said, state="stopping") if request else said
        if request:
            return dataclasses.replace(said, state="stopped" if request["keep"] else "cancelled", finished=said.updated)
        try:
            error = explain_silence(self.path, said.phase, said.memory_bytes)
        except FileNotFoundError as missing:
            raise self._gone() from missing
        return dataclasses.replace(said, state="interrupted", error=error, finished=said.updated)

    def _launched(self, said: Status) -> float:
        """Return when a worker was last started, or else when the run was made."""
        with contextlib.suppress(FileNotFoundError):
            return (self.path / "launched").stat().st_mtime
        return said.created


def create(spec: RunSpec, stem: str = "") -> Run:
    """Make the folder of a new run, ready to be launched.

    Args:
        stem: what its id begins with; by default the time, the kind, and a hash of the spec.

    Raises:
        UserError: the spec has problems (all of them are listed), or the workspace cannot be written.
    """
    spec.check()
    created = time.time()
    stem = stem or f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(created))}-{spec.kind}-{spec.identity().removeprefix(HASH_TAG)[:6]}"
    path = _new_folder(room("runs"), stem)
    write_json(path / "status.json", dataclasses.asdict(Status(created=created, device=spec.device)))
    # Last, because a folder is a run from the moment that it has a spec.
    write_json(path / "spec.json", spec.to_dict())
    return Run(path)


def _new_folder(parent: Path, stem: str) -> Path:
    number = 1
    while True:
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        with writing_to(path), contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
        number += 1


def all_runs() -> list[Run]:
    """Return every run of the workspace, newest first. Folders that are none are passed over."""
    found = []
    for path in room("runs").iterdir():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not path.name.startswith("."):
                found.append((path.name[:SECONDS_IN_ID], (path / "spec.json").stat().st_mtime_ns, path))
    return [Run(path) for *_, path in sorted(found, reverse=True)]


def find(name: str) -> Run:
    """Return the run with this id, or in this folder.

    Raises:
        UserError: there is none.
    """
    for path in (Path(name).expanduser().absolute(), room("runs") / name):
        if (path / "spec.json").exists():
            return Run(path)
    raise UserError(f"There is no run {name!r}: neither a folder with a spec.json, nor an id in {room('runs')}.")
