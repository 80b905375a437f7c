"""Trainers of others learn the same thing from the same blocks, so that only their speed differs."""

import os
import subprocess
from pathlib import Path

import pytest

from bench import trainers
from bench.peers.packages import ENVIRONMENT, NotInstalled
from bench.peers.trainers import CACHED, NVIDIA, OURS, PEERS, TRL, timed
from tests.tiny import random_blocks, save_tiny

BLOCKS = random_blocks(6, 12)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("models")
    return save_tiny(home / "student", seed=1, intermediate_size=28), save_tiny(home / "teacher", seed=2)


def test_stored_states_teach_the_same(folders: tuple[Path, Path]) -> None:
    live, stored = (timed(name, *folders, BLOCKS, 2, 2) for name in (OURS, CACHED))
    assert live["loss"] == pytest.approx(stored["loss"], rel=1e-5)
    assert len(live["steps"]) == 2
    assert len(live["loss"]) == 3


@pytest.mark.skipif(not (ENVIRONMENT / "trl").is_dir(), reason="the peers' packages are not here: make bench-peers")
@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-3), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_s_loss_of_all_blocks_is_ours(folders: tuple[Path, Path], name: str, dtype: str, near: float) -> None:
    """Each shuffles in its own way, so the first batch holds all blocks."""
    ours, theirs = (timed(each, *folders, BLOCKS, len(BLOCKS), 1, dtype) for each in (OURS, name))
    assert theirs["loss"][0] == pytest.approx(ours["loss"][0], rel=near)


def test_without_the_environment_the_row_says_so(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bench.peers.trainers.ENVIRONMENT", tmp_path / "nothing")
    with pytest.raises(NotInstalled, match="make bench-peers"):
        timed(TRL, *folders, BLOCKS, 2, 1)


def test_a_trainer_that_cannot_run_says_why(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        timed(OURS, tmp_path / os.sep / "nowhere", folders[1], BLOCKS, 2, 1)
    assert "nowhere" in caught.value.stderr.strip().splitlines()[-1]


def test_speed_is_compared_round_by_round() -> None:
    def found(*seconds: float) -> list[dict[str, object]]:
        return [{"steps": [{"cpu_s": each, "wall_s": 9.0}]} for each in seconds]

    assert trainers.faster(found(1, 2, 5), found(2, 6, 5)) == 2
    assert trainers.row(NVIDIA, [], "cannot run: because")["note"] == "cannot run: because"
