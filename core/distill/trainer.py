"""Distillation: the pruned model learns the uncut one's next-token distribution (Minitron, arXiv 2407.14679, section 3).

``transformers.Trainer`` does what it does well: accumulation, clipping, mixed precision, checkpoints, several devices. Ours
are the loss (both bodies, then ``fused_losses``), the order of the data, the learning rate's curve, and what is refused.
"""

import contextlib
import dataclasses
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, TrainingArguments
from transformers.integrations import TensorBoardCallback

from core.distill.best import Best
from core.distill.cache import cache_bytes
from core.distill.checkpoints import check_recipe, newest_whole, written_whole
from core.distill.checks import check_blocks, check_disk, check_processes, shared_vocabulary
from core.distill.loop import DistillTrainer, Saving
from core.distill.losses import Objective
from core.distill.matching import AUTO, conflicts, kinds_of, pairs_of, stored_as
from core.distill.processes import is_main_process, wait_for_all
from core.distill.rows import TrainingRows
from core.distill.settings import KEPT_CHECKPOINTS, computed_in, objective_of, training_arguments
from core.distill.sharded import ShardedTrainer
from core.distill.sharding import shard, whole
from core.distill.states import Matching, attach_projection, detach_projection
from core.distill.teacher import Teacher, load_teacher
from core.distill.watch import PHASE, Measure, Sample, Watch
from core.errors import UserError
from core.files import content_hash, read_json, replacing
from core.model.checkpoint import full_config, load_model
from core.model.cost import cost_of
from core.model.device import peak_flops, pick
from core.model.head import head_weight
from core.plan.plan import Plan
from core.progress import Progress, Stopped
from core.specs import DistillSpec
from core.workspace import room

ROOMY = 0.1
"""Part of the free disk that the teacher's states may take without having been asked for."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training: what does not change while it runs, and whom it tells."""

    spec: DistillSpec
    train_NT: np.ndarray
    checkpoints: Path
    device: torch.device
    progress: Progress
    measure: Measure | None = None
    sample: Sample | None = None
    saving: Saving = contextlib.nullcontext
    phase: str = PHASE

    @cached_property
    def arguments(self) -> TrainingArguments:
        """The trainer's settings."""
        return training_arguments(self.spec, self.checkpoints, self.device)

    @cached_property
    def rows(self) -> TrainingRows:
        """The blocks in the order in which all processes together see them."""
        return TrainingRows(self.train_NT, self.spec.steps * self.rows_per_step, self.spec.seed)

    @property
    def rows_per_step(self) -> int:
        """Blocks a step, over all processes."""
        return self.spec.batch_blocks * self.spec.accumulation * int(self.arguments.world_size)

    @property
    def sharded(self) -> bool:
        """Whether what is trained is sharded: if that was asked for and there are several processes to share it."""
        return self.spec.sharding != "none" and self.arguments.world_size > 1

    @property
    def loading(self) -> torch.device:
        """Where what is trained is loaded: what will be sharded goes to the device a layer at a time."""
        return torch.device("cpu") if self.sharded else self.device

    @property
    def best(self) -> Best | None:
        """Where the best weights are kept, if they are asked for and can be known."""
        return Best(checkpoints=self.checkpoints) if self.measure and (self.spec.keep_best or self.spec.patience) else None


def distill(
    student_folder: Path,
    teacher_folder: Path,
    train_NT: np.ndarray,
    spec: DistillSpec,
    out: Path,
    *,
    progress: Progress,
    measure: Measure | None = None,
    sample: Sample | None = None,
    plan: Plan | None = None,
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
            tokens_per_second=, memory_bytes=)`` and what else is learnt from, losses in nats a token; ``heldout=`` and ``samples=``
            every ``evaluate_every`` steps and at the end. The teacher's correction reports under ``correct``.
        measure: called with the student for ``heldout``; the first text's ``loss`` decides which weights are best.
        sample: called with the student for ``samples``.
        plan: how the student was cut from this very teacher, if it was; decides which layers and channels belong together.
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
    place = pick(device)
    vocabulary = _check(student_folder, teacher_folder, train_NT)
    training = Training(
        spec=spec, train_NT=train_NT, checkpoints=checkpoints or out.parent / "checkpoints", device=place, progress=progress, measure=measure,
        sample=sample, saving=saving,
    )  # fmt: skip
    if spec.steps:
        check_processes(spec, training.arguments.world_size, training.checkpoints)
    student = load_model(student_folder, training.loading)
    if spec.steps:
        _prepare(training, student, out)
        if spec.correction_steps:
            teacher_folder = corrected_teacher(teacher_folder, training, out.parent / "teacher")
        _learn(training, student, teacher_folder, vocabulary, plan)
    _write(whole(student, torch.device("cpu")), student_folder, out, training.best)
    return out


