"""Tells the run's progress of every training step, measures the student now and then, and turns a wish to stop into a clean stop."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.progress import Progress, Stopped

Measure = Callable[[nn.Module], dict[str, Any]]
"""Measures the student on held-out text; what it returns is recorded as it stands."""

PHASE = "distill"


class Watch(TrainerCallback):
    """One training's eyes and ears."""

    def __init__(self, *, progress: Progress, measure: Measure | None, evaluate_every: int, tokens_per_step: int) -> None:
        self.progress = progress
        self.measure = measure
        self.evaluate_every = evaluate_every
        self.tokens_per_step = tokens_per_step
        self.stopped = False
        """Whether the user asked to stop."""
        self._began = time.perf_counter()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **kwargs: Any
    ) -> TrainerControl:
        """Report the step that just ended; after a wish to stop, ask the trainer to save and end."""
        if logs and "loss" in logs:
            metrics = {name: value for name, value in logs.items() if name != "epoch"}
            metrics["tokens_per_second"] = self.tokens_per_step / (time.perf_counter() - self._began)
            if is_main_process():
                self._report(state, metrics, kwargs["model"])
            self.stopped = _any_process(self.stopped, args.device)
            if self.stopped:
                control.should_save = control.should_training_stop = True
        return control

    def _report(self, state: TrainerState, metrics: dict[str, Any], model: nn.Module) -> None:
        """Measure if it is time to, and tell progress."""
        done, total = state.global_step, state.max_steps
        with self._hearing():
            if self.measure and (done % self.evaluate_every == 0 or done == total):
                metrics["heldout"] = self.measure(model)
        with self._hearing():
            self.progress.step(PHASE, done, total, **metrics)

    @contextlib.contextmanager
    def _hearing(self) -> Iterator[None]:
        """Remember a wish to stop; the trainer's own loop ends the training."""
        try:
            yield
        except Stopped:
            self.stopped = True


def is_main_process() -> bool:
    """Whether this is the only process of the training, or the one of them that writes and reports."""
    return not _distributed() or torch.distributed.get_rank() == 0


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _any_process(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is set in any process of a distributed training."""
    if not _distributed():
        return flag
    flags = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
    return bool(flags.item())
