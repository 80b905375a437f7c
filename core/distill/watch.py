"""Tells the run's progress of every training step, measures the student now and then, and turns a wish to stop into a clean stop."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.distill.best import Best
from core.distill.processes import any_process, is_main_process
from core.distill.sharding import whole
from core.progress import Progress, Stopped

Measure = Callable[[nn.Module], dict[str, Any]]
"""Measures the student on held-out text; what it returns is recorded as it stands."""

Sample = Callable[[nn.Module], list[dict[str, str]]]
"""Lets the student continue prompts, to be read."""

PHASE = "distill"


def for_trackers(metrics: dict[str, Any]) -> dict[str, float]:
    """A step's figures as trackers take them, numbers by name: measures on held-out text under ``eval_``, which they show as a group."""
    heldout = {f"eval_{text}_{name}": value for text, found in metrics.get("heldout", {}).items() for name, value in found.items()}
    return {name: value for name, value in (metrics | heldout).items() if isinstance(value, int | float)}


class Watch(TrainerCallback):
    """One training's eyes and ears; the first of its callbacks, so that trackers hear what it adds."""

    def __init__(
        self, *, progress: Progress, measure: Measure | None, sample: Sample | None = None, evaluate_every: int, tokens_per_step: int,
        best: Best | None = None, patience: int = 0, phase: str = PHASE, flops_per_token: float = 0.0, peak_flops: float | None = None,
    ) -> None:  # fmt: skip
        self.progress = progress
        self.measure = measure
        self.sample = sample
        self.evaluate_every = evaluate_every
        self.tokens_per_step = tokens_per_step
        self.best = best
        self.patience = patience
        self.phase = phase
        self.flops_per_token = flops_per_token
        self.peak_flops = peak_flops
        self.stopped = False
        """Whether the user asked to stop."""
        self.finished = False
        """Whether nothing was learnt for so long that training ends early."""
        self._looks = True
        self._began = time.perf_counter()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Learn whether the first process will look at the student; only then do the others gather it for that."""
        self._looks = any_process(bool(self.measure or self.sample), args.device)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **kwargs: Any
    ) -> TrainerControl:
        """Report the step that just ended; after a wish to stop, ask the trainer to save and end."""
        if logs and "loss" in logs:
            metrics = {name: value for name, value in logs.items() if name != "epoch"} | self._speed(args)
            model = whole(kwargs["model"], args.device) if self._looks and self._is_time(state) else kwargs["model"]
            if is_main_process():
                self._report(state, metrics, model)
                logs.update(for_trackers(metrics))  # the very dict that the trackers behind this callback are given
            self.stopped, self.finished = (any_process(flag, args.device) for flag in (self.stopped, self.finished))
            if self.stopped or self.finished:
                control.should_training_stop = True
                control.should_save |= self.stopped
        return control

    def _speed(self, args: TrainingArguments) -> dict[str, float]:
        """Throughput and memory; the part of the device's peak too, where that is known."""
        rate = self.tokens_per_step / (time.perf_counter() - self._began)
        on_card = args.device.type == "cuda"
        found = {
            "tokens_per_second": rate,
            "memory_bytes": torch.cuda.max_memory_allocated(args.device) if on_card else psutil.Process().memory_info().rss,
        }
        if self.peak_flops:
            found["mfu"] = rate * self.flops_per_token / (self.peak_flops * args.world_size)
        return found

    def _is_time(self, state: TrainerState) -> bool:
        """Whether the student is to be measured after this step."""
        return state.global_step % self.evaluate_every == 0 or state.global_step == state.max_steps

    def _report(self, state: TrainerState, metrics: dict[str, Any], model: Any) -> None:
        """Measure if it is time to, and tell progress."""
        done, total = state.global_step, state.max_steps
        if self._is_time(state):
            with self._hearing():
                if self.measure:
                    metrics["heldout"] = self.measure(model)
                    self._judge(metrics["heldout"], done, model)
                if self.sample:
                    metrics["samples"] = self.sample(model)
        with self._hearing():
            self.progress.step(self.phase, done, total, **metrics)

    def _judge(self, heldout: dict[str, Any], step: int, model: Any) -> None:
        """Keep the weights if they are the best so far; end the training if they have not been for too long."""
        if self.best is None:
            return
        if not self.best.offer(model, step, next(iter(heldout.values()))["loss"]) and self.patience:
            self.finished = step - self.best.step >= self.patience * self.evaluate_every
            if self.finished:
                self.progress.note(
                    f"Ended early at step {step}: the held-out loss has not fallen since step {self.best.step}, whose weights are kept."
                )

    @contextlib.contextmanager
    def _hearing(self) -> Iterator[None]:
        """Remember a wish to stop; the trainer's own loop ends the training."""
        try:
            yield
        except Stopped:
            self.stopped = True