def _prepare(training: Training, student: PreTrainedModel, out: Path) -> None:
    """Refuse what the disk cannot hold or what would be mixed up; say if the text will be gone through more than once."""
    rows, blocks = len(training.rows), len(training.train_NT)
    recipe = {**training.spec.to_dict(), "data": content_hash(np.ascontiguousarray(training.train_NT, dtype=np.int32).tobytes())}
    check_recipe(training.checkpoints, {**recipe, "student": student.num_parameters()}, DistillSpec().to_dict())
    check_disk(student, out, training.checkpoints, KEPT_CHECKPOINTS, training.best is not None)
    if rows > blocks:
        training.progress.note(
            f"The {blocks} training blocks are gone through {rows / blocks:.1f} times. More train_blocks would teach more."
        )


def _learn(training: Training, student: PreTrainedModel, teacher_folder: Path, vocabulary: int, plan: Plan | None) -> None:
    """Distil into ``student`` in place."""
    spec, rows = training.spec, training.rows
    computed = str(computed_in(spec, training.device)).removeprefix("torch.")
    teacher = load_teacher(
        teacher_folder, training.device, _stored_as(training, student, teacher_folder), training.train_NT, rows.order, computed, training.progress,
        sharded=training.sharded and spec.sharding == "both",
    )  # fmt: skip
    matching = _matching(student, teacher, spec, plan)
    if matching and set(matching.kinds) - {"attention"}:
        attach_projection(student, teacher.config.hidden_size, plan, spec.seed)
    try:
        run_trainer(training, student, teacher, objective_of(spec), vocabulary, matching)
    finally:
        detach_projection(student)


def _stored_as(training: Training, student: PreTrainedModel, teacher_folder: Path) -> str:
    """In which format the teacher's states are stored, ``off`` for not at all; ``auto`` says what it decided if it stores them, or would."""
    spec, config, blocks = training.spec, full_config(teacher_folder), len(training.train_NT)
    kinds = kinds_of(spec, student.config.num_hidden_layers, config["num_hidden_layers"])
    found = stored_as(spec, kinds, len(training.rows), blocks)
    if spec.teacher_cache != AUTO or found == "off":
        return found
    size, free = (
        cache_bytes(blocks, training.train_NT.shape[1], config["hidden_size"], found),
        shutil.disk_usage(room("teacher").parent).free,
    )
    if size > ROOMY * free:
        training.progress.note(f"The teacher is asked each time: its states of {blocks} blocks would take {size / 1e9:.1f} of {free / 1e9:.1f} GB free.")  # fmt: skip
        return "off"
    training.progress.note(f"The teacher's states of {blocks} blocks are kept, {size / 1e9:.2g} GB, as the text is gone through more than once.")  # fmt: skip
    return found


def run_trainer(
    training: Training,
    model: PreTrainedModel,
    teacher: Teacher | None,
    objective: Objective,
    vocabulary: int,
    matching: Matching | None = None,
) -> None:
    """Train ``model`` in place, from its newest whole checkpoint if there is one.

    Raises:
        Stopped: progress asked for it; a checkpoint of the last step was saved.
        UserError: the numbers ceased to be finite, or the disk is full.
    """
    watch = Watch(
        progress=training.progress, measure=training.measure, sample=training.sample, evaluate_every=training.spec.evaluate_every,
        tokens_per_step=training.rows_per_step * training.train_NT.shape[1], best=training.best, patience=training.spec.patience,
        phase=training.phase, flops_per_token=_flops(model, teacher, training.train_NT.shape[1]),
        peak_flops=peak_flops(training.device, computed_in(training.spec, training.device)),
    )  # fmt: skip
    if training.sharded:
        shard(model, training.device)
    trainer = (ShardedTrainer if training.sharded else DistillTrainer)(
        teacher=teacher, saving=training.saving, objective=objective, vocabulary=vocabulary, matching=matching, spec=training.spec, model=model,
        args=training.arguments, train_dataset=training.rows, callbacks=[watch],
    )  # fmt: skip
    _with_trackers(trainer, watch, training)
    resumed = newest_whole(training.checkpoints)
    if resumed:
        training.progress.note(f"Going on from {resumed.name}.")
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if watch.stopped:
        raise Stopped


