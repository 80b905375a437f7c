"""The training loop: ``transformers.Trainer`` with our loss in it, and the refusal to go on, or to save, once a number is not finite."""

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, Trainer
from transformers.trainer_callback import PrinterCallback

from core.distill.checkpoints import keep_newest, written_whole
from core.distill.fused import fused_losses
from core.distill.losses import LOSSES, Objective
from core.distill.settings import KEPT_CHECKPOINTS, rate_curve
from core.distill.states import Matching, Site, listening
from core.distill.teacher import Teacher
from core.errors import UserError
from core.files import read_json, write_json
from core.model.head import IGNORED, head_weight, hidden_states
from core.specs import DistillSpec

Saving = Callable[[], AbstractContextManager[None]]

BALANCE = "balance.json"
"""In a checkpoint: what the intermediate states' loss is multiplied by in the next step."""


class DistillTrainer(Trainer):
    """``Trainer`` whose loss compares the student with a frozen teacher."""

    lr_scheduler: Any

    def __init__(
        self, *, teacher: Teacher | None, objective: Objective, vocabulary: int, matching: Matching | None = None, spec: DistillSpec,
        saving: Saving = contextlib.nullcontext, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(**settings)
        self.remove_callback(PrinterCallback)
        self.teacher = teacher
        self.objective = objective
        self.vocabulary = vocabulary
        self.matching = matching
        self.spec = spec
        self.saving = saving
        self.loss_is_scaled_for_ga = True
        self.balance: float | None = None
        """What the intermediate states' loss is multiplied by, so that it weighs as much as the logits'; see ``_balanced``."""
        self.names = (*objective.weights, *(matching.kinds if matching else ()))
        self._parts = torch.zeros(len(self.names), device=self.args.device)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        """This batch's share of the step's loss, in nats a token: its sum over the valid tokens of all batches of the step."""
        student = self.accelerator.unwrap_model(model)
        targets_BT = next_tokens(inputs["labels"])
        normaliser = (targets_BT != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        if self.matching and self.balance is None:
            self.balance = self._first_balance(student)
        with self.accelerator.autocast():
            total, parts = through(model, student, lambda: self._losses(student, inputs, targets_BT, normaliser))
        self._demand_finite(total, dict(zip(self.names, parts, strict=True)))
        self._parts += parts.to(self._parts.dtype)
        # Gradients are averaged over processes, the normaliser already counts them all.
        total = total * self.accelerator.num_processes
        return (total, parts) if return_outputs else total

    def _losses(
        self, student: PreTrainedModel, inputs: dict[str, Tensor], targets_BT: Tensor, normaliser: Tensor | int
    ) -> tuple[Tensor, Tensor]:
        """The objective, and each of ``names`` alone, without weights."""
        tokens_BT, matching = inputs["input_ids"], self.matching
        teacher_heard, teacher_NE = self._ask_teacher(tokens_BT, inputs["block"])
        with listening(student, matching.sites(0) if matching else ()) as heard:
            student_ND = hidden_states(student, tokens_BT).flatten(0, 1)
        total, parts = fused_losses(
            student_ND, _rows(head_weight(student), self.vocabulary), teacher_NE,
            None if self.teacher is None else _rows(self.teacher.head_VE, self.vocabulary), targets_BT.flatten(), self.objective,
            normaliser=normaliser,
        )  # fmt: skip
        if matching is None or self.teacher is None or self.teacher.model is None:
            return total, parts
        states = matching.losses(heard, teacher_heard, (student, self.teacher.model), targets_BT != IGNORED, normaliser)
        factor = self.spec.intermediate_weight * (1.0 if self.balance is None else self.balance)
        return total + factor * states.sum(), torch.cat([parts, states.detach()])

    def _ask_teacher(self, tokens_BT: Tensor, blocks_B: Tensor) -> tuple[dict[Site, Tensor], Tensor | None]:
        """What is heard inside the teacher, and its final hidden states ``[N, E]``."""
        if self.teacher is None:
            return {}, None
        if self.matching is None or self.teacher.model is None:
            return {}, self.teacher.states(tokens_BT, blocks_B).flatten(0, 1)
        with listening(self.teacher.model, self.matching.sites(1)) as heard:
            return heard, self.teacher.states(tokens_BT, blocks_B).flatten(0, 1)

    @torch.no_grad()
    def _first_balance(self, student: PreTrainedModel) -> float:
        """The balance before anything was learnt, on the run's first block, which every process knows."""
        first = {name: value.unsqueeze(0).to(self.args.device) for name, value in self.train_dataset[0].items()}
        targets_BT = next_tokens(first["labels"])
        with self.accelerator.autocast():
            parts = through(student, student, lambda: self._losses(student, first, targets_BT, (targets_BT != IGNORED).sum()))[1]
        return self._balanced(parts.tolist())

    def _balanced(self, parts: list[float]) -> float:
        """``L_logits / L_is`` (arXiv 2407.14679, section 3), a plain number, so that nothing is learnt through it.

        It is the ratio of the step before, over all its batches in all processes: so every batch of a step is weighed alike, however
        the step is divided.
        """
        weights = self.objective.weights
        logits = sum(weights[name] * value for name, value in zip(weights, parts, strict=False) if LOSSES[name].taught)
        return logits / max(sum(parts[len(weights) :]), 1e-12)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each loss of the step to what is logged."""
        if "loss" in logs:
            parts = self.accelerator.reduce(self._parts, reduction="sum").tolist()
            logs.update(zip(self.names, parts, strict=True))
            if self.matching:
                logs["balance"] = self.balance or 0.0
                self.balance = self._balanced(parts)
            self._parts.zero_()
        super().log(logs, start_time)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Linear warm-up that wastes no step at a rate of 0, then the schedule to a tenth of the peak."""
        if self.lr_scheduler is None:
            curve = rate_curve(self.args.get_warmup_steps(num_training_steps), num_training_steps, self.spec.schedule)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, curve)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        norm = super()._clip_grad_norm(model)
        self._demand_finite(norm, {"the gradient's norm": norm})
        return norm

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir)
        target = folder / f"checkpoint-{self.state.global_step}"
        for name, parameter in self.model.named_parameters():
            self._demand_finite(parameter, {f"a weight of {name}": parameter})
        with self.saving(), written_whole(target, f"The checkpoint of step {self.state.global_step}"):
            if self.is_world_process_zero():
                keep_newest(folder, KEPT_CHECKPOINTS - 1)  # before, not after, so that the disk never holds one more
                if self.matching:
                    write_json(target / BALANCE, self.balance)  # first, so that no whole checkpoint is without it
            super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.load_balance(Path(resume_from_checkpoint))

    def load_balance(self, checkpoint: Path) -> None:
        """Weigh the states as the step after this checkpoint would have."""
        if self.matching:
            self.balance = read_json(checkpoint / BALANCE)

    def _demand_finite(self, tensor: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Stop before damage spreads to the weights or to a checkpoint.

        Raises:
            UserError: ``tensor`` holds NaN or infinity; names the first of ``terms`` that does.
        """
        if _finite(tensor):
            return
        culprit = next((name for name, term in terms.items() if not _finite(term)), "the loss")
        rate = self.args.learning_rate
        raise UserError(
            f"Training broke at step {self.state.global_step + 1}: {culprit} is not finite (NaN or infinity). The last checkpoint before it "
            f"is kept. Start again with a lower learning_rate (it was {rate:g}; try {rate / 3:.1g}) or a longer warm-up."
        )


def _finite(tensor: Tensor) -> bool:
    """Whether no number is NaN or infinite; of a sharded tensor, in any process, so that all of them stop for the same reason."""
    broken = (~torch.isfinite(tensor.detach())).sum()
    return int(broken.full_tensor() if isinstance(broken, DTensor) else broken) == 0


def _rows(weight_VD: Tensor, count: int) -> Tensor:
    """The first rows of a head; the rest is padding."""
    return weight_VD if len(weight_VD) == count else weight_VD[:count]


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
