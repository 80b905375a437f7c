"""A small world for whole runs: a tiny model with a tokenizer, and two texts."""

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.model.embedded import MODEL_NAME
from core.specs import DataSpec, DistillSpec, EvalSpec, RunSpec, ScoreSpec, Targets, TextSpec
from tests.tiny import save_tiny


@dataclass(frozen=True)
class World:
    """Where everything is, and a spec that uses it."""

    folder: Path
    spec: RunSpec


def write_text(path: Path, documents: int, seed: int) -> Path:
    """Documents of random words, which have no paragraph in common with those of another seed."""
    chance = random.Random(seed)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 8))) for _ in range(200)]
    paragraphs = [" ".join(chance.choices(words, k=120)) for _ in range(documents * 12)]
    path.write_text("\n\n".join(paragraphs))
    return path


@pytest.fixture
def world(tmp_path: Path, workspace: Path) -> World:
    """A tiny model, two texts, and a distillation run of a few seconds over them."""
    model = save_tiny(tmp_path / "model", num_hidden_layers=3, tie_word_embeddings=True, max_position_embeddings=512)
    here, elsewhere = (
        TextSpec(source=str(write_text(tmp_path / name, 40, seed))) for seed, name in enumerate(("here.txt", "elsewhere.txt"))
    )
    spec = RunSpec(
        kind="distill", model=str(model), device="cpu", score=ScoreSpec(ppl_blocks=1), targets=Targets(intermediate_size=13, num_hidden_layers=2),
        data=DataSpec(text=here, elsewhere=(elsewhere,), seq_len=32, calibration_blocks=4, train_blocks=8, heldout_blocks=3),
        distill=DistillSpec(steps=8, checkpoint_every=2, evaluate_every=4, learning_rate=3e-3),
        evaluate=EvalSpec(prompts=("the cat",), max_new_tokens=4),
    )  # fmt: skip
    return World(tmp_path, spec)


@pytest.fixture
def borrowed(embedded_workspace: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of the test's own that borrows the embedded model and texts from the user's."""
    (workspace / "models").mkdir(exist_ok=True)
    (workspace / "models" / MODEL_NAME).symlink_to(embedded_workspace / "models" / MODEL_NAME)
    shutil.copytree(embedded_workspace / "texts", workspace / "texts", dirs_exist_ok=True)
    monkeypatch.setenv("COPPICE_WORKSPACE", str(workspace))
    return workspace
