"""Distillation: what the demo's few minutes give back, what a step costs, and what is learnt from whom at equal tokens."""

import dataclasses
import statistics
import time

from bench.harness import Bar, Outcome, interleaved, ratio, timing_rows
from bench.learning import RANDOM, UNTAUGHT, learn, margins
from bench.step import CACHED, OURS, PLAIN, loss_memory, steps
from core.cli import demo_spec
from core.data.blocks import build
from core.model.source import resolve
from core.runs import control
from core.runs.folder import Run, all_runs
from core.specs import DataSpec, DistillSpec, EvalSpec, RunSpec, ScoreSpec


def measure(*, quick: bool) -> Outcome:
    """Run the demo (or a very small likeness of it), read its results, and measure on its pruned model."""
    run = finished(small(demo_spec()) if quick else demo_spec())
    results = run.results()
    recovered = results["recovered"]
    home = next(iter(recovered))
    rows = [
        {"model": role, "held-out text": domain, "parameters": results[role]["parameters"], "loss, nats": values["loss_nats"],
         "perplexity": values["perplexity"], "KL to the teacher, nats": values["kl_nats"]}
        for role in ("teacher", "pruned", "distilled") for domain, values in results[role]["heldout"].items()
    ]  # fmt: skip
    rates = [event["tokens_per_second"] for event in run.events(0)[0] if event.get("tokens_per_second")]
    teacher = resolve(run.spec.model)
    blocks = build(run.spec.data, teacher)
    seconds = interleaved(steps(run.path / "pruned", teacher, blocks.train_NT), 1 if quick else 7)
    fused, materialised = loss_memory(256 if quick else 8 * 512)
    equal = dataclasses.replace(run.spec.distill, steps=2 if quick else 60, evaluate_every=1000, checkpoint_every=1000)
    learnt = learn(run.path / "pruned", teacher, blocks, equal, 1 if quick else 3)
    smaller = 1 - results["distilled"]["parameters"] / results["teacher"]["parameters"]
    return Outcome(
        settings={"steps": run.spec.distill.steps, "tokens a step": run.spec.distill.batch_blocks * run.spec.data.seq_len, "learning rate": run.spec.distill.learning_rate,
                  "distill seconds": round(results["seconds"]["distill"]), "median training tokens/s": round(statistics.median(rates))},
        bars=[
            Bar(name="parameters removed", value=smaller, limit=">= 0.25"),
            Bar(name=f"share of the lost nats recovered on held-out {home}", value=recovered[home], limit=">= 0.6"),
            Bar(name="step / (two bodies and one head)", value=ratio(seconds, OURS, PLAIN), limit="<= 1.10"),
            Bar(name="step from stored states / step", value=ratio(seconds, CACHED, OURS), limit="<= 0.80"),
            Bar(name="peak memory of the loss / with all logits at once", value=fused / materialised, limit="<= 0.25"),
            Bar(name=f"nats by which forward KL beats cross-entropy on held-out {home}, worst seed", value=min(margins(learnt, UNTAUGHT, home)), limit=">= 0"),
            Bar(name=f"nats by which pruned beats random weights on held-out {home}", value=min(margins(learnt, RANDOM, home)), limit=">= 0"),
        ],
        rows=rows,
        more={"Time of a step": timing_rows(seconds), f"After {equal.steps} steps": learnt},
    )  # fmt: skip


def finished(spec: RunSpec) -> Run:
    """A finished run of exactly this spec: the newest one in the workspace, else one that is started and waited for."""
    for run in all_runs():
        if run.status().state == "done" and run.spec.identity() == spec.identity():
            return run
    run = control.start(spec)
    while run.status().live:
        time.sleep(1)
    if run.status().state != "done":
        raise SystemExit(f"Run {run.id} did not finish: {run.status().message}")
    return run


def small(spec: RunSpec) -> RunSpec:
    """The same path in under a minute; its numbers mean nothing."""
    return dataclasses.replace(
        spec, name="bench quick", data=DataSpec(seq_len=64, calibration_blocks=4, heldout_blocks=2), score=ScoreSpec(ppl_blocks=0),
        distill=DistillSpec(steps=3, evaluate_every=3), evaluate=EvalSpec(prompts=("Once",), max_new_tokens=2),
    )  # fmt: skip
