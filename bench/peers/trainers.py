"""Distillation trainers of others as their own packages, and Coppice's: each learns from the same blocks in a process of its own.

``timed`` starts the process, with the peers' environment in front (``make bench-peers``); ``main`` is what it does. All of them
are ``transformers.Trainer`` underneath, so what differs is how the loss is made.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from bench.peers.packages import ENVIRONMENT, NotInstalled
from core.workspace import ROOT

OURS, CACHED, TRL, NVIDIA = "Coppice", "Coppice, teacher's states stored", "TRL, GKD at lambda 0", "NVIDIA Model Optimizer, KDTrainer"
PEERS = (TRL, NVIDIA)


def timed(
    name: str, student: Path, teacher: Path, blocks_NT: np.ndarray, batch: int, steps: int, dtype: str = "float32"
) -> dict[str, Any]:  # fmt: skip
    """``steps``: processor and clock seconds of each step but the first; ``loss``: of each, nats; ``peak_bytes``: resident.

    Raises:
        NotInstalled: it is a peer and its package is not here.
        CalledProcessError: the trainer cannot run; its ``stderr`` says why.
    """
    if name in PEERS and not ENVIRONMENT.is_dir():
        raise NotInstalled("not run: make bench-peers")
    with tempfile.TemporaryDirectory() as place:
        np.save(Path(place) / "blocks.npy", blocks_NT)
        search = os.pathsep.join([str(ENVIRONMENT), str(ROOT)])
        command = [sys.executable, "-m", "bench.peers.trainers", name, str(student), str(teacher), place, str(batch), str(steps), dtype]
        subprocess.run(command, env={**os.environ, "PYTHONPATH": search}, capture_output=True, text=True, check=True)
        return dict(json.loads((Path(place) / "found.json").read_text()))


class Clock(TrainerCallback):
    """When each step began and ended, and its loss."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.losses: list[float] = []
        self._began = 0.0, 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start both clocks."""
        self._began = time.process_time(), time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop both clocks."""
        self.steps.append({"cpu_s": time.process_time() - self._began[0], "wall_s": time.perf_counter() - self._began[1]})

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Remember the loss."""
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))


def main(name: str, student: Path, teacher: Path, place: Path, batch: int, steps: int, dtype: str) -> None:
    """Let one trainer take a step that is not timed and ``steps`` that are, computing in ``dtype`` (by autocast, if that is not float32)."""
    clock, blocks_NT = Clock(), np.load(place / "blocks.npy")
    TRAINERS[name](student, teacher, blocks_NT, batch, steps + 1, place, clock, dtype)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (place / "found.json").write_text(json.dumps({"steps": clock.steps[1:], "loss": clock.losses, "peak_bytes": peak}))


def _coppice(cached: bool) -> Callable[..., None]:
    def train(student: Path, teacher: Path, blocks_NT: np.ndarray, batch: int, steps: int, place: Path, clock: Clock, dtype: str) -> None:
        from core.distill import trainer as ours
        from core.progress import Silent
        from core.specs import DistillSpec

        class Timed(ours.DistillTrainer):
            def __init__(self, **settings: Any) -> None:
                super().__init__(**settings)
                self.add_callback(clock)

        ours.DistillTrainer = Timed  # type: ignore[misc]
        os.environ["COPPICE_WORKSPACE"] = str(place / "workspace")
        if cached:
            _fill_cache(teacher, blocks_NT, dtype)
        spec = DistillSpec(
            steps=steps,
            batch_blocks=batch,
            evaluate_every=1000,
            checkpoint_every=1000,
            teacher_cache="float32" if cached else "off",
            dtype=dtype,
        )
        ours.distill(student, teacher, blocks_NT, spec, place / "model", progress=Silent(), device="cpu")

    return train


def _fill_cache(teacher: Path, blocks_NT: np.ndarray, dtype: str) -> None:
    """Store the teacher's states of all blocks, so that what is timed is a later epoch."""
    from core.distill.teacher import load_teacher
    from core.progress import Silent

    every = np.arange(len(blocks_NT))
    asked = load_teacher(teacher, torch.device("cpu"), "float32", blocks_NT, every, dtype, Silent())
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        for block in every:
            asked.states(torch.from_numpy(blocks_NT[block : block + 1].astype(np.int64)), torch.tensor([block]))


def _settings(batch: int, steps: int, place: Path, dtype: str) -> dict[str, Any]:
    """What the two others are told, as Coppice tells its own trainer."""
    return {
        "output_dir": str(place / "out"), "per_device_train_batch_size": batch, "max_steps": steps, "learning_rate": 4e-4, "adam_beta2": 0.95,
        "use_cpu": True, "bf16": dtype == "bfloat16", "logging_steps": 1, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
        "remove_unused_columns": False, "gradient_checkpointing": False, "dataloader_pin_memory": False,
    }  # fmt: skip


def _rows(blocks_NT: np.ndarray) -> list[dict[str, Any]]:
    """Every token of a packed block counts."""
    return [{"input_ids": row, "labels": row, "attention_mask": [1] * len(row)} for row in blocks_NT.astype(np.int64).tolist()]


def _models(student: Path, teacher: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    return tuple(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (student, teacher))  # type: ignore[return-value]


def _trl(student: Path, teacher: Path, blocks_NT: np.ndarray, batch: int, steps: int, place: Path, clock: Clock, dtype: str) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer, default_data_collator
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    learner, taught = _models(student, teacher)
    # lmbda 0 learns from the data alone, beta 0 is forward KL; temperature is never applied to the logits by 1.16.0.
    settings = GKDConfig(
        **_settings(batch, steps, place, dtype), lmbda=0.0, beta=0.0, temperature=1.0, dataset_kwargs={"skip_prepare_dataset": True}
    )
    trainer = GKDTrainer(
        model=learner, teacher_model=taught, args=settings, data_collator=default_data_collator,
        train_dataset=Dataset.from_list(_rows(blocks_NT)), processing_class=AutoTokenizer.from_pretrained(teacher), callbacks=[clock],
    )  # fmt: skip
    trainer.train()


def _nvidia(student: Path, teacher: Path, blocks_NT: np.ndarray, batch: int, steps: int, place: Path, clock: Clock, dtype: str) -> None:
    from datasets import Dataset
    from modelopt.torch.distill.plugins.huggingface import KDTrainer
    from transformers import TrainingArguments, default_data_collator

    learner, taught = _models(student, teacher)
    trainer = KDTrainer(
        model=learner, args=TrainingArguments(**_settings(batch, steps, place, dtype)), data_collator=default_data_collator,
        train_dataset=Dataset.from_list(_rows(blocks_NT)), callbacks=[clock], distill_args={"teacher_model": taught},
    )  # fmt: skip
    trainer.train()


TRAINERS: dict[str, Callable[..., None]] = {OURS: _coppice(False), CACHED: _coppice(True), TRL: _trl, NVIDIA: _nvidia}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]), sys.argv[7])
