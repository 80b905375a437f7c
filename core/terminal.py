"""What the command line shows: progress bars while a run works, tables when it is done."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from core.model.card import Card
from core.model.cost import Cost
from core.report import format as fmt
from core.report.tables import domains_of, model_rows, quality_rows

console = Console(width=None if Console().is_terminal else 165)
errors = Console(stderr=True)

NUMERIC = set("0123456789+−–≈")
"""What a written number begins with."""

SHOWN = {"loss": "loss {:.3f}", "tokens_per_second": "{:.0f} tokens/s"}
"""Metric -> how a progress bar shows it."""


class Terminal:
    """Progress as bars, one a phase; where nobody looks (a log file), only the sentences and each phase's end."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(), TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        """Move a phase's bar."""
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total, figures="")
        figures = " · ".join(text.format(metrics[name]) for name, text in SHOWN.items() if metrics.get(name) is not None)
        self._bars.update(self._tasks[phase], completed=done, total=total)
        if figures:
            self._bars.update(self._tasks[phase], figures=figures)
        if not console.is_terminal and done >= total:
            console.print(f"{phase}: {done} of {total}")

    def note(self, message: str) -> None:
        """Print a sentence above the bars."""
        self._bars.console.print(message, highlight=False)


def table(title: str, rows: list[dict[str, str]]) -> None:
    """Print rows as a table."""
    if not rows:
        return
    shown = Table(title=title, title_justify="left", header_style="bold")
    for name in rows[0]:
        numeric = all(row[name][:1] in NUMERIC for row in rows)
        shown.add_column(name, justify="right" if numeric else "left", no_wrap=numeric)
    for row in rows:
        shown.add_row(*row.values())
    console.print(shown)


def show_results(results: dict[str, Any]) -> None:
    """Print what a run measured."""
    table("Models", model_rows(results))
    for domain in domains_of(results):
        table(f"On held-out {domain}", quality_rows(results, domain))
    for domain, share in (results.get("recovered") or {}).items():
        console.print(f"Recovered on {domain}: {fmt.percent(share)} of the loss that the cut had cost.")


def show_card(card: Card) -> None:
    """Print a model's architecture card."""
    dims = [{"dimension": row.what, "config key": row.key, "size": f"{row.size:,}", "can be cut to": row.rule} for row in card.cuttable]
    table(f"{card.name} ({card.family}{', tied head' if card.tied else ''}, {card.dtype})", dims)
    table(
        "Parameters",
        [{"part": part, "parameters": f"{size:,}", "share": fmt.percent(size / card.cost.parameters)} for part, size in card.parts.items()],
    )
    show_costs({"": card.cost})


def show_costs(costs: dict[str, Cost]) -> None:
    """Print costs side by side."""
    rows = {
        "parameters": lambda cost: f"{cost.parameters:,}",
        "without embedding": lambda cost: f"{cost.non_embedding_parameters:,}",
        "weights, bfloat16": lambda cost: fmt.size(cost.weight_bytes("bfloat16")),
        "FLOPs a token": lambda cost: fmt.count(cost.flops_per_token()),
        "KV-cache a token": lambda cost: fmt.size(cost.kv_bytes_per_token),
    }
    table("Cost (exact)", [{"": name} | {role or "value": show(cost) for role, cost in costs.items()} for name, show in rows.items()])
