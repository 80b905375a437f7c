"""Distillation: the pruned model learns the uncut one's next-token distribution (Minitron, arXiv 2407.14679, section 3).

``transformers.Trainer`` does what it does well: accumulation, clipping, mixed precision, checkpoints, several devices. Ours
are the loss (both bodies, then ``fused_losses``), the order of the data, the learning rate's curve, and the refusal to go on,
or to save, once a number is not finite.
"""

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer_callback import PrinterCallback

from core.distill.checkpoints import check_recipe, keep_newest, newest_whole, written_whole
from core.distill.fused import fused_losses
from core.distill.losses import Objective
from core.distill.rows import TrainingRows
from core.distill.settings import KEPT_CHECKPOINTS, objective_of, rate_curve, training_arguments
from core.distill.watch import Measure, Watch, is_main_process
from core.errors import UserError
from core.files import content_hash, read_json, replacing, require_free, tree_bytes
from core.model.checkpoint import load_model
from core.model.device import pick
from core.model.head import IGNORED, head_weight, hidden_states
from core.progress import Progress, Stopped
from core.specs import DistillSpec

Saving = Callable[[], AbstractContextManager[None]]


def distill(
    student_folder: Path,
    teacher_folder: Path,
    train_NT: np.ndarray,
    spec: DistillSpec,
    out: Path,
    *,
    progress: Progress,
    measure: Measure | None = None,
    device: str = "auto",
    checkpoints: Path | None = None,
    saving: Saving = contextlib.nullcontext,
) -> Path:
    """Train the student, from its newest whole checkpoint if there is one, and write it to ``out``.

    Args:
        student_folder: the pruned checkpoint; it is not changed.
        teacher_folder: the uncut checkpoint, of the same vocabulary.
        train_NT: blocks of tokens ``[N, T]``; shuffled anew each epoch, repeated if the steps need more.
        spec: how to train. ``steps=0`` writes the student as it is.
        out: becomes a plain float32 checkpoint (weights and config, no tokenizer) in one piece, or not at all.
        progress: hears of every step: ``step("distill", done, total, loss=, kl=, ce=, learning_rate=, grad_norm=,
            tokens_per_second=)``, losses in nats a token, and ``heldout=`` every ``evaluate_every`` steps and at the end.
        measure: called with the student for ``heldout``.
        device: see ``core.model.device.pick``.
        checkpoints: where to keep what a run resumes from; by default ``checkpoints`` beside ``out``.
        saving: makes a context in which every checkpoint is written, so that whoever would kill the process can wait.

    Raises:
        UserError: settings, models, data or disk do not allow it, or the numbers ceased to be finite.
        Stopped: progress asked for it; a checkpoint of the last step was saved.
    """
    spec.check()
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is there already and not empty. Choose another folder for the distilled model, or delete this one.")
    checkpoints = checkpoints or out.parent / "checkpoints"
    place = pick(device)
    student, teacher = load_model(student_folder, place), load_model(teacher_folder, place)
    _check(student, teacher, train_NT)
    if spec.steps:
        check_recipe(checkpoints, {**spec.to_dict(), "data": _fingerprint(train_NT), "student": student.num_parameters()})
        _check_disk(student, out, checkpoints)
        _train(student, teacher, train_NT, spec, checkpoints, progress, measure, place, saving)
    if is_main_process():
        student.config.use_cache = read_json(student_folder / "config.json").get("use_cache", True)
        with replacing(out) as temporary, written_whole(temporary, "The distilled model"):
            student.save_pretrained(temporary)
    return out


def _train(
    student: PreTrainedModel, teacher: PreTrainedModel, train_NT: np.ndarray, spec: DistillSpec, checkpoints: Path,
    progress: Progress, measure: Measure | None, device: torch.device, saving: Saving,
) -> None:  # fmt: skip
    """Train ``student`` in place."""
    arguments = training_arguments(spec, checkpoints, device)
    rows_per_step = spec.batch_blocks * spec.accumulation * arguments.world_size
    watch = Watch(progress=progress, measure=measure, evaluate_every=spec.evaluate_every, tokens_per_step=rows_per_step * train_NT.shape[1])
    trainer = DistillTrainer(
        teacher=teacher,
        saving=saving,
        objective=objective_of(spec),
        model=student,
        args=arguments,
        train_dataset=TrainingRows(train_NT, spec.steps * rows_per_step, spec.seed),
        callbacks=[watch],
    )
    resumed = newest_whole(checkpoints)
    if resumed:
        progress.note(f"Going on from {resumed.name}.")
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if watch.stopped:
        raise Stopped


