"""What the benchmark of distillation times and compares is what it says; its numbers are judged elsewhere."""

import dataclasses
import json
import random
from pathlib import Path

import pytest
import torch

from bench import learning, regrowth, step
from bench.learning import RANDOM, TAUGHT, UNTAUGHT
from bench.regrowth import Start, Training
from bench.step import CACHED, OURS, PLAIN, steps
from core.distill import teacher
from core.model.checkpoint import load_model
from core.specs import DataSpec, DistillSpec, Targets, TextSpec
from core.workspace import room
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


def test_trainings_are_compared_at_equal_steps_on_the_same_text_from_the_same_start() -> None:
    spec = DistillSpec(steps=2, learning_rate=1e-3)
    made = learning.trainings(spec, seeds=2)
    assert list(made) == [(TAUGHT, 0), (UNTAUGHT, 0), (RANDOM, 0), (TAUGHT, 1), (UNTAUGHT, 1)]
    for (name, seed), training in made.items():
        weights = (0.0, 1.0) if name == UNTAUGHT else (1.0, 0.0)
        assert (training.spec.kl_weight, training.spec.ce_weight) == weights
        assert dataclasses.replace(training.spec, kl_weight=1.0, ce_weight=0.0, seed=0) == spec
        assert (training.spec.seed, training.start.at_random, training.start.targets) == (seed, name == RANDOM, regrowth.WIDTH)


def test_a_margin_is_the_loss_of_the_other_less_that_of_the_taught_seed_by_seed() -> None:
    losses = {(TAUGHT, 0): {"home": 3.0}, (UNTAUGHT, 0): {"home": 3.5}, (RANDOM, 0): {"home": 7.0}, (TAUGHT, 1): {"home": 2.0},
              (UNTAUGHT, 1): {"home": 1.0}}  # fmt: skip
    assert learning.margins(losses, UNTAUGHT, "home") == [0.5, -1.0]
    assert learning.margins(losses, RANDOM, "home") == [4.0]


@pytest.fixture
def lab(folders: tuple[Path, Path], tmp_path: Path, workspace: Path) -> regrowth.Lab:
    """A tiny teacher and a text of its own."""
    letters = random.Random(0).choices("abcdefghij", k=4000)
    rows = [json.dumps({"text": "".join(letters[i : i + 100])}) for i in range(0, 4000, 100)]
    (tmp_path / "text.jsonl").write_text("\n".join(rows))
    text = TextSpec(source=str(tmp_path / "text.jsonl"))
    return regrowth.Lab(
        DataSpec(text=text, elsewhere=(), seq_len=12, calibration_blocks=4, train_blocks=8, heldout_blocks=2), str(folders[1])
    )


SMALL = Start(targets=Targets(intermediate_size=28))


def test_a_training_is_measured_once_and_its_weights_are_not_kept(lab: regrowth.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(start=SMALL, spec=dataclasses.replace(regrowth.SHORT, steps=3, learning_rate=1e-2))
    found = lab.figures(training)
    assert all(values["kl_nats"] > 0 for values in found["heldout"].values())
    monkeypatch.setattr(regrowth, "distill", None)
    assert lab.figures(training) == found
    assert lab.losses(training) != lab.losses(SMALL) != lab.whole()
    folders = {path.name for path in (room("bench")).iterdir() if path.is_dir()}
    assert folders == {f"{lab._name(start)}-model" for start in (SMALL, Start(targets=Targets()))}


def test_whoever_is_cut_from_a_trained_model_has_its_weights(lab: regrowth.Lab) -> None:
    once = Training(start=SMALL, spec=dataclasses.replace(regrowth.SHORT, steps=2, learning_rate=1e-2))
    model, before = load_model(lab.model(Start(targets=Targets(num_hidden_layers=4), of=once))), load_model(lab.model(once))
    assert (model.config.num_hidden_layers, model.config.intermediate_size) == (4, 28)
    assert torch.equal(model.get_output_embeddings().weight, before.get_output_embeddings().weight)


def test_a_random_start_has_the_shape_and_none_of_the_weights(lab: regrowth.Lab) -> None:
    cut, random_ = (load_model(lab.model(dataclasses.replace(SMALL, at_random=chance))) for chance in (False, True))
    shapes = [{name: weight.shape for name, weight in model.named_parameters()} for model in (cut, random_)]
    assert shapes[0] == shapes[1]
    assert not torch.allclose(cut.model.embed_tokens.weight, random_.model.embed_tokens.weight)


def test_the_memory_that_is_compared_belongs_to_the_same_loss() -> None:
    torch.manual_seed(0)
    student_NV, teacher_NV = torch.randn(2, 5, 97)
    kl = (teacher_NV.softmax(-1) * (teacher_NV.log_softmax(-1) - student_NV.log_softmax(-1))).sum(-1).mean()
    torch.testing.assert_close(step._materialised(student_NV, teacher_NV), kl)
