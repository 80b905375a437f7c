"""The search itself: rank the pool by the estimate, measure the best by masks, learn from them, and go on until the budget is spent.

What is measured next follows from what was measured before and the seed alone, and a measured plan is never measured again, so
a search that was killed and resumed ends like one that was not.
"""

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
from core.search.choose import estimator, next_batch
from core.search.damage import AXES, Remembered, losses_of
from core.search.ledger import FIGURES, Row
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


def pool_of(scores: Scores, config: Config, spec: SearchSpec, rank: RankSpec, pins: Pins = NO_PINS) -> Pool:
    """Everything under the budget, planned.

    Raises:
        UserError: see ``core.search.space.possible``, or ``rank`` asks for what was not measured.
    """
    remembered, found = Remembered(scores), possible(config, spec, rank, pins)
    plans = [make_plan(remembered, config, candidate.targets, rank, pins) for candidate in found]
    return Pool(candidates=found, plans=plans, lost_NA=np.array([losses_of(plan, remembered) for plan in plans]))


def search(pool: Pool, spec: SearchSpec, measure: Measure, folder: Path, progress: Progress, teacher: Figures | None = None) -> list[Row]:
    """Measure ``spec.evaluations`` candidates and return them, in the order of measuring.

    Args:
        pool: see ``pool_of``.
        measure: gives loss and divergence of plans on the blocks of the comparison.
        folder: receives the ledger after every candidate.
        progress: hears of every candidate.
        teacher: its figures on the same blocks, for the ledger.

    Raises:
        Stopped: progress asked for it; the ledger holds what was measured.
    """
    book, began = ledger.read(folder), time.monotonic()
    rows: list[Row] = []
    measured: dict[int, float] = {}
    total = min(spec.evaluations, len(pool.candidates))
    progress.step(PHASE, 0, total)
    while batch := next_batch(pool.lost_NA, measured, spec):
        seconds = book["seconds"] + time.monotonic() - began
        if len(rows) >= len(book["rows"]) and spec.minutes is not None and seconds > 60 * spec.minutes:
            progress.note(f"The time of {spec.minutes:g} minutes is spent; the best of {len(rows)} measured candidates is kept.")
            break
        estimates = estimator(pool.lost_NA, measured).total(pool.lost_NA)
        for place, figures in zip(batch, measure([pool.plans[i] for i in batch]), strict=True):
            measured[place] = figures["kl_nats"]
            rows.append(_row(len(rows) + 1, pool.candidates[place], float(estimates[place]), figures))
            if len(rows) > len(book["rows"]):
                seconds = book["seconds"] + time.monotonic() - began
                ledger.write(
                    folder, pool=len(pool.candidates), seconds=seconds, teacher=teacher or {}, rows=_explained(rows, pool, measured)
                )
            progress.step(PHASE, len(rows), total, kl=figures["kl_nats"])
    return _explained(rows, pool, measured)


def estimates_of(pool: Pool, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The whole pool with what the measured candidates taught of it, the best estimate first."""
    places = {candidate.targets: i for i, candidate in enumerate(pool.candidates)}
    measured = {places[ledger.targets_of(row)]: row["kl_nats"] for row in rows}
    estimate_N = estimator(pool.lost_NA, measured).total(pool.lost_NA)
    return [
        {"targets": one.targets.to_dict(), "parameters": one.parameters, "flops": one.flops, "estimate": float(estimate_N[i])}
        for i in np.argsort(estimate_N, kind="stable")
        for one in [pool.candidates[i]]
    ]


def _row(number: int, candidate: Candidate, estimate: float, figures: Figures) -> Row:
    return {
        "number": number, "targets": candidate.targets.to_dict(), "parameters": candidate.parameters, "flops": candidate.flops, "estimate": estimate,
        **{name: figures[name] for name in FIGURES},
    }  # fmt: skip


def _explained(rows: list[Row], pool: Pool, measured: dict[int, float]) -> list[Row]:
    """The rows with what each axis is now thought to cost."""
    parts_NA = estimator(pool.lost_NA, measured).parts(pool.lost_NA[list(measured)])
    return [row | {"parts": dict(zip(AXES, parts_A.tolist(), strict=True))} for row, parts_A in zip(rows, parts_NA, strict=True)]
