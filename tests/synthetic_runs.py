"""Run folders with made-up but plausible numbers, for tests of pages and reports only; nothing here is a measurement."""

import contextlib
import dataclasses
import json
import math
import random
import time
from collections.abc import Iterator
from typing import Any

from core.files import write_json
from core.runs.folder import Run, Status, create
from core.specs import DistillSpec, RunSpec, Targets

TEACHER_LOSS = {"wikipedia": 2.913, "sotu": 3.204}
PRUNED_LOSS = {"wikipedia": 4.871, "sotu": 5.306}
PHASES = (("score", 16), ("plan", 1), ("prune", 24), ("measure", 4))
PARAMETERS = {"teacher": 134_515_008, "pruned": 107_290_944, "distilled": 107_290_944}

SPEC = RunSpec(
    kind="distill", targets=Targets(num_hidden_layers=24, intermediate_size=1280), distill=DistillSpec(steps=60, checkpoint_every=20)
)


def loss_at(domain: str, step: int) -> float:
    """Held-out loss that falls from the pruned model's towards the teacher's."""
    gap = PRUNED_LOSS[domain] - TEACHER_LOSS[domain]
    return TEACHER_LOSS[domain] + gap * (0.27 + 0.73 * math.exp(-step / 18))


def model_numbers(role: str, step: int = 60) -> dict[str, Any]:
    """What results.json says of one model."""
    losses = {"teacher": TEACHER_LOSS, "pruned": PRUNED_LOSS, "distilled": {domain: loss_at(domain, step) for domain in TEACHER_LOSS}}[role]
    speed = {"teacher": (1843.0, 21.4), "pruned": (2271.0, 26.8), "distilled": (2268.0, 26.9)}[role]
    heldout = {
        domain: {
            "loss_nats": loss, "perplexity": math.exp(loss), "bits_per_byte": loss / 4.4 / math.log(2) * 1.13, "tokens": 4088,
            "kl_nats": 0.0 if role == "teacher" else loss - TEACHER_LOSS[domain] + 0.031,
            "top1_agreement": 1.0 if role == "teacher" else 0.93 - 0.2 * (loss - TEACHER_LOSS[domain]),
        }
        for domain, loss in losses.items()
    }  # fmt: skip
    return {
        "parameters": PARAMETERS[role], "weight_bytes": 4 * PARAMETERS[role], "heldout": heldout,
        "tokens_per_second": {"prefill": speed[0], "decode": speed[1]},
    }  # fmt: skip


def results(roles: tuple[str, ...] = ("teacher", "pruned", "distilled"), step: int = 60) -> dict[str, Any]:
    """A whole results.json."""
    found: dict[str, Any] = {role: model_numbers(role, step) for role in roles}
    if "distilled" in roles:
        found["recovered"] = {d: (PRUNED_LOSS[d] - loss_at(d, step)) / (PRUNED_LOSS[d] - TEACHER_LOSS[d]) for d in TEACHER_LOSS}
    found["machine"] = {
        "cpu": "Synthetic CPU", "cores": 2, "memory_bytes": 16_000_000_000, "device": "cpu", "platform": "Linux x86_64", "python": "3.11.2",
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    }  # fmt: skip
    found["seconds"] = {"score": 21.4, "plan": 0.1, "prune": 2.3, "measure": 18.2, "distill": 143.0, "evaluate": 19.7, "save": 1.2}
    return found


GENERATIONS = {
    "prompts": ["The capital of France is", "Photosynthesis is the process by which"],
    "answers": {
        "teacher": [" Paris. It is the largest city in France and stands on the Seine.", " plants turn light into chemical energy."],
        "pruned": [" the the city of the city of the city of the", " the the plants and the plants are the same"],
        "distilled": [" Paris. It is the largest city in the country and the seat of", " plants turn sunlight into sugar and oxygen."],
    },
}


def early_events(now: float) -> list[dict[str, Any]]:
    """Events of the phases before distillation."""
    events: list[dict[str, Any]] = [{"time": now, "segment": 1}]
    for phase, total in PHASES:
        for done in range(1, total + 1):
            now += 0.6
            events.append({"time": now, "phase": phase, "done": done, "total": total})
    return events


def step_event(time_: float, step: int, total: int = 60, rng: random.Random | None = None) -> dict[str, Any]:
    """One distillation step, with held-out losses every tenth."""
    noise = (rng or random.Random(step)).gauss(0, 0.09)
    kl = (0.55 + 2.6 * math.exp(-step / 15)) * math.exp(noise)
    event: dict[str, Any] = {
        "time": time_, "phase": "distill", "done": step, "total": total, "loss": kl, "kl": kl, "ce": 2.9 + kl, "learning_rate": 6e-4 * (1 - step / 61),
        "grad_norm": 1.2 + noise, "tokens_per_second": 214 * math.exp(noise / 4),
    }  # fmt: skip
    if step % 10 == 0 or step == 1:
        event["heldout"] = {domain: {"loss": loss_at(domain, step), "kl": loss_at(domain, step) - 2.8} for domain in TEACHER_LOSS}
    return event


def write_events(run: Run, events: list[dict[str, Any]]) -> None:
    """Append events to a run's diary."""
    with (run.path / "events.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def make_run(state: str, *, steps: int = 60, spec: RunSpec = SPEC, error: dict[str, str] | None = None) -> Run:
    """Make a run in some state. ``running`` and ``stopping`` need somebody to hold its lock: see ``held``."""
    run = create(spec)
    now = time.time() - 200
    status = Status(created=now, device="cpu")
    if state != "queued":
        events = early_events(now)
        events += [step_event(events[-1]["time"] + 2.4 * step, step) for step in range(1, steps + 1)]
        write_events(run, events)
        (run.path / "out.log").write_text("Loading the teacher\nReading text\nstep 30 of 60\n", encoding="utf-8")
        write_json(run.path / "results.json", results() if state == "done" else results(("teacher", "pruned")))
        written = {"stopping": "running", "interrupted": "running"}.get(state, state)
        status = dataclasses.replace(
            status, state=written, phase="save" if state == "done" else "distill", done=1 if state == "done" else steps, total=1 if state == "done" else 60,
            started=now, updated=time.time() - 1, finished=None if written == "running" else time.time() - 1, memory_bytes=2_140_000_000, error=error,
        )  # fmt: skip
    if state == "stopping":
        write_json(run.path / "cancel", {"keep": True, "time": time.time()})
    if state == "done":
        write_json(run.path / "generations.json", GENERATIONS)
    write_json(run.path / "status.json", dataclasses.asdict(status))
    return run


@contextlib.contextmanager
def held(run: Run) -> Iterator[Run]:
    """Stand in for a living worker: hold the run's lock."""
    with run.hold():
        yield run
