"""What a run's events say over time, as plain lists that grow while the run works.

Events come in the order in which the worker wrote them. A resumed run goes back to its checkpoint, so a step that comes a
second time replaces the first and everything after it: the curve shown is the one that led to the model.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from core.specs import LOSSES, STATES

METRICS = ("loss", "kl", "ce", "learning_rate", "grad_norm", "tokens_per_second")
"""What every distillation step reports: three losses in nats a token, the rate, the gradient's norm, and the speed."""

TERMS = (*LOSSES, *STATES, "ce")
"""What a step may be learnt from; a step reports those that its run looks at."""

KEEP_STEPS = 20_000
"""Steps held in memory; beyond twice as many, the curve is thinned to this, extremes kept."""

KEEP_NOTES = 200
RECENT = 20
"""Events that the present speed is judged by."""


@dataclass(kw_only=True)
class PhaseSpan:
    """How far one phase came, and between which times (epoch seconds)."""

    started: float
    updated: float
    done: int
    total: int


@dataclass(kw_only=True)
class Curves:
    """Series of one run; grows by ``extend``."""

    steps: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    """Epoch seconds of each step."""
    series: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in METRICS})
    """Metric -> a value for each of ``steps``, NaN where it was not reported."""
    heldout: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)
    """Domain -> (step, loss, KL to the teacher), in nats a token."""
    samples: tuple[int, list[dict[str, str]]] | None = None
    """Step of the latest continuations, and the prompts with their ``text``."""
    phases: dict[str, PhaseSpan] = field(default_factory=dict)
    recent: list[tuple[float, int]] = field(default_factory=list)
    """(time, units done) of the last few events of the present phase."""
    segments: list[tuple[float, int]] = field(default_factory=list)
    """(time, last step before it) of every resume."""
    notes: list[tuple[float, str]] = field(default_factory=list)
    present: str = ""
    """The phase of the last event."""
    last_time: float | None = None
    events: int = 0
    """How many events were read: the version of everything drawn from here."""

    def extend(self, events: Iterable[dict[str, Any]]) -> "Curves":
        """Take in further events, in order; return the curves themselves."""
        for event in events:
            self.events += 1
            self.last_time = event.get("time", self.last_time)
            if "note" in event:
                self.notes = [*self.notes, (event["time"], event["note"])][-KEEP_NOTES:]
            elif "segment" in event:
                self._resume(event)
            elif "phase" in event:
                self._progress(event)
        if len(self.steps) > 2 * KEEP_STEPS:
            self._thin()
        return self

    def snapshot(self) -> "Curves":
        """The curves as they are now: what ``extend`` adds later does not reach them."""
        series = {name: list(values) for name, values in self.series.items()}
        return replace(self, steps=list(self.steps), times=list(self.times), series=series, heldout=dict(self.heldout),
                       phases=dict(self.phases), segments=list(self.segments))  # fmt: skip

    @property
    def terms(self) -> list[str]:
        """Terms of the loss that the run looks at, in the order of ``TERMS``."""
        return [name for name in TERMS if name in self.series and any(value == value for value in self.series[name])]

    def latest(self, metric: str) -> float | None:
        """The last reported value of a metric."""
        return next((value for value in reversed(self.series[metric]) if value == value), None)

    def seconds_per_unit(self) -> float | None:
        """Mean seconds of the last few units of the present phase, since the latest resume; None before two were done."""
        if len(self.recent) < 2:
            return None
        (began, first), (ended, last) = self.recent[0], self.recent[-1]
        return (ended - began) / (last - first) if last > first and ended > began else None

    def _resume(self, event: dict[str, Any]) -> None:
        """Remember where a further segment began; the first one is no resume."""
        self.recent = []
        if event["segment"] > 1 or self.phases:
            self.segments.append((event["time"], self.steps[-1] if self.steps else 0))

    def _progress(self, event: dict[str, Any]) -> None:
        """Take in one unit of a phase."""
        time, done, total = event["time"], event["done"], event["total"]
        goes_on = self.present == event["phase"] and self.recent and self.recent[-1][1] <= done
        self.present = event["phase"]
        self.recent = [*(self.recent if goes_on else []), (time, done)][-RECENT:]
        span = self.phases.get(event["phase"])
        started = span.started if span and done >= span.done else time
        self.phases[event["phase"]] = PhaseSpan(started=started, updated=time, done=done, total=total)
        if event["phase"] != "distill":
            return
        if any(name in event for name in METRICS):
            self._forget_from(done)
            self.steps.append(done)
            self.times.append(time)
            for name in (name for name in TERMS if name in event):
                self.series.setdefault(name, [float("nan")] * (len(self.steps) - 1))
            for name in self.series:
                value = event.get(name)
                self.series[name].append(float("nan") if value is None else float(value))
        for domain, measured in (event.get("heldout") or {}).items():
            earlier = [point for point in self.heldout.get(domain, []) if point[0] < done]
            self.heldout[domain] = [*earlier, (done, measured["loss"], measured.get("kl", float("nan")))]
        if event.get("samples"):
            self.samples = done, event["samples"]

    def _forget_from(self, step: int) -> None:
        """Drop what an earlier segment reported for ``step`` and what came after it."""
        if not self.steps or self.steps[-1] < step:
            return
        keep = int(np.searchsorted(self.steps, step))
        self.steps, self.times = self.steps[:keep], self.times[:keep]
        self.series = {name: values[:keep] for name, values in self.series.items()}
        self.heldout = {domain: [point for point in points if point[0] < step] for domain, points in self.heldout.items()}

    def _thin(self) -> None:
        """Keep ``KEEP_STEPS`` of the steps, the extremes of the KL among them."""
        kept = extremes(self.series["kl"], KEEP_STEPS)
        self.steps, self.times = [self.steps[i] for i in kept], [self.times[i] for i in kept]
        self.series = {name: [values[i] for i in kept] for name, values in self.series.items()}


