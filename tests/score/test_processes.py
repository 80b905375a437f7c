"""Several processes on one scoring find, bit for bit, what one finds."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from core.score.share import mine, place
from core.specs import ScoreSpec
from core.workspace import ROOT
from tests.score.stored import ALL, Watching, bits, parts_left, saved_model, scored

LESS = ScoreSpec(shards=3, ppl_blocks=2)
"""Needs no pass that ``ALL`` does not bring."""


def test_units_are_dealt_without_rest_and_without_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place() == (0, 1)
    assert list(mine(5)) == [0, 1, 2, 3, 4]
    for processes in (2, 3, 7):
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        dealt = []
        for rank in range(processes):
            monkeypatch.setenv("RANK", str(rank))
            assert place() == (rank, processes)
            dealt += mine(5)
        assert sorted(dealt) == [0, 1, 2, 3, 4]


def launch(home: Path, workspace: Path, processes: int) -> None:
    """Run this file in several processes on one workspace, as a launcher would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COPPICE_WORKSPACE": str(workspace), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen([sys.executable, __file__, str(home)], cwd=ROOT, env=os.environ | shared | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(processes)
    ]  # fmt: skip
    try:
        for process in started:
            _, told = process.communicate(timeout=120)
            assert process.returncode == 0, told[-3000:]
    finally:
        for process in started:
            process.kill()


def test_two_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved_model(tmp_path / "model")
    monkeypatch.setenv("COPPICE_WORKSPACE", str(tmp_path / "one"))
    alone = {spec: bits(scored(model, spec)) for spec in (ALL, LESS)}
    launch(tmp_path, tmp_path / "two", 2)
    monkeypatch.setenv("COPPICE_WORKSPACE", str(tmp_path / "two"))
    assert parts_left() == []
    assert {spec: bits(scored(model, spec)) for spec in (ALL, LESS)} == alone
    assert {path.name for path in tmp_path.glob("*-*")} == {"all-0", "all-1", "less-0", "less-1"}, "both come to the end"


def main(home: Path) -> None:
    """Score everything, then less, with a process that comes late each time."""
    rank = place()[0]
    for name, spec, late in (("all", ALL, 0), ("less", LESS, 1)):
        if rank == late:
            time.sleep(1)
        progress: Any = Watching()
        scored(home / "model", spec, progress)
        assert name == "less" or progress.told[-1][0] == progress.told[-1][1]
        (home / f"{name}-{rank}").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
