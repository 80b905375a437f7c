"""Several processes that share the student, or the teacher too, train what one trains; and any number of them goes on."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from core.distill.checkpoints import all_checkpoints
from core.distill.processes import is_main_process
from core.distill.sharding import shard, shard_body
from core.distill.trainer import distill
from core.errors import UserError
from core.model.checkpoint import load_model
from core.progress import Silent, Stopped
from core.specs import DistillSpec
from core.workspace import ROOT
from tests.tiny import random_blocks, save_tiny

SPEC = DistillSpec(
    steps=4, learning_rate=1e-2, accumulation=2, checkpoint_every=2, evaluate_every=2, max_grad_norm=0.5, ce_weight=0.3, weight_decay=0.1
)
CASES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "student": {"sharding": "student", "intermediate": ("output", "attention"), "gradient_checkpointing": True},
    "both": {
        "sharding": "both",
        "intermediate": ("output", "embedding"),
        "correction_steps": 2,
        "correction_rate": 1e-3,
        "keep_best": True,
    },
    "stored": {"sharding": "student", "teacher_cache": "float32"},
}
TIED = ("both",)
"""Cases whose models use one matrix as embedding and head."""


class Recorder(Silent):
    """Progress that remembers every step in a file, and asks to stop after ``stop_after``."""

    def __init__(self, path: Path, stop_after: int | None = None) -> None:
        self.path, self.stop_after = path, stop_after

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"phase": phase, "done": done, **metrics}) + "\n")
        if phase == "distill" and done == self.stop_after:
            raise Stopped


@torch.no_grad()
def measure(model: nn.Module) -> dict[str, Any]:
    tokens_BT = torch.arange(3, 15).unsqueeze(0)
    return {"text": {"loss": float(model(input_ids=tokens_BT, labels=tokens_BT).loss)}}


def train(home: Path, case: str, processes: int, name: str = "", stop_after: int | None = None) -> Path:
    """Train on four blocks a step if there are one or two processes; into a folder that is named after case and processes."""
    spec = dataclasses.replace(SPEC, batch_blocks=2 // processes or 1, **CASES[case])
    if processes == 1:
        spec = dataclasses.replace(spec, sharding="none")
    return go_on(home, case, spec, name or f"{case}-{processes}", stop_after)


def go_on(home: Path, case: str, spec: DistillSpec, name: str, stop_after: int | None = None) -> Path:
    folder = home / name
    folder.mkdir(exist_ok=True)
    pair = [home / f"{role}{'-tied' if case in TIED else ''}" for role in ("student", "teacher")]
    progress = Recorder(folder / "steps.jsonl", stop_after)
    return distill(*pair, random_blocks(9, 12), spec, folder / "model", progress=progress, measure=measure, device="cpu")


def steps(folder: Path) -> list[dict[str, Any]]:
    """The optimiser steps, without word of what was waited for."""
    return [step for step in map(json.loads, (folder / "steps.jsonl").read_text().splitlines()) if "loss" in step]


def launch(home: Path, processes: int, *jobs: str) -> None:
    """Carry out jobs, ``case:name:stop_after``, in so many processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", __file__, str(home), *jobs]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, each case trained by two processes with a stop on the way, and two trainings that were only stopped."""
    home = tmp_path_factory.mktemp("sharding")
    os.environ["COPPICE_WORKSPACE"] = str(home / "workspace")
    for suffix, tied in (("", False), ("-tied", True)):
        save_tiny(home / f"student{suffix}", seed=1, intermediate_size=28, hidden_size=18, tie_word_embeddings=tied)
        save_tiny(home / f"teacher{suffix}", seed=2, tie_word_embeddings=tied)
    jobs = [job for case in CASES for job in (f"{case}:{case}-2:2", f"{case}:{case}-2:0")]
    launch(home, 2, "share:slices:0", *jobs, *(f"{case}:{case}-{there}:2" for case in ("ddp", "stored") for there in ("on-1", "on-3")))
    return home


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_learns(trained: Path, case: str) -> None:
    one = train(trained, case, 1)
    two = trained / f"{case}-2" / "model"
    expected, found = steps(one.parent), steps(two.parent)
    assert [(step["phase"], step["done"]) for step in found] == [(step["phase"], step["done"]) for step in expected], "only one reports"
    for key in ("loss", "grad_norm"):
        assert [step[key] for step in found] == pytest.approx([step[key] for step in expected], rel=1e-4)
    looks = [[step["heldout"]["text"]["loss"] for step in all_steps if "heldout" in step] for all_steps in (found, expected)]
    assert len(looks[1]) == 2
    assert looks[0] == pytest.approx(looks[1], rel=1e-4)
    expected, found = (dict(load_model(folder).named_parameters()) for folder in (one, two))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_sharded_training_writes_what_anybody_can_load(trained: Path) -> None:
    """The checkpoints too: whole weights, and the moments of every one of them."""
    for case in ("student", "both"):
        folder = trained / f"{case}-2"
        assert json.loads((folder / "model" / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
        newest = all_checkpoints(folder / "checkpoints")[-1]
        kept = torch.load(newest / "optimizer.pt", weights_only=True)["state"].values()
        counted = sum(parameter.numel() for parameter in load_model(folder / "model").parameters())
        projection = 18 * 24
        assert sum(state["exp_avg_sq"].numel() for state in kept) == counted + projection


@pytest.mark.parametrize("processes", [1, 3])
def test_another_number_of_processes_goes_on(trained: Path, processes: int) -> None:
    """From a sharded training's checkpoint exactly as from one that was not sharded."""
    if processes == 1:
        spec = dataclasses.replace(SPEC, batch_blocks=1)
        go_on(trained, "ddp", spec, "ddp-on-1")
        go_on(trained, "stored", dataclasses.replace(spec, **CASES["stored"]), "stored-on-1")
    else:
        launch(trained, processes, "ddp:ddp-on-3:0", "stored:stored-on-3:0")
    plain, sharded = (steps(trained / f"{case}-on-{processes}") for case in ("ddp", "stored"))
    assert [step["done"] for step in sharded] == [1, 2, 3, 4]
    assert [step["loss"] for step in sharded] == pytest.approx([step["loss"] for step in plain], rel=1e-4)


def test_each_of_two_processes_holds_half(trained: Path) -> None:
    """The student whole by halves; of the teacher all but its head."""
    model = load_model(trained / "teacher")
    all_of_it, head = (sum(parameter.numel() for parameter in part.parameters()) for part in (model, model.lm_head))
    held = json.loads((trained / "slices.json").read_text())
    assert all_of_it / 2 <= held["student"] < 0.55 * all_of_it
    assert (all_of_it - head) / 2 + head <= held["teacher"] < 0.55 * (all_of_it - head) + head


def test_one_process_alone_is_not_asked_to_shard(trained: Path) -> None:
    with pytest.raises(UserError, match=r"sharding: student needs several processes.*accelerate launch"):
        go_on(trained, "ddp", dataclasses.replace(SPEC, sharding="student"), "alone")


def test_a_sharded_teacher_does_not_remember() -> None:
    found = dataclasses.replace(SPEC, sharding="both", teacher_cache="float32").problems()
    assert len(found) == 1
    assert found[0].startswith("sharding: both")
    assert dataclasses.replace(SPEC, sharding="teacher").problems() == ["sharding: must be one of none, student, both; got 'teacher'."]


def share(home: Path) -> None:
    """Note how many numbers the first process holds of two sharded models."""
    held, device = {}, torch.device("cpu")
    torch.distributed.init_process_group("gloo")
    for role, function in (("student", shard), ("teacher", shard_body)):
        model = load_model(home / "teacher")
        function(model, device)
        held[role] = sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in model.parameters())
    if is_main_process():
        (home / "slices.json").write_text(json.dumps(held))


if __name__ == "__main__":
    for job in sys.argv[2:]:
        case, name, stop_after = job.split(":")
        if case == "share":
            share(Path(sys.argv[1]))
            continue
        try:
            spec = dataclasses.replace(SPEC, batch_blocks=1, **CASES[case])
            go_on(Path(sys.argv[1]), case, spec, name, int(stop_after) or None)
        except Stopped:
            pass
