"""Several processes on one run folder, as a launcher starts them: they make what one makes, and any number of them goes on."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from core.runs.folder import Run, create
from core.specs import RunSpec
from core.workspace import ROOT
from tests.whole.conftest import World
from tests.whole.test_runs import weights


def launch(run: Run, processes: int, log: Path) -> "subprocess.Popen[bytes]":
    """Start a run folder in several processes, or in one without a launcher."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "core", "run", str(run.path)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log.open("ab"), stderr=subprocess.STDOUT)


def finish(run: Run, processes: int, log: Path) -> Run:
    code = launch(run, processes, log).wait(timeout=300)
    assert code == 0, log.read_text()[-4000:]
    assert run.status().state == "done"
    return run


def halves(spec: RunSpec, processes: int, **changes: object) -> RunSpec:
    """The same training for so many processes: what one accumulates in four passes."""
    return dataclasses.replace(spec, distill=dataclasses.replace(spec.distill, accumulation=4 // processes, **changes))


@pytest.mark.parametrize("sharding", ["none", "both"])
def test_two_processes_score_and_train_what_one_does(world: World, sharding: str) -> None:
    one = finish(create(halves(world.spec, 1)), 1, world.folder / "one.log")
    two = finish(create(halves(world.spec, 2, sharding=sharding)), 2, world.folder / "two.log")
    assert one.results()["scores"] == two.results()["scores"]
    torch.testing.assert_close(weights(two.path / "model"), weights(one.path / "model"), rtol=1e-4, atol=1e-5)
    losses = [[event["loss"] for event in run.events()[0] if event.get("phase") == "distill" and "loss" in event] for run in (one, two)]
    assert len(losses[0]) == world.spec.distill.steps
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sharding", ["none", "student"])
def test_a_killed_process_ends_the_run_with_its_cause_and_one_process_goes_on(world: World, sharding: str) -> None:
    run = create(halves(world.spec, 2, steps=300, checkpoint_every=5, evaluate_every=300, sharding=sharding))
    launcher = launch(run, 2, world.folder / "two.log")
    deadline = time.monotonic() + 200
    while not list((run.path / "checkpoints").glob("checkpoint-*")):
        assert launcher.poll() is None, (world.folder / "two.log").read_text()[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    leader = run.last_word().pid
    victim = next(child for child in psutil.Process(launcher.pid).children() if child.pid != leader)
    os.kill(victim.pid, signal.SIGKILL)
    assert launcher.wait(timeout=120) != 0
    status = run.status()
    assert status.state in ("failed", "interrupted", "stopped")
    assert status.resumable
    if status.state == "failed":
        assert "process" in status.error["hint"] or "process" in status.error["message"]
    finish(run, 1, world.folder / "one.log")
    steps = [event["done"] for event in run.events()[0] if event.get("phase") == "distill" and "loss" in event]
    assert steps[-1] == 300
    assert steps.count(300) == 1


def test_one_process_does_not_begin_what_several_were_to_share_but_makes_the_folder(world: World) -> None:
    run = create(halves(world.spec, 2, sharding="student"))
    log = world.folder / "one.log"
    assert launch(run, 1, log).wait(timeout=120) != 0
    assert "sharding: student needs several processes" in run.status().error["message"]
    assert "scores" not in run.results(), "it is refused before anything is computed"
    finish(run, 2, world.folder / "two.log")


def test_what_only_one_process_can_do_is_refused_to_several(world: World) -> None:
    run = create(dataclasses.replace(world.spec, kind="evaluate"))
    log = world.folder / "two.log"
    assert launch(run, 2, log).wait(timeout=120) != 0
    assert "without a launcher" in log.read_text()
