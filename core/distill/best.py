"""The best weights of a training so far, by held-out loss: kept beside its checkpoints, and found again by a resumed run."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from core.distill.checkpoints import written_whole
from core.distill.states import PROJECTION
from core.files import read_json, replacing, write_json


@dataclass(frozen=True, kw_only=True)
class Best:
    """Where the best weights lie."""

    checkpoints: Path

    @property
    def folder(self) -> Path | None:
        """The best weights, as a checkpoint folder; None before the first measurement."""
        found = sorted(self.checkpoints.glob("best-*"), key=lambda folder: int(folder.name.removeprefix("best-")))
        return found[-1] if found else None

    @property
    def step(self) -> int:
        """After which step they were measured; 0 before the first measurement."""
        return int(self.folder.name.removeprefix("best-")) if self.folder else 0

    @property
    def loss(self) -> float:
        """Their held-out loss, nats a token."""
        return float(read_json(self.folder / "best.json")["loss"]) if self.folder else float("inf")

    def offer(self, model: PreTrainedModel, step: int, loss: float) -> bool:
        """Keep the model's weights if their loss is lower than the best so far; return whether it is."""
        if not loss < self.loss:
            return False
        before, target = self.folder, self.checkpoints / f"best-{step}"
        weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(PROJECTION)}
        with replacing(target) as temporary, written_whole(temporary, f"The best model, of step {step},"):
            model.save_pretrained(temporary, state_dict=weights)
            write_json(temporary / "best.json", {"loss": loss})
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)
        return True
