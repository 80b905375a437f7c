"""The teacher's stored states: exactly what it would have said, made once, whatever comes in between."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.distill import teacher as teacher_module
from core.distill.cache import StateCache, cache_bytes, cache_key
from core.distill.teacher import Teacher, load_teacher
from core.errors import UserError
from core.model.head import hidden_states
from core.progress import Silent, Stopped
from tests.distill.test_trainer import BLOCKS, SPEC, Recorder, folders, run, same, weights  # noqa: F401
from tests.tiny import random_blocks, tiny_model

CACHED = dataclasses.replace(SPEC, teacher_cache="float32")


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COPPICE_WORKSPACE", str(tmp_path / "workspace"))
    return tmp_path / "workspace"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many blocks the teacher's body was asked for, a number a call."""
    calls: list[int] = []
    original = Teacher._ask

    def counting(self: Teacher, tokens_BT: torch.Tensor) -> torch.Tensor:
        calls.append(len(tokens_BT))
        return original(self, tokens_BT)

    monkeypatch.setattr(teacher_module.Teacher, "_ask", counting)
    return calls


@pytest.mark.parametrize("batch_blocks", [1, 2])
def test_a_cached_teacher_teaches_bit_for_bit_what_the_uncached_one_does(
    folders: tuple[Path, Path],  # noqa: F811
    tmp_path: Path,
    asked: list[int],
    batch_blocks: int,
) -> None:
    """Bit for bit with one block a batch; with more, products of another size may round otherwise."""
    spec = dataclasses.replace(SPEC, batch_blocks=batch_blocks, teacher_cache="off")
    plain, cached, again = (Recorder() for _ in range(3))
    expected = weights(run(folders, tmp_path / "plain", spec, plain))
    assert sum(asked) == 6 * batch_blocks
    asked.clear()
    spec = dataclasses.replace(spec, teacher_cache="float32")
    filled = weights(run(folders, tmp_path / "cached", spec, cached))
    assert sum(asked) == len(BLOCKS), "each block once, although it is seen more often"
    asked.clear()
    repeated = weights(run(folders, tmp_path / "again", spec, again))
    assert asked == []
    assert same(filled, repeated)
    if batch_blocks == 1:
        assert same(expected, filled)
        assert [step["loss"] for step in plain.steps] == [step["loss"] for step in cached.steps] == [step["loss"] for step in again.steps]
    torch.testing.assert_close(expected, filled, rtol=1e-4, atol=1e-5)


def test_half_the_size_comes_close(folders: tuple[Path, Path], tmp_path: Path, workspace: Path) -> None:  # noqa: F811
    exact, half = Recorder(), Recorder()
    run(folders, tmp_path / "exact", CACHED, exact)
    run(folders, tmp_path / "half", dataclasses.replace(SPEC, teacher_cache="bfloat16"), half)
    assert [step["loss"] for step in half.steps] == pytest.approx([step["loss"] for step in exact.steps], rel=0.02)
    assert sorted(file.stat().st_size for file in workspace.glob("teacher/*/states.bin")) == [
        cache_bytes(*BLOCKS.shape, 24, "bfloat16"),
        cache_bytes(*BLOCKS.shape, 24, "float32"),
    ]
    assert cache_bytes(*BLOCKS.shape, 24, "float32") == 5 * 12 * 24 * 4


def test_a_stopped_run_has_kept_what_it_asked_and_ends_as_if_undisturbed(
    folders: tuple[Path, Path],  # noqa: F811
    tmp_path: Path,
    asked: list[int],
) -> None:
    with pytest.raises(Stopped):
        run(folders, tmp_path / "stopped", CACHED, Recorder(stop_after=3))
    assert sum(asked) == 3
    resumed = weights(run(folders, tmp_path / "stopped", CACHED))
    assert sum(asked) == len(BLOCKS)
    assert same(resumed, weights(run(folders, tmp_path / "plain", SPEC)))