def extremes(values: ArrayLike, limit: int) -> np.ndarray:
    """Indices of at most ``limit`` values that keep every bucket's smallest and largest, first and last, in order."""
    array = np.asarray(values, dtype=float)
    if len(array) <= limit:
        return np.arange(len(array))
    edges = np.linspace(0, len(array), max(1, (limit - 2) // 2) + 1, dtype=int)
    low = np.where(np.isnan(array), np.inf, array)
    high = np.where(np.isnan(array), -np.inf, array)
    picked = {0, len(array) - 1}
    for start, end in itertools.pairwise(edges):
        picked |= {int(start + low[start:end].argmin()), int(start + high[start:end].argmax())}
    return np.array(sorted(picked))


def smooth(values: Sequence[float] | np.ndarray, weight: float) -> np.ndarray:
    """Mean of all values, each weighted by ``weight`` to the power of its distance; 0 changes nothing, 0.99 is very smooth.

    Looking both ways keeps the curve from lagging behind; the newest point, which has no future yet, is the usual moving average.
    """
    array = np.asarray(values, dtype=float)
    there = ~np.isnan(array)
    value, mass = np.where(there, array, 0.0), there.astype(float)
    totals = [_trailing(x, weight) + _trailing(x[::-1], weight)[::-1] - x for x in (value, mass)]
    return np.divide(totals[0], totals[1], out=np.full(len(array), np.nan), where=totals[1] > 0)


def _trailing(values: np.ndarray, weight: float) -> np.ndarray:
    """Sum of each value and those before it, faded by ``weight`` a place: pandas' moving average, of which a new value is ``1 - weight``."""
    parts = values / (1 - weight)
    parts[:1] = values[:1]
    return pd.Series(parts).ewm(alpha=1 - weight, adjust=False).mean().to_numpy()


def envelope(values: ArrayLike, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest of the ``width`` values around each one; at the ends, of those that are there."""
    around = pd.Series(np.asarray(values, dtype=float)).rolling(width, center=True, min_periods=1)
    return around.min().to_numpy(), around.max().to_numpy()


def recovered(teacher: float | None, pruned: float | None, now: float | None) -> float | None:
    """Which part of the gap between pruned and teacher is closed, in nats; None where there is no gap to close."""
    if teacher is None or pruned is None or now is None or not pruned - teacher > 0:
        return None
    return (pruned - now) / (pruned - teacher)
