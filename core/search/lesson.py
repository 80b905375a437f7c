"""One round of a finalist's retraining: from what it was after the round before to what it becomes, and what it does then."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.distill.cache import STORED
from core.distill.trainer import distill
from core.evaluate.preview import Previewer
from core.evaluate.store import tokens_hash
from core.files import content_hash
from core.model.checkpoint import load_model
from core.model.device import pick
from core.plan.plan import Plan
from core.search.checkpoints import Checkpoints
from core.search.ledger import FIGURES
from core.specs import DistillSpec

CACHED = "float32"
"""How the teacher's final hidden states are kept unless the user says otherwise: exactly."""


def same_for_all(spec: DistillSpec, steps: int) -> DistillSpec:
    """How finalists learn, from the settings of a distillation and the steps of the first round.

    From predictions alone: what is advised differs with the depth that went, and candidates must learn alike to be compared. The
    teacher is asked once for each block: all candidates begin with the same ones, and read what it said to the first.
    """
    cache = spec.teacher_cache if spec.teacher_cache in STORED else CACHED
    return dataclasses.replace(spec, steps=steps, intermediate=(), teacher_cache=cache)


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """How the finalists of one search learn."""

    train_NT: np.ndarray
    """Blocks to learn from; none of those on which candidates are compared."""
    spec: DistillSpec
    """How to train; its steps are those of the first round."""
    checkpoints: Checkpoints
    """The cut candidates, beside which the trained ones lie until they are cleared; a resumed search goes on from them."""

    def learn(self, number: int, plan: Plan, turn: int, previewer: Previewer) -> dict[str, float]:
        """Figures of candidate ``number`` after the round ``turn``, from 0, on the previewer's one text; and its ``steps`` so far.

        Raises:
            UserError: see ``core.distill.trainer.distill``.
            Stopped: the previewer's progress asked for it; a checkpoint was saved.
        """
        model = load_model(self._checkpoint(number, plan, turn + 1, previewer), pick(previewer.device))
        learnt = {"turn": turn, "spec": self.spec.to_dict(), "text": tokens_hash(self.train_NT), "cut": self.checkpoints.identity(plan)}
        (figures,) = previewer.of(model, content_hash(learnt)).values()
        return {"steps": sum(self._steps(before) for before in range(turn + 1)), **{name: figures[name] for name in FIGURES}}

    def _checkpoint(self, number: int, plan: Plan, rounds: int, previewer: Previewer) -> Path:
        """The candidate after so many rounds; made if it is not there."""
        if not rounds:
            return self.checkpoints.cut(number, plan, previewer)
        place = self.checkpoints.place
        folder = place / f"{number}-{rounds}"
        if not folder.exists():
            spec = dataclasses.replace(self.spec, steps=self._steps(rounds - 1))
            distill(
                self._checkpoint(number, plan, rounds - 1, previewer), previewer.folder, self.train_NT, spec, folder,
                progress=previewer.progress, device=previewer.device, checkpoints=place / f"{number}-{rounds}-checkpoints",
            )  # fmt: skip
        return folder

    def _steps(self, turn: int) -> int:
        """Steps of a round, which are twice those of the one before."""
        return int(self.spec.steps * 2**turn)
