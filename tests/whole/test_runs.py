"""Whole runs in real worker processes: the path of the main job, killed and resumed, stopped, repeated, refused."""

import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import UserError
from core.files import read_json
from core.model.checkpoint import load_model
from core.report.command import command_of
from core.report.tables import model_rows
from core.runs import control
from core.runs.folder import Run
from core.runs.status import Status
from core.score import store
from core.search import ledger
from core.specs import EvalSpec, RunSpec, ScoreSpec, SearchSpec, Targets
from core.workspace import ROOT
from tests.whole.conftest import World


def wait(run: Run, until: Any, seconds: float = 300) -> Status:
    """Wait for a state of a run."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = control.reconcile(run)
        if until(status):
            return status
        time.sleep(0.05)
    raise AssertionError(f"waited in vain: {run.status()}\n{run.log_tail()}")


def finish(run: Run, seconds: float = 300) -> Run:
    status = wait(run, lambda status: not status.live, seconds)
    assert status.state == "done", f"{status}\n{run.log_tail()}"
    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder).named_parameters())


def test_the_main_job_leaves_everything_that_the_pages_and_the_report_need(world: World) -> None:
    spec = dataclasses.replace(world.spec, output=str(world.folder / "out"))
    run = finish(control.start(spec))
    results = run.results()
    assert {"teacher", "pruned", "distilled", "recovered", "machine", "seconds", "scores"} <= set(results)
    for role, layers in (("teacher", 3), ("pruned", 2), ("distilled", 2)):
        assert set(results[role]["heldout"]) == {"here", "elsewhere"}
        folder = {"teacher": world.folder / "model", "pruned": run.path / "pruned", "distilled": run.path / "model"}[role]
        model = load_model(folder)
        assert len(model.model.layers) == layers
        assert results[role]["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    teacher, pruned, distilled = (results[role]["heldout"]["here"] for role in ("teacher", "pruned", "distilled"))
    assert teacher["kl_nats"] == pytest.approx(0, abs=1e-6)
    assert set(results["glance"]) == {"teacher", "cut", "pruned"}, "the live curve has the same ends as the final figure"
    assert set(results["cut"]["heldout"]) == {"here", "elsewhere"}, "what it was before repair is measured too"
    assert results["repair"]["blocks"] == 4 + 8, "calibration and training blocks"
    assert results["repair"]["fitted"] + results["repair"]["left"] == len(results["repair"]["places"])
    assert not (run.path / "cut").exists()
    assert distilled["kl_nats"] < pruned["kl_nats"], "training towards the teacher brings the student nearer to it"
    assert set(run.generations()["answers"]) == {"teacher", "pruned", "distilled"}
    phases = [event["phase"] for event in run.events(0)[0] if "phase" in event]
    assert list(dict.fromkeys(phases)) == ["data", "score", "plan", "prune", "repair", "measure", "distill", "evaluate", "save"]
    assert all(torch.equal(tensor, weights(run.path / "model")[name]) for name, tensor in weights(world.folder / "out").items())
    assert "## Measured" in (world.folder / "out" / "README.md").read_text()
    assert (run.path / "report.html").stat().st_size > 1_000_000, "plotly is inside, so the report opens offline"
    assert not (run.path / "checkpoints").exists()


def test_a_killed_and_resumed_run_ends_bit_for_bit_like_an_undisturbed_one(world: World) -> None:
    undisturbed = finish(control.start(world.spec))
    run = control.start(dataclasses.replace(world.spec, name="to be killed"))
    wait(run, lambda status: status.phase == "distill" and status.done >= 5)
    os.kill(read_json(run.path / "status.json")["pid"], signal.SIGKILL)
    status = wait(run, lambda status: not status.live)
    assert status.state == "interrupted"
    assert status.error is not None
    control.resume(run)
    finish(run)
    assert len([event for event in run.events(0)[0] if "segment" in event]) == 2
    ours, theirs = weights(run.path / "model"), weights(undisturbed.path / "model")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert run.results()["distilled"]["heldout"] == undisturbed.results()["distilled"]["heldout"]


def test_stop_keeps_what_was_learnt_and_resume_goes_on(world: World) -> None:
    run = control.start(dataclasses.replace(world.spec, distill=dataclasses.replace(world.spec.distill, steps=400, evaluate_every=400)))
    wait(run, lambda status: status.phase == "distill" and status.done >= 3)
    control.cancel(run, keep=True)
    status = wait(run, lambda status: not status.live)
    assert status.state == "stopped"
    saved = max(int(path.name.split("-")[1]) for path in (run.path / "checkpoints").glob("checkpoint-*"))
    assert saved >= status.done
    control.resume(run)
    wait(run, lambda status: status.phase == "distill" and status.done > saved)
    control.cancel(run, keep=False)
    assert wait(run, lambda status: not status.live).state == "cancelled"
    assert not (run.path / "checkpoints").exists()
    assert not (run.path / "model").exists()


def test_scores_are_computed_once_and_new_targets_cost_no_model_call(world: World) -> None:
    first = finish(control.start(dataclasses.replace(world.spec, kind="prune")))
    second = finish(control.start(dataclasses.replace(world.spec, kind="prune", targets=Targets(hidden_size=18))))
    assert first.results()["scores"] == second.results()["scores"]
    assert any(event.get("cached") for event in second.events(0)[0])
    assert load_model(second.path / "pruned").config.hidden_size == 18


def test_a_model_is_timed_even_where_a_block_fills_its_context(world: World) -> None:
    data = dataclasses.replace(world.spec.data, seq_len=512)
    model = finish(control.start(dataclasses.replace(world.spec, kind="probe", data=data))).results()["model"]
    assert model["tokens_per_second"]["prefill"] > 0
    assert model_rows({"model": model})[0]["prefill"].endswith("tokens/s"), "the command line shows it"


def test_a_preview_tells_what_the_pruned_model_will_measure_and_cuts_nothing(world: World) -> None:
    told = finish(control.start(dataclasses.replace(world.spec, kind="preview")))
    cut = finish(control.start(dataclasses.replace(world.spec, kind="prune"))).results()
    assert not (told.path / "pruned").exists()
    results = told.results()
    for ours, theirs in (("teacher", "teacher"), ("draft", "cut")):
        assert results[ours]["parameters"] == cut[theirs]["parameters"]
        for domain in ("here", "elsewhere"):
            for figure in ("loss_nats", "kl_nats", "top1_agreement"):
                found, wanted = (found["heldout"][domain][figure] for found in (results[ours], cut[theirs]))
                assert found == pytest.approx(wanted, rel=1e-3, abs=1e-5), (ours, domain, figure)


def test_a_killed_search_is_resumed_and_ends_like_an_undisturbed_one(world: World, workspace: Path) -> None:
    spec = dataclasses.replace(
        world.spec, kind="search", targets=Targets(), search=SearchSpec(keep=0.6, within=0.1, evaluations=9, blocks=2)
    )
    run = control.start(dataclasses.replace(spec, name="to be killed"))
    wait(run, lambda status: status.phase == "search" and status.done >= 3)
    os.kill(read_json(run.path / "status.json")["pid"], signal.SIGKILL)
    assert wait(run, lambda status: not status.live).state == "interrupted"
    kept = ledger.read(run.path)["rows"]
    assert len(kept) >= 2
    control.resume(run)
    rows, results = ledger.read(finish(run).path)["rows"], run.results()
    assert [row["targets"] for row in rows[: len(kept)]] == [row["targets"] for row in kept]
    assert len(rows) == 9
    repaired = [row for row in rows if "heldout" in row]
    assert repaired == [row for row in rows if "repaired" in row]
    assert len(repaired) == 3, "the finalists"
    assert results["best"] == min(repaired, key=lambda row: row["repaired"]["kl_nats"])["number"]
    assert not (run.path / "candidates").exists()
    assert results["draft"]["heldout"]["here"]["kl_nats"] > results["teacher"]["heldout"]["here"]["kl_nats"]
    shutil.rmtree(workspace / "measured")
    assert ledger.read(finish(control.start(spec)).path)["rows"] == rows, "measured anew and undisturbed it is the same"


@pytest.mark.parametrize(
    ("search", "told"),
    [
        (SearchSpec(keep=0.01), "the smallest model that this grid holds has"),
        (SearchSpec(keep=0.9, within=1e-6), "Allow more than 1e-06 below the budget"),
    ],
)
def test_a_budget_that_no_size_meets_is_refused_in_one_sentence(world: World, search: SearchSpec, told: str) -> None:
    search = dataclasses.replace(search, blocks=2)
    run = control.start(dataclasses.replace(world.spec, kind="search", targets=Targets(), search=search))
    status = wait(run, lambda status: not status.live)
    assert status.error is not None
    assert told in status.error["message"]


def test_evaluate_and_generate_run_on_what_was_made(world: World) -> None:
    pruned = finish(control.start(dataclasses.replace(world.spec, kind="prune"))).path / "pruned"
    measured = finish(control.start(dataclasses.replace(world.spec, kind="evaluate", model=str(pruned), against=(world.spec.model,))))
    assert measured.results()["model"]["heldout"]["here"]["kl_nats"] > 0
    asked = finish(control.start(RunSpec(kind="generate", model=world.spec.model, against=(str(pruned),), evaluate=world.spec.evaluate)))
    assert set(asked.generations()["answers"]) == {"teacher", "pruned"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "no-such-folder/at/all"}, "There is no folder 'no-such-folder/at/all'"),
        ({"targets": Targets(intermediate_size=4000)}, "4000 is more than the model has (40)"),
        ({"targets": Targets(hidden_size=20)}, "nearest possible sizes are 18 and 24"),
        ({"evaluate": EvalSpec(prompts=("the cat", "a dog " * 200))}, "Prompt 2 ("),
        ({"output": "{model}"}, "exists and is not empty"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence_and_leaves_nothing(world: World, change: dict[str, Any], told: str) -> None:
    change = {name: value.replace("{model}", world.spec.model) if isinstance(value, str) else value for name, value in change.items()}
    run = control.start(dataclasses.replace(world.spec, **change))
    status = wait(run, lambda status: not status.live)
    assert status.state == "failed"
    assert status.error is not None
    assert told in status.error["message"]
    assert "Traceback" not in run.log_tail()
    assert not {"plan.npz", "pruned", "model", "checkpoints"} & {path.name for path in run.path.iterdir()}


def test_a_spec_with_impossible_values_is_refused_before_anything_starts(world: World, workspace: Path) -> None:
    with pytest.raises(UserError) as caught:
        control.start(dataclasses.replace(world.spec, distill=dataclasses.replace(world.spec.distill, steps=-1, learning_rate=0)))
    assert "steps: must be 0 or more" in str(caught.value)
    assert "learning_rate: must be above 0" in str(caught.value)
    assert not list((workspace / "runs").glob("*")) if (workspace / "runs").exists() else True


def test_two_processes_share_a_scoring_run(world: World, workspace: Path) -> None:
    spec = dataclasses.replace(world.spec, kind="score", score=ScoreSpec(ppl_blocks=2, shards=2, batch_size=1))
    alone = finish(control.start(spec)).results()["scores"]
    expected = {name: dict(store.load(alone).arrays(name)) for name in ("activations", "removal")}
    shutil.rmtree(workspace / "scores")
    shutil.rmtree(workspace / "passes")
    command = shlex.split(command_of(spec))[2:]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m"]  # fmt: skip
    done = subprocess.run([*launch, *command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((workspace / "runs").glob("*-score-*"))) == 2, "the two processes made one run folder beside the one before"
    for name, arrays in expected.items():
        for key, values in arrays.items():
            if key != "seconds":
                np.testing.assert_array_equal(store.load(alone).arrays(name)[key], values, err_msg=key)
