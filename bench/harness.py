"""How everything here is measured: ratios within one process, interleaved repetitions, medians, the spread beside them."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from core.runs import machine


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One requirement, measured."""

    name: str
    value: float
    limit: str
    """``<= 1.15`` or ``>= 0.6`` or ``== 0``"""

    @property
    def ok(self) -> bool:
        """Whether the bar is met."""
        sign, bound = self.limit.split()
        return {"<=": self.value <= float(bound), ">=": self.value >= float(bound), "==": self.value == float(bound)}[sign]


@dataclass(kw_only=True)
class Outcome:
    """What one benchmark found."""

    settings: dict[str, Any] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Further tables of other columns, by title."""


def interleaved(
    actions: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter, *, warm: bool = True
) -> dict[str, list[float]]:
    """Seconds of each action, taken in turn, after one round that is not counted.

    Args:
        warm: whether there is such a round; where an action takes minutes, it may be left out.
        clock: ``time.process_time`` counts this process's own work, which says more where others work beside.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for round_ in range(0 if warm else 1, repeats + 1):
        for name, action in actions.items():
            began = clock()
            action()
            if round_:
                seconds[name].append(clock() - began)
    return seconds


def ratio(seconds: dict[str, list[float]], of: str, to: str) -> float:
    """Median of the ratios, round by round, so that a machine that grows slower does not favour anybody."""
    return statistics.median(first / second for first, second in zip(seconds[of], seconds[to], strict=True))


def timing_rows(seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Median, fastest and slowest of every action."""
    return [
        {"what": name, "median s": statistics.median(times), "min s": min(times), "max s": max(times), "repeats": len(times)}
        for name, times in seconds.items()
    ]


def show(name: str, outcome: Outcome, *, as_json: bool, quick: bool) -> bool:
    """Print an outcome; return whether every bar is met (a quick look judges nothing)."""
    bars = [asdict(bar) | {"ok": bar.ok} for bar in outcome.bars]
    about = machine.describe("cpu")
    if as_json:
        print(json.dumps({"machine": about, "settings": outcome.settings, "bars": bars, "rows": outcome.rows, "more": outcome.more}))
    else:
        console = Console()
        console.print(
            f"[bold]{name}[/] on {about['cpu']}, {about['cores']} cores, {time.strftime('%Y-%m-%d')} · {outcome.settings}", highlight=False
        )
        for title, rows in (("Bars" + (", not judged" if quick else ""), bars), ("Measured", outcome.rows), *outcome.more.items()):
            if rows:
                table = Table(title=title, title_justify="left")
                for column in rows[0]:
                    table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
                for row in rows:
                    table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
                console.print(table)
    return quick or all(bar.ok for bar in outcome.bars)
