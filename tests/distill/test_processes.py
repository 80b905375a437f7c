"""Several processes train the same model as one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from core.distill.trainer import distill
from core.model.checkpoint import load_model
from core.progress import Silent, Stopped
from core.specs import DistillSpec
from core.workspace import ROOT
from tests.tiny import random_blocks, save_tiny


class Stopping(Silent):
    """Progress that asks once to stop, after step 2."""

    asked = False

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        print("heard", done)
        if done == 2 and not self.asked:
            self.asked = True
            raise Stopped


def train(home: Path, name: str, batch_blocks: int) -> None:
    """Train on four blocks a step, with one stop and one resumption."""
    spec = DistillSpec(
        steps=3,
        learning_rate=1e-3,
        batch_blocks=batch_blocks,
        accumulation=2,
        ce_weight=0.3,
        loss="jsd",
        intermediate=("output", "attention"),
    )
    folders, out, progress = (home / "student", home / "teacher"), home / name / "model", Stopping()
    with pytest.raises(Stopped):
        distill(*folders, random_blocks(9, 12), spec, out, progress=progress, device="cpu")
    distill(*folders, random_blocks(9, 12), spec, out, progress=progress, device="cpu")


def test_two_processes_stop_together_and_end_where_one_ends(tmp_path: Path) -> None:
    save_tiny(tmp_path / "student", seed=1, intermediate_size=28, hidden_size=18)
    save_tiny(tmp_path / "teacher", seed=2)
    train(tmp_path, "one", batch_blocks=2)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    told = subprocess.run(launcher, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert told.split() == ["heard", "1", "heard", "2", "heard", "3"], "only one of the two reports"
    one, two = (dict(load_model(tmp_path / name / "model").named_parameters()) for name in ("one", "two"))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    train(Path(sys.argv[1]), "two", batch_blocks=1)
