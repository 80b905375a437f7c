"""How the trainer is set up for a ``DistillSpec``: its arguments and the learning rate's curve."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import TrainingArguments

from core.distill.losses import Objective
from core.distill.trackers import tracker_problems
from core.errors import UserError
from core.model.device import default_dtype
from core.specs import DistillSpec

KEPT_CHECKPOINTS = 2

FINAL_RATE = 0.1
"""Where every schedule ends, as part of the peak learning rate."""

DECAY_FRAC = 0.2
"""Part of the steps after warm-up in which ``wsd`` decays."""


def objective_of(spec: DistillSpec) -> Objective:
    """What is learnt from, and forward KL and cross-entropy in any case, to be looked at: every run has both curves."""
    return Objective(
        weights={"kl": 0.0, spec.loss: spec.kl_weight, "ce": spec.ce_weight}, temperature=spec.temperature, beta=spec.beta, skew=spec.skew,
        top_k=spec.top_k, samples=spec.samples,
    )  # fmt: skip


def training_arguments(spec: DistillSpec, checkpoints: Path, device: torch.device) -> TrainingArguments:
    """The trainer's settings for ``spec``: silent, one row order, one device unless a launcher started several processes.

    Raises:
        UserError: a tracker's package is not installed.
    """
    if missing := tracker_problems(spec.report_to):
        raise UserError("\n".join(missing))
    arguments = TrainingArguments(
        output_dir=str(checkpoints), max_steps=spec.steps, seed=spec.seed, bf16=computed_in(spec, device) == torch.bfloat16,
        use_cpu=device.type == "cpu", per_device_train_batch_size=spec.batch_blocks, gradient_accumulation_steps=spec.accumulation,
        learning_rate=spec.learning_rate, weight_decay=spec.weight_decay, adam_beta1=0.9, adam_beta2=0.95,
        max_grad_norm=spec.max_grad_norm, warmup_steps=round(spec.warmup_frac * spec.steps),
        activation_checkpointing=spec.gradient_checkpointing, activation_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=1, logging_nan_inf_filter=False, report_to=list(spec.report_to), disable_tqdm=True, log_level="error",
        ddp_find_unused_parameters=False, save_strategy="steps", save_steps=spec.checkpoint_every, save_total_limit=KEPT_CHECKPOINTS,
        train_sampling_strategy="sequential", remove_unused_columns=False, dataloader_pin_memory=device.type == "cuda",
    )  # fmt: skip
    arguments._n_gpu = min(1, arguments.n_gpu)  # never nn.DataParallel; several devices mean several processes
    return arguments


def computed_in(spec: DistillSpec, device: torch.device) -> torch.dtype:
    """The format that a training computes in; weights and Adam's moments are float32 in any case."""
    return default_dtype(device) if spec.dtype == "auto" else getattr(torch, spec.dtype)


def rate_curve(warmup: int, steps: int, schedule: str = "cosine") -> Callable[[int], float]:
    """Learning rate of each step (from 0) as part of the peak: a linear rise that wastes no step at 0, then ``schedule``."""

    def curve(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
        return FINAL_RATE + (1 - FINAL_RATE) * FALLS[schedule](done)

    return curve


FALLS: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "wsd": lambda done: min(1.0, (1 - done) / DECAY_FRAC),
}
"""Schedule -> from 1 to 0 while ``done`` goes from 0 to 1. Level, then decay: MiniCPM, arXiv 2404.06395."""
