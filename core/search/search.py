"""The search itself: rank the pool by the estimate, measure the best by masks, learn from them, and go on until the budget is spent.

What is measured next follows from what was measured before and the seed alone, and a measured plan is never measured again, so
a search that was killed and resumed ends like one that was not.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.evaluate.store import Figures
from core.model.dims import Config
from core.plan.plan import Plan, make_plan
from core.progress import Progress
from core.score.store import Scores
from core.search import ledger
from core.search.choose import BATCH, estimator, next_batch
from core.search.damage import AXES, Remembered, losses_of
from core.search.ledger import FIGURES, Row
from core.search.rankings import Planned, Trial, next_trials
from core.search.space import Candidate, possible
from core.specs import NO_PINS, Pins, RankSpec, SearchSpec

PHASE = "search"

Measure = Callable[[Sequence[Plan]], Iterator[Figures]]
"""Measures plans, in their order."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """All candidates, what each would keep, and what it loses by that."""

    candidates: list[Candidate]
    plans: list[Plan]
    lost_NA: np.ndarray
    """See ``core.search.damage.losses_of``."""
    rank: RankSpec
    """The ranking that all of these follow."""
    offered: frozenset[str]
    """Criteria of layers that the scores hold."""
    planned: Planned
    """Plans other rankings."""

    def trials(self, places: Sequence[int]) -> list[Trial]:
        """Candidates by their places."""
        return [Trial(candidate=self.candidates[i], plan=self.plans[i], lost_A=self.lost_NA[i]) for i in places]


def pool_of(scores: Scores, config: Config, spec: SearchSpec, rank: RankSpec, pins: Pins = NO_PINS) -> Pool:
    """Everything under the budget, planned.

    Raises:
        UserError: see ``core.search.space.possible``, or ``rank`` asks for what was not measured.
    """
    remembered = Remembered(scores)

    def planned(candidate: Candidate, rank: RankSpec) -> Trial:
        plan = make_plan(remembered, config, candidate.targets, rank, pins)
        return Trial(candidate=candidate, plan=plan, lost_A=losses_of(plan, remembered))

    found = [planned(candidate, rank) for candidate in possible(config, spec, rank, pins)]
    return Pool(
        candidates=[one.candidate for one in found], plans=[one.plan for one in found], lost_NA=np.array([one.lost_A for one in found]), rank=rank,
        offered=frozenset(scores.offered("layers")), planned=planned,
    )  # fmt: skip


def search(pool: Pool, spec: SearchSpec, measure: Measure, folder: Path, progress: Progress, teacher: Figures | None = None) -> list[Row]:
    """Measure ``spec.evaluations`` candidates and return them, in the order of measuring: sizes first, then other rankings of the best.

    Args:
        pool: see ``pool_of``.
        measure: gives loss and divergence of plans on the blocks of the comparison.
        folder: receives the ledger after every candidate.
        progress: hears of every candidate.
        teacher: its figures on the same blocks, for the ledger.

    Raises:
        Stopped: progress asked for it; the ledger holds what was measured.
    """
    work = _Search(pool, spec, folder, teacher or {})
    progress.step(PHASE, 0, work.total)
    while batch := work.next():
        if work.overdue():
            progress.note(f"The time of {spec.minutes:g} minutes is spent; the best of {len(work.rows)} measured candidates is kept.")
            break
        for trial, figures in zip(batch, measure([trial.plan for trial in batch]), strict=True):
            work.add(trial, figures)
            progress.step(PHASE, len(work.rows), work.total, kl=figures["kl_nats"])
    return work.explained()


class _Search:
    """What was measured so far, and what comes next."""

    def __init__(self, pool: Pool, spec: SearchSpec, folder: Path, teacher: Figures) -> None:
        self.pool, self.spec, self.folder, self.teacher = pool, spec, folder, teacher
        self.rows: list[Row] = []
        self.tried: list[Trial] = []
        self._before: dict[int, float] = {}
        """What was measured when the present batch was chosen."""
        self.total = min(spec.sized, len(pool.candidates)) + spec.ranked
        self._book, self._began = ledger.read(folder), time.monotonic()
        self._places = {candidate.targets: i for i, candidate in enumerate(pool.candidates)}

    @property
    def measured(self) -> dict[int, float]:
        """Place in the pool -> divergence, of those that follow its ranking."""
        return {self._places[one.candidate.targets]: one.kl_nats for one in self.tried if one.plan.rank == self.pool.rank}

    def next(self) -> list[Trial]:
        """What to measure next; nothing once the budget is spent."""
        self._before = self.measured
        if batch := next_batch(self.pool.lost_NA, self._before, self.spec):
            return self.pool.trials(batch)
        left = self.total - len(self.tried)
        return next_trials(self.tried, self.pool.offered, self.pool.planned, min(left, BATCH))

    def overdue(self) -> bool:
        """Whether the time is spent; what was measured before costs none."""
        return len(self.rows) >= len(self._book["rows"]) and self.spec.minutes is not None and self._seconds > 60 * self.spec.minutes

    @property
    def _seconds(self) -> float:
        return float(self._book["seconds"]) + time.monotonic() - self._began

    def add(self, trial: Trial, figures: Figures) -> None:
        """Take down what was measured."""
        estimate = float(estimator(self.pool.lost_NA, self._before).total(trial.lost_A[None])[0])
        self.tried.append(dataclasses.replace(trial, kl_nats=figures["kl_nats"]))
        self.rows.append(_row(len(self.rows) + 1, trial, self.pool.rank, estimate, figures))
        if len(self.rows) > len(self._book["rows"]):
            rows = self.explained()
            ledger.write(self.folder, pool=len(self.pool.candidates), seconds=self._seconds, teacher=self.teacher, rows=rows)

    def explained(self) -> list[Row]:
        """The rows with what each axis is now thought to cost."""
        if not self.tried:
            return []
        parts_NA = estimator(self.pool.lost_NA, self.measured).parts(np.array([trial.lost_A for trial in self.tried]))
        return [row | {"parts": dict(zip(AXES, parts_A.tolist(), strict=True))} for row, parts_A in zip(self.rows, parts_NA, strict=True)]


def estimates_of(pool: Pool, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The whole pool with what the measured candidates taught of it, the best estimate first."""
    places = {candidate.targets: i for i, candidate in enumerate(pool.candidates)}
    measured = {places[ledger.targets_of(row)]: row["kl_nats"] for row in rows if not row.get("rank")}
    estimate_N = estimator(pool.lost_NA, measured).total(pool.lost_NA)
    return [
        {"targets": one.targets.to_dict(), "parameters": one.parameters, "flops": one.flops, "estimate": float(estimate_N[i])}
        for i in np.argsort(estimate_N, kind="stable")
        for one in [pool.candidates[i]]
    ]


def _row(number: int, trial: Trial, usual: RankSpec, estimate: float, figures: Figures) -> Row:
    one, rank = trial.candidate, trial.plan.rank
    row = {"number": number, "targets": one.targets.to_dict(), "parameters": one.parameters, "flops": one.flops, "estimate": estimate}
    return row | ({} if rank == usual else {"rank": rank.to_dict()}) | {name: figures[name] for name in FIGURES}
