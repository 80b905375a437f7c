"""A checkpoint counts only if all of it is there."""

from pathlib import Path

import pytest

from core.distill.checkpoints import is_whole, newest_whole
from core.distill.trainer import distill
from core.progress import Silent
from core.specs import DistillSpec
from tests.tiny import random_blocks, save_tiny


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Two real checkpoints."""
    model = save_tiny(tmp_path / "tiny")
    distill(
        model, model, random_blocks(2, 8), DistillSpec(steps=2, checkpoint_every=1), tmp_path / "model", progress=Silent(), device="cpu"
    )
    return tmp_path / "checkpoints"


def test_whole_checkpoints_are_known_as_such_and_the_newest_wins(checkpoints: Path) -> None:
    assert all(is_whole(checkpoints / name) for name in ("checkpoint-1", "checkpoint-2"))
    assert newest_whole(checkpoints) == checkpoints / "checkpoint-2"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"])
def test_a_file_that_is_missing_cut_short_or_empty_makes_it_broken(checkpoints: Path, name: str) -> None:
    file = checkpoints / "checkpoint-2" / name
    whole = file.read_bytes()
    for rest in (whole[:-1] if name.endswith("json") else whole[:-7], whole[: len(whole) // 2], whole[:4], b""):
        file.write_bytes(rest.rstrip(b"}"))
        assert not is_whole(file.parent)
    file.write_bytes(whole)
    assert is_whole(file.parent)
    file.unlink()
    assert newest_whole(checkpoints) == checkpoints / "checkpoint-1"
    assert not file.parent.exists()


def test_a_flipped_byte_of_the_optimiser_is_noticed(checkpoints: Path) -> None:
    file = checkpoints / "checkpoint-2" / "optimizer.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert not is_whole(file.parent)


def test_without_checkpoints_there_is_none(tmp_path: Path) -> None:
    assert newest_whole(tmp_path / "nowhere") is None