def test_another_student_teacher_text_or_format_has_a_name_of_its_own(folders: tuple[Path, Path]) -> None:  # noqa: F811
    def key(**changes: Any) -> str:
        return cache_key(**{"teacher_fingerprint": "a", "blocks_NT": BLOCKS, "number_format": "float32", "computed": "float32"} | changes)

    others = [
        key(teacher_fingerprint="b"), key(blocks_NT=BLOCKS[:4]), key(blocks_NT=BLOCKS + 1), key(blocks_NT=BLOCKS.reshape(10, 6)),
        key(number_format="bfloat16"), key(computed="bfloat16"),
    ]  # fmt: skip
    assert len({key(), *others}) == 7
    assert key() == key(blocks_NT=BLOCKS.astype(np.int64))


def test_a_disk_too_small_is_refused_before_anything_is_computed(
    folders: tuple[Path, Path],  # noqa: F811
    tmp_path: Path,
    asked: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=cache_bytes(*BLOCKS.shape, 24, "float32") - 1))
    with pytest.raises(UserError, match="Not enough disk space"):
        load_teacher(folders[1], torch.device("cpu"), "float32", BLOCKS, np.arange(5), "float32", Silent())
    few = load_teacher(folders[1], torch.device("cpu"), "float32", BLOCKS, np.array([0, 1, 1, 0]), "float32", Silent())
    assert few.model is not None
    assert asked == []


def test_a_damaged_cache_is_refused_and_not_believed(workspace: Path) -> None:
    cache = StateCache.open("key", (3, 4, 5), "float32")
    for block in (2, 0):
        cache.write(block, np.full((4, 5), block + 0.5))
    assert cache.there.tolist() == [True, False, True]
    assert (cache.read(2) == 2.5).all()
    states = workspace / "teacher" / "key" / "states.bin"
    states.write_bytes(states.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"damaged. Delete that folder"):
        StateCache.open("key", (3, 4, 5), "float32").there  # noqa: B018


def test_a_write_that_fails_leaves_the_block_unmarked(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = StateCache.open("key", (2, 4, 5), "float32")
    cache.write(0, np.ones((4, 5)))

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="is full"):
        cache.write(1, np.ones((4, 5)))
    assert cache.there.tolist() == [True, False]
    assert (cache.read(0) == 1).all()


def test_a_batch_mixes_what_is_remembered_with_what_is_new(asked: list[int]) -> None:
    model, blocks_NT = tiny_model(seed=2), random_blocks(4, 8)
    teacher = Teacher(model, StateCache.open("mixed", (4, 8, 24), "float32"), range(4))
    tokens_NT = torch.from_numpy(blocks_NT).long()
    first = teacher.states(tokens_NT[[1, 3]], torch.tensor([1, 3]))
    second = teacher.states(tokens_NT, torch.arange(4))
    assert asked == [2, 2]
    assert torch.equal(second[[1, 3]], first)
    torch.testing.assert_close(second, hidden_states(model, tokens_NT).detach())
    assert Teacher(model, teacher.cache, range(4)).model is None


def test_by_default_blocks_that_come_again_are_asked_once_and_without_the_room_each_time(
    folders: tuple[Path, Path],  # noqa: F811
    tmp_path: Path,
    asked: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bit for bit the same: what is learnt does not depend on the disk."""
    roomy, tight = Recorder(), Recorder()
    stored = weights(run(folders, tmp_path / "roomy", SPEC, roomy))
    assert sum(asked) == len(BLOCKS)
    assert any("states of 5 blocks are kept" in note for note in roomy.notes)
    asked.clear()
    monkeypatch.setattr("core.distill.trainer.ROOMY", 0.0)
    assert same(stored, weights(run(folders, tmp_path / "tight", SPEC, tight)))
    assert sum(asked) == SPEC.steps
    assert any("is asked each time" in note for note in tight.notes)
