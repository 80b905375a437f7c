"""Distillation: what the demo's few minutes give back; and, as by themselves, what a step costs and what is learnt at equal tokens."""

import dataclasses
import statistics
import time

from bench import learning, step
from bench.harness import Bar, Outcome
from core.cli import demo_spec
from core.runs import control
from core.runs.folder import Run, all_runs
from core.specs import DataSpec, DistillSpec, EvalSpec, RunSpec, ScoreSpec


def measure(*, quick: bool) -> Outcome:
    """Run the demo (or a very small likeness of it) and read its results; then measure the two parts."""
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
    parts = {"a step": step.measure(quick=quick), "learning": learning.measure(quick=quick)}
    smaller = 1 - results["distilled"]["parameters"] / results["teacher"]["parameters"]
    return Outcome(
        settings={"steps": run.spec.distill.steps, "tokens a step": run.spec.distill.batch_blocks * run.spec.data.seq_len, "learning rate": run.spec.distill.learning_rate,
                  "distill seconds": round(results["seconds"]["distill"]), "median training tokens/s": round(statistics.median(rates))},
        bars=[
            Bar(name="parameters removed", value=smaller, limit=">= 0.25"),
            Bar(name=f"share of the lost nats recovered on held-out {home}", value=recovered[home], limit=">= 0.6"),
            *(bar for part in parts.values() for bar in part.bars),
        ],
        rows=rows,
        more={f"{name}, {part.settings}": part.rows for name, part in parts.items()},
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
