"""Lightweight retraining of the finalists, half of whom go after each round.

Minitron's best practice 9: rankings of candidates change in the first steps of retraining and then settle. So finalists learn from
the teacher for some steps, the worse half goes, and those that stay learn on for twice as many (successive halving, Jamieson and
Talwalkar, 1502.07943), until one is left or the order no longer changes.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from core.plan.plan import Plan
from core.progress import Progress
from core.search.finals import Save
from core.search.fleet import Each
from core.search.ledger import Row, standing
from core.search.lesson import Lessons

PHASE = "retrain"


class Halving:
    """Successive halving of finalists."""

    def __init__(self, lessons: Lessons, each: Each, progress: Progress) -> None:
        """Make ready.

        Args:
            lessons: how a candidate learns for a round.
            each: who lets the candidates of a round learn, see ``core.search.fleet.doing``.
            progress: hears of every training that has ended.
        """
        self.lessons, self.each, self.progress = lessons, each, progress

    def run(self, finalists: Sequence[Row], plans: Mapping[int, Plan], save: Save) -> None:
        """Retrain; ``row["retrained"]`` receives figures and ``steps`` so far after every round that a candidate was in.

        Raises:
            UserError: see ``Lessons.learn`` and ``core.search.fleet``.
            Stopped: progress asked for it; what was added to the rows stays.
        """
        stay, turn, done, total = list(finalists), 0, 0, trainings(len(finalists))
        while len(stay) > 1:
            before = [row["number"] for row in stay]
            self._round(stay, plans, turn, save, done, total)
            done += len(stay)
            stay.sort(key=lambda row: standing(row, turn + 1))
            if turn and [row["number"] for row in stay] == before:
                break
            stay, turn = stay[: -(-len(stay) // 2)], turn + 1
        self.progress.step(PHASE, total, total)
        self.lessons.checkpoints.clear()

    def _round(self, stay: Sequence[Row], plans: Mapping[int, Plan], turn: int, save: Save, done: int, total: int) -> None:
        """Let all that stay learn, unless they have."""
        left = [row for row in stay if len(row.setdefault("retrained", [])) <= turn]
        done += len(stay) - len(left)
        self.progress.step(PHASE, done, total)
        learnt = self.each([partial(self.lessons.learn, row["number"], plans[row["number"]], turn) for row in left])
        for finished, (row, figures) in enumerate(zip(left, learnt, strict=True), done + 1):
            row["retrained"].append(figures)
            save()
            self.progress.step(PHASE, finished, total)


def trainings(finalists: int) -> int:
    """How many trainings halving takes at most."""
    return 0 if finalists < 2 else finalists + trainings(-(-finalists // 2))