def _with_trackers(trainer: DistillTrainer, watch: Watch, training: Training) -> None:
    """Let trackers hear what the watch adds to a step's figures; TensorBoard's file lies beside the checkpoints, which are deleted in the end."""
    callbacks = trainer.callback_handler.callbacks
    callbacks.sort(key=lambda callback: callback is not watch)
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(training.checkpoints.parent / "tensorboard" / training.phase)


def corrected_teacher(folder: Path, training: Training, out: Path) -> Path:
    """The teacher adapted to the training text, in ``out`` (2408.11796, section 2: teacher correction): ordinary language modelling for a while.

    It resumes like any training, and is made once.
    """
    if not out.exists():
        spec = dataclasses.replace(
            training.spec, steps=training.spec.correction_steps, learning_rate=training.spec.correction_rate, keep_best=False, patience=0
        )
        phase = dataclasses.replace(
            training, spec=spec, checkpoints=out.parent / "teacher-checkpoints", measure=None, sample=None, phase="correct"
        )
        teacher = load_model(folder, training.loading)
        check_disk(teacher, out, phase.checkpoints, KEPT_CHECKPOINTS, best=False)
        run_trainer(phase, teacher, None, Objective(weights={"ce": 1.0}), head_weight(teacher).shape[0])
        _write(whole(teacher, torch.device("cpu")), folder, out, None)
        if is_main_process():
            shutil.rmtree(phase.checkpoints, ignore_errors=True)
        wait_for_all()  # until it is written, nobody can learn from it
    return out


def _write(model: PreTrainedModel, like: Path, out: Path, best: Best | None) -> None:
    """Write the model, or the best it has been, as a plain checkpoint."""
    if not is_main_process():
        return
    if best and best.folder:
        model = load_model(best.folder)
    model.config.use_cache = read_json(like / "config.json").get("use_cache", True)
    with replacing(out) as temporary, written_whole(temporary, "The distilled model"):
        model.save_pretrained(temporary)


def _check(student_folder: Path, teacher_folder: Path, train_NT: np.ndarray) -> int:
    """Refuse what cannot work; return how many tokens both vocabularies share."""
    configs = full_config(student_folder), full_config(teacher_folder)
    vocabulary = shared_vocabulary((student_folder, teacher_folder), (configs[0]["vocab_size"], configs[1]["vocab_size"]))
    check_blocks(train_NT, min(config["max_position_embeddings"] for config in configs), vocabulary)
    return vocabulary


def _matching(student: PreTrainedModel, teacher: Teacher, spec: DistillSpec, plan: Plan | None) -> Matching | None:
    """Which intermediate states are learnt from; None for none."""
    layers = student.config.num_hidden_layers, teacher.config.num_hidden_layers
    kinds = kinds_of(spec, *layers)
    if not kinds:
        return None
    if found := conflicts(spec, *layers):
        raise UserError("\n".join(found))
    pairs = pairs_of(spec.layer_map, *layers, None if plan is None else plan.layers.tolist())
    return Matching(kinds=kinds, pairs=pairs, distance=spec.state_distance)


def _flops(model: PreTrainedModel, teacher: Teacher | None, context: int) -> float:
    """Arithmetic a trained token: forward and twice that backward, and the teacher's forward, or its head alone."""
    student = 3 * cost_of(model.config.to_dict()).flops_per_token(context // 2)
    if teacher is None:
        return student
    return student + (
        2 * teacher.head_VE.numel() if teacher.model is None else cost_of(teacher.config.to_dict()).flops_per_token(context // 2)
    )
