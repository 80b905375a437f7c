"""Lightweight retraining of the finalists, half of whom go after each round.

Minitron's best practice 9: rankings of candidates change in the first steps of retraining and then settle. So finalists learn from
the teacher for some steps, the worse half goes, and those that stay learn on for twice as many (successive halving, Jamieson and
Talwalkar, 1502.07943), until one is left or the order no longer changes.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from core.distill.trainer import distill
from core.evaluate.preview import Previewer
from core.evaluate.store import tokens_hash
from core.files import content_hash
from core.model.checkpoint import load_model
from core.model.device import pick
from core.plan.plan import Plan
from core.progress import Progress
from core.search.checkpoints import Checkpoints
from core.search.ledger import FIGURES, Row, standing, targets_of
from core.specs import DistillSpec, Targets

PHASE = "retrain"

Save = Callable[[], None]
"""Called after every figure that was added to a row."""


class Halving:
    """Successive halving of finalists."""

    def __init__(self, previewer: Previewer, train_NT: np.ndarray, spec: DistillSpec, checkpoints: Checkpoints, progress: Progress) -> None:
        """Make ready.

        Args:
            previewer: knows the teacher, and the blocks on which candidates are compared.
            train_NT: blocks to learn from; none of those.
            spec: how to train; its steps are those of the first round.
            checkpoints: the cut candidates, beside which the trained ones lie until ``run`` ends; a resumed one goes on from them.
            progress: hears of every training.
        """
        self.previewer, self.train_NT, self.spec, self.checkpoints, self.progress = previewer, train_NT, spec, checkpoints, progress

    def run(self, finalists: Sequence[Row], plans: Mapping[Targets, Plan], save: Save) -> None:
        """Retrain; ``row["retrained"]`` receives figures and ``steps`` so far after every round that a candidate was in.

        Raises:
            Stopped: progress asked for it; what was added to the rows stays.
        """
        stay, turn, done, total = list(finalists), 0, 0, trainings(len(finalists))
        while len(stay) > 1:
            before = [row["number"] for row in stay]
            for row in stay:
                self.progress.step(PHASE, done, total)
                rounds = row.setdefault("retrained", [])
                if len(rounds) <= turn:
                    rounds.append(self._round(row, plans[targets_of(row)], turn))
                    save()
                done += 1
            stay.sort(key=lambda row: standing(row, turn + 1))
            if turn and [row["number"] for row in stay] == before:
                break
            stay, turn = stay[: -(-len(stay) // 2)], turn + 1
        self.progress.step(PHASE, total, total)
        self.checkpoints.clear()

    def _round(self, row: Row, plan: Plan, turn: int) -> dict[str, float]:
        """One candidate's training of one round, and what it does afterwards."""
        model = load_model(self._checkpoint(row["number"], plan, turn + 1), pick(self.previewer.device))
        learnt = {"turn": turn, "spec": self.spec.to_dict(), "text": tokens_hash(self.train_NT), "cut": self.checkpoints.identity(plan)}
        (figures,) = self.previewer.of(model, content_hash(learnt)).values()
        return {"steps": sum(self._steps(before) for before in range(turn + 1)), **{name: figures[name] for name in FIGURES}}

    def _checkpoint(self, number: int, plan: Plan, rounds: int) -> Path:
        """The candidate after so many rounds; made if it is not there."""
        if not rounds:
            return self.checkpoints.cut(number, plan)
        place = self.checkpoints.place
        folder = place / f"{number}-{rounds}"
        if not folder.exists():
            spec = dataclasses.replace(self.spec, steps=self._steps(rounds - 1))
            distill(
                self._checkpoint(number, plan, rounds - 1), self.previewer.folder, self.train_NT, spec, folder, progress=self.progress,
                device=self.previewer.device, checkpoints=place / f"{number}-{rounds}-checkpoints",
            )  # fmt: skip
        return folder

    def _steps(self, turn: int) -> int:
        """Steps of a round, which are twice those of the one before."""
        return int(self.spec.steps * 2**turn)


def trainings(finalists: int) -> int:
    """How many trainings halving takes at most."""
    return 0 if finalists < 2 else finalists + trainings(-(-finalists // 2))
