"""Which layers, heads and neurons go, for the sizes that were found best: other rankings of them, measured like any candidate.

Inside one budget the best sizes differ little, and what a criterion makes of them differs more (docs/LOG.md). So the last
measurements go to plans of the best sizes by other criteria that the stored scores offer, one change at a time, and to the next best
sizes by the ranking that won. What comes next follows from what was measured alone.
"""

import dataclasses
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from core.plan.plan import Plan
from core.search.space import Candidate
from core.specs import RankSpec

DEPTH = ("angle", "window", "greedy", "kl", "ppl", "bi")
"""Criteria of layers in the order in which they are tried: runs of neighbouring layers first, which are least like single ones."""
SEQUENCE = ("l2", "mean")
"""Aggregations over the tokens of a block, for criteria that aggregate activations."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Sizes, planned by a ranking."""

    candidate: Candidate
    plan: Plan
    lost_A: np.ndarray
    """See ``core.search.damage.losses_of``."""
    kl_nats: float = float("nan")
    """Divergence from the teacher, once it was measured."""


Planned = Callable[[Candidate, RankSpec], Trial]


def next_trials(measured: Sequence[Trial], offered: Container[str], planned: Planned, count: int) -> list[Trial]:
    """At most ``count`` plans that were not measured yet, from the most promising on.

    Args:
        measured: all that was measured so far.
        offered: the criteria of layers that the scores hold.
        planned: makes the plan of some sizes by a ranking.
    """
    known = {trial.plan.identity for trial in measured}
    found: list[Trial] = []
    for candidate, rank in _promising(measured, offered) if count > 0 else ():
        trial = planned(candidate, rank)
        if trial.plan.identity not in known:
            known.add(trial.plan.identity)
            found.append(trial)
        if len(found) == count:
            break
    return found


def _promising(measured: Sequence[Trial], offered: Container[str]) -> Iterator[tuple[Candidate, RankSpec]]:
    """Of every plan, the best first: its sizes by the ranking of the best, then by those that differ from its own in one thing."""
    ordered = sorted(measured, key=lambda trial: trial.kl_nats)
    for trial in ordered:
        yield trial.candidate, ordered[0].plan.rank
        yield from ((trial.candidate, rank) for rank in others_of(trial.plan, offered))


def others_of(plan: Plan, offered: Container[str]) -> list[RankSpec]:
    """Rankings that differ from the plan's in one thing which its cut depends on."""
    rank = plan.rank
    depth = [name for name in DEPTH if name in offered and name != rank.depth] if len(plan.layers) < plan.source.layers else []
    by_activation = "activation" in (rank.heads, rank.neurons, rank.channels)
    sequence = [name for name in SEQUENCE if name != rank.sequence] if by_activation else []
    return [rank.by("layers", name) for name in depth] + [dataclasses.replace(rank, sequence=name) for name in sequence]