class DistillTrainer(Trainer):
    """``Trainer`` whose loss compares the student with a frozen teacher."""

    lr_scheduler: Any

    def __init__(self, *, teacher: PreTrainedModel, objective: Objective, saving: Saving = contextlib.nullcontext, **settings: Any) -> None:
        super().__init__(**settings)
        self.remove_callback(PrinterCallback)
        self.teacher = teacher.eval().requires_grad_(False).to(self.args.device)
        self.objective = objective
        self.saving = saving
        self.loss_is_scaled_for_ga = True
        self._parts = torch.zeros(len(objective.weights), device=self.args.device)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        """This batch's share of the step's loss, in nats a token: its sum over the valid tokens of all batches of the step."""
        student, tokens_BT = self.accelerator.unwrap_model(model), inputs["input_ids"]
        targets_N = next_tokens(inputs["labels"]).flatten()
        normaliser = (targets_N != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        with self.accelerator.autocast():
            with torch.no_grad():
                teacher_BTD = hidden_states(self.teacher, tokens_BT)

            def forward() -> tuple[Tensor, Tensor]:
                return fused_losses(
                    hidden_states(student, tokens_BT).flatten(0, 1), head_weight(student),
                    teacher_BTD.flatten(0, 1), head_weight(self.teacher), targets_N, self.objective, normaliser=normaliser,
                )  # fmt: skip

            total, parts = through(model, student, forward)
        self._demand_finite(total, dict(zip(self.objective.weights, parts, strict=True)))
        self._parts += parts.to(self._parts.dtype)
        # Gradients are averaged over processes, the normaliser already counts them all.
        total = total * self.accelerator.num_processes
        return (total, parts) if return_outputs else total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each loss of the step to what is logged."""
        if "loss" in logs:
            parts = self.accelerator.reduce(self._parts, reduction="sum")
            logs.update(zip(self.objective.weights, parts.tolist(), strict=True))
            self._parts.zero_()
        super().log(logs, start_time)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Linear warm-up that wastes no step at a rate of 0, then a cosine to a tenth of the peak."""
        if self.lr_scheduler is None:
            curve = rate_curve(self.args.get_warmup_steps(num_training_steps), num_training_steps)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, curve)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        norm = super()._clip_grad_norm(model)
        self._demand_finite(norm, {"the gradient's norm": norm})
        return norm

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir)
        for name, parameter in self.model.named_parameters():
            self._demand_finite(parameter, {f"a weight of {name}": parameter})
        with (
            self.saving(),
            written_whole(folder / f"checkpoint-{self.state.global_step}", f"The checkpoint of step {self.state.global_step}"),
        ):
            if self.is_world_process_zero():
                keep_newest(folder, KEPT_CHECKPOINTS - 1)  # before, not after, so that the disk never holds one more
            super()._save_checkpoint(model, trial)

    def _demand_finite(self, tensor: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Stop before damage spreads to the weights or to a checkpoint.

        Raises:
            UserError: ``tensor`` holds NaN or infinity; names the first of ``terms`` that does.
        """
        if bool(torch.isfinite(tensor.detach()).all()):
            return
        culprit = next((name for name, term in terms.items() if not torch.isfinite(term).all()), "the loss")
        rate = self.args.learning_rate
        raise UserError(
            f"Training broke at step {self.state.global_step + 1}: {culprit} is not finite (NaN or infinity). The last checkpoint before it "
            f"is kept. Start again with a lower learning_rate (it was {rate:g}; try {rate / 3:.1g}) or a longer warm-up."
        )


def next_tokens(labels_BT: Tensor) -> Tensor:
    """Labels shifted to where they are predicted, ``[B, T]``: the last position of a block has nothing to predict (-100)."""
    targets_BT = torch.full_like(labels_BT, IGNORED)
    targets_BT[:, :-1] = labels_BT[:, 1:]
    return targets_BT


def through(wrapped: nn.Module, module: nn.Module, function: Callable[[], Any]) -> Any:
    """Call ``function`` as if it were ``module``'s forward, from inside ``wrapped``.

    DDP and FSDP gather weights and reduce gradients around the forward that they wrap, so a loss that uses the weights
    itself (as the fused head does) must run inside of it.
    """
    original = module.forward
    module.forward = function
    try:
        return wrapped()
    finally:
        module.forward = original


def _check(student: PreTrainedModel, teacher: PreTrainedModel, train_NT: np.ndarray) -> None:
    """Refuse what cannot work.

    Raises:
        UserError: no blocks, blocks too short, too long or of another vocabulary, or two vocabularies.
    """
    vocabularies = head_weight(student).shape[0], head_weight(teacher).shape[0]
    if vocabularies[0] != vocabularies[1]:
        raise UserError(
            f"Student and teacher must share one vocabulary; the student has {vocabularies[0]} tokens, the teacher {vocabularies[1]}."
        )
    if train_NT.ndim != 2 or len(train_NT) < 1 or train_NT.shape[1] < 2:
        raise UserError(f"Training needs at least one block of at least 2 tokens, got blocks of shape {train_NT.shape}.")
    limit = min(model.config.max_position_embeddings for model in (student, teacher))
    if train_NT.shape[1] > limit:
        raise UserError(f"Training blocks of {train_NT.shape[1]} tokens are longer than the models' context of {limit}. Lower seq_len.")
    if not 0 <= int(train_NT.min()) <= int(train_NT.max()) < vocabularies[0]:
        raise UserError(
            f"Training blocks hold token {int(train_NT.max())}, but the vocabulary has {vocabularies[0]}. Build them with this model's tokenizer."
        )


def _check_disk(student: PreTrainedModel, out: Path, checkpoints: Path) -> None:
    """Refuse to start what the disk cannot hold: weights and two Adam moments a checkpoint, and the model itself, in float32."""
    copies = KEPT_CHECKPOINTS * 3 + 1
    already = sum(map(tree_bytes, checkpoints.glob("checkpoint-*")))
    require_free(out, copies * 4 * student.num_parameters() - already)


def _fingerprint(train_NT: np.ndarray) -> str:
    return content_hash(np.ascontiguousarray(train_NT, dtype=np.int32).tobytes())
