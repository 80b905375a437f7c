"""How several students came closer to their teacher, in one picture: aligned by step, by what they read, or by how long it took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from core.report import format as fmt
from core.report.curves import Curves
from core.report.picture import Picture, plain
from core.report.run_figures import DASHES, LIGHT, SHAPES, Palette, references_of
from core.specs import RunSpec

ALONG = {"steps": "step", "tokens": "tokens learnt from", "minutes": "minutes of training"}
"""What runs can be aligned by -> title of the axis."""

ABOVE = "nats a token above the teacher"


@dataclass(frozen=True)
class Regrowth:
    """One run: what it is called, what it was to do, what its diary holds and what it found."""

    name: str
    spec: RunSpec
    curves: Curves
    results: Mapping[str, Any]


def regrowth_picture(runs: Sequence[Regrowth], domain: str, *, along: str = "steps", palette: Palette = LIGHT) -> Picture:
    """Held-out loss above the teacher's on the way, a line a run, from the pruned model on.

    Every run's loss is compared with its own teacher's on the very blocks on which it was measured.

    Args:
        runs: those that were not measured on ``domain`` on the way are left out.
        domain: held-out text.
        along: key of ``ALONG``.
        palette: colours.
    """
    figure, rows = go.Figure(), []
    for i, run in enumerate(runs):
        points = _points(run, domain, along)
        rows += [{"run": run.name, ALONG[along]: x, ABOVE: y} for x, y in points]
        color = palette.terms[i % len(palette.terms)]
        figure.add_scatter(
            x=[x for x, _ in points], y=[y for _, y in points], mode="lines+markers", name=run.name,
            line={"color": color, "width": 2.5, "dash": DASHES[i % len(DASHES)]}, marker={"symbol": SHAPES[i % len(SHAPES)], "size": 8, "color": color},
            hovertemplate="%{y:.3f} nats above the teacher at %{x}",
        )  # fmt: skip
    figure.add_hline(0, line={"color": palette.teacher, "dash": "dash", "width": 1}, annotation={"text": "teacher", "yshift": 8})
    plain(figure, 360).update_layout(
        hovermode="closest", showlegend=True, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"}
    )
    figure.update_xaxes(title_text=ALONG[along], rangemode="tozero")
    figure.update_yaxes(title_text=ABOVE, rangemode="tozero")
    table = pd.DataFrame(rows, columns=["run", ALONG[along], ABOVE])
    return Picture(figure=figure, alt=_said(table, domain), table=table)


def _points(run: Regrowth, domain: str, along: str) -> list[tuple[float, float]]:
    """(place, nats above the teacher): the pruned model's first, then those on the way; none if either end is not known."""
    references, heldout = references_of(run.results), run.curves.heldout.get(domain, [])
    teacher, pruned = (references.get(role, {}).get(domain) for role in ("teacher", "pruned"))
    if teacher is None or pruned is None or not heldout:
        return []
    return [(0.0, pruned - teacher)] + [(_place(run, step, along), loss - teacher) for step, loss, _ in heldout]


def _place(run: Regrowth, step: int, along: str) -> float:
    """Where on the axis a step lies."""
    distill = run.spec.distill
    if along == "tokens":
        return float(step * distill.batch_blocks * distill.accumulation * run.spec.data.seq_len)
    if along == "minutes":
        return _seconds(run.curves, step) / 60
    return float(step)


def _seconds(curves: Curves, step: int) -> float:
    """How long it was trained up to a step, from the first on; the time between a stop and its resume does not count."""
    times = dict(zip(curves.steps, curves.times, strict=True))
    stopped = sum(begun - times[last] for begun, last in curves.segments if last in times and last < step)
    return times.get(step, curves.times[-1]) - curves.times[0] - stopped


def _said(table: pd.DataFrame, domain: str) -> str:
    """Where each run ended."""
    if table.empty:
        return f"No run was measured on {domain} on the way."
    ends = [
        f"{name} from {fmt.nats(rows[ABOVE].iloc[0])} to {fmt.nats(rows[ABOVE].iloc[-1])}"
        for name, rows in table.groupby("run", sort=False)
    ]
    return f"Above the teacher on {domain}, on the blocks measured on the way: {fmt.listed(ends)}."
