"""What the benchmark of distillation times and compares is what it says; its numbers are judged elsewhere."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import step
from bench.learning import RANDOM, TAUGHT, UNTAUGHT, learn, margins
from bench.step import CACHED, OURS, PLAIN, steps
from core.distill import loop, teacher
from core.specs import DistillSpec
from tests.tiny import random_blocks, save_tiny

BLOCKS = random_blocks(4, 12)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("models")
    return save_tiny(home / "student", seed=1, intermediate_size=28), save_tiny(home / "teacher", seed=2)


def test_the_timed_steps_ask_the_teacher_as_often_as_they_say(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COPPICE_WORKSPACE", str(tmp_path))
    asked: list[int] = []
    original = teacher.Teacher._ask
    monkeypatch.setattr(teacher.Teacher, "_ask", lambda self, tokens: (asked.append(1), original(self, tokens))[1])
    actions = steps(*folders, BLOCKS)
    for name, times in ((PLAIN, 1), (OURS, 1), (CACHED, 0)):
        asked.clear()
        actions[name]()
        assert len(asked) == times, name


def test_trainings_are_compared_at_equal_steps_on_the_same_text(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float, list[int]]] = []
    original = loop.DistillTrainer.__init__

    def noting(self: Any, **settings: Any) -> None:
        seen.append((settings["spec"].kl_weight, settings["spec"].ce_weight, settings["train_dataset"].order.tolist()))
        original(self, **settings)

    monkeypatch.setattr(loop.DistillTrainer, "__init__", noting)
    blocks: Any = SimpleNamespace(train_NT=BLOCKS, heldout={"home": random_blocks(2, 12, seed=9)})
    rows = learn(*folders, blocks, DistillSpec(steps=2, learning_rate=1e-3), seeds=2)
    assert [(row["training"], row["seed"]) for row in rows] == [(TAUGHT, 0), (UNTAUGHT, 0), (RANDOM, 0), (TAUGHT, 1), (UNTAUGHT, 1)]
    assert [weights[:2] for weights in seen] == [(1, 0), (0, 1), (1, 0), (1, 0), (0, 1)]
    assert seen[0][2] == seen[1][2] == seen[2][2] != seen[3][2]
    assert len(margins(rows, UNTAUGHT, "home")) == 2
    assert margins(rows, RANDOM, "home") == [rows[2]["loss, nats"] - rows[0]["loss, nats"]]


def test_the_memory_that_is_compared_belongs_to_the_same_loss() -> None:
    torch.manual_seed(0)
    student_NV, teacher_NV = torch.randn(2, 5, 97)
    kl = (teacher_NV.softmax(-1) * (teacher_NV.log_softmax(-1) - student_NV.log_softmax(-1))).sum(-1).mean()
    torch.testing.assert_close(step._materialised(student_NV, teacher_NV), kl)
