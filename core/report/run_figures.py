"""Pictures of a run: training divergence, held-out loss between its two reference lines, quality against size.

Pure functions from numbers to a ``Picture``. The teacher is always dashed ink or a star, the pruned model hollow and
dotted, the distilled one filled and solid, so nothing is told by colour alone. Colours are Okabe and Ito's, lightened for
dark pages; surfaces, fonts and grids are left to whoever shows the figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.report import format as fmt
from core.report.curves import Curves, envelope, extremes, recovered, smooth
from core.report.measures import COSTS, QUALITIES, Measure, front
from core.report.picture import CLEAR, NEUTRAL, Picture

MAX_POINTS = 800
"""Points a series; more cannot be told apart on a screen."""

References = Mapping[str, Mapping[str, float]]
"""``teacher`` and ``pruned`` -> held-out domain -> loss in nats a token."""


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colours that carry meaning, in one scheme."""

    teacher: str
    pruned: str
    distilled: str
    terms: tuple[str, ...]
    """Of curves that are told apart by dash too."""


LIGHT = Palette(
    teacher="#1F2421", pruned="#D55E00", distilled="#0072B2", terms=("#0072B2", "#D55E00", "#009E73", "#A8568A", "#B07A00", "#1F2421")
)
DARK = Palette(
    teacher="#ECEFEC", pruned="#E8833A", distilled="#56B4E9", terms=("#56B4E9", "#E8833A", "#2FBF94", "#DD9CC4", "#E6B34D", "#ECEFEC")
)

SHAPES = ("circle", "square", "diamond", "triangle-up")
"""A shape for each compared run."""

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

TERM_NAMES = {
    "kl": "Forward KL", "reverse_kl": "Reverse KL", "jsd": "Jensen-Shannon", "skew_kl": "Skewed KL", "mse": "Squared error of logits", "cosine": "Cosine of probabilities",
    "top_k": "Forward KL, top k", "sampled": "Forward KL, sampled", "ce": "Cross-entropy", "output": "Block output", "input": "MLP input", "embedding": "Embedding",
    "attention": "Attention relations",
}  # fmt: skip
"""Term of the loss -> what people read."""

ROLES = {"teacher": "Teacher", "pruned": "Pruned, not retrained", "distilled": "Distilled"}
CUT, REPAIRED = "Cut, before repair", "Repaired, not retrained"
"""What a repaired run has in the place of the pruned model: two models."""
"""Name in results.json -> what people read."""


def training_picture(
    curves: Curves, *, window: int | None = None, log: bool = True, smoothing: float = 0.6, palette: Palette = LIGHT
) -> Picture:
    """Divergence from the teacher at every step: raw, smoothed, and the range that the raw values keep to.

    Args:
        curves: what was read of the run's events.
        window: show the last so many steps only; None shows all.
        log: logarithmic vertical axis.
        smoothing: weight of the moving average, 0 to 0.99.
        palette: colours.
    """
    steps, values = np.array(curves.steps, dtype=int), np.array(curves.series["kl"], dtype=float)
    bold = smooth(values, smoothing)
    start = int(np.searchsorted(steps, steps[-1] - window + 1)) if window and len(steps) else 0
    steps, values, bold = steps[start:], values[start:], bold[start:]
    figure = _figure(x="step", y="KL to the teacher, nats a token")
    if len(steps) > 2:
        _band(figure, steps, values, palette)
    mode = "lines" if len(steps) > 1 else "markers"
    raw, calm = extremes(values, MAX_POINTS), extremes(bold, MAX_POINTS)
    figure.add_scatter(
        x=steps[raw], y=values[raw], name="each step", mode=mode, line={"color": palette.distilled, "width": 1}, opacity=0.35
    )
    figure.add_scatter(x=steps[calm], y=bold[calm], name="smoothed", mode=mode, line={"color": palette.distilled, "width": 2.5})
    for _, step in curves.segments:
        if len(steps) and step >= steps[0]:
            figure.add_vline(step, line={"color": NEUTRAL, "dash": "dot", "width": 1}, annotation={"text": "resumed"})
    figure.update_yaxes(type="log" if log else "linear", exponentformat="none")
    table = pd.DataFrame({"step": steps[raw], "KL, nats": values[raw], "smoothed, nats": bold[raw]})
    return Picture(figure=figure, alt=_training_takeaway(steps, bold), table=table)


def terms_picture(curves: Curves, *, log: bool = True, smoothing: float = 0.6, palette: Palette = LIGHT) -> Picture:
    """Every term of the loss at every step, smoothed, each with a colour and a dash of its own."""
    steps = np.array(curves.steps, dtype=int)
    figure = _figure(x="step", y="value a token")
    table: dict[str, Any] = {"step": steps}
    for i, name in enumerate(curves.terms):
        values = smooth(np.array(curves.series[name], dtype=float), smoothing)
        kept = extremes(values, MAX_POINTS)
        figure.add_scatter(
            x=steps[kept], y=values[kept], name=TERM_NAMES[name], mode="lines" if len(steps) > 1 else "markers",
            line={"width": 2, "dash": DASHES[i % len(DASHES)], "color": palette.terms[i % len(palette.terms)]},
        )  # fmt: skip
        table[TERM_NAMES[name]] = values
    figure.update_yaxes(type="log" if log else "linear", tickformat="~g", dtick="D2" if log else None)
    ends = [f"{TERM_NAMES[name]} {curves.series[name][-1]:.3g}" for name in curves.terms]
    return Picture(figure=figure, alt=f"Every term of the loss; at the last step {', '.join(ends)}.", table=pd.DataFrame(table))


def heldout_picture(curves: Curves, references: References, *, estimated: bool = False, palette: Palette = LIGHT) -> Picture:
    """Held-out loss of every domain, a panel each, between the pruned model's line and the teacher's.

    Args:
        curves: what was read of the run's events.
        references: the two lines.
        estimated: the lines were measured on other blocks of the same text than the points, so the part recovered carries ``≈``.
        palette: colours.
    """
    domains = list(curves.heldout) or list(references.get("teacher", {}))
    titles = [_panel_title(domain, curves, references, estimated) for domain in domains]
    figure = make_subplots(rows=1, cols=max(1, len(domains)), subplot_titles=titles or None, horizontal_spacing=0.09)
    _dress(figure)
    for column, domain in enumerate(domains, start=1):
        points = curves.heldout.get(domain, [])
        end = max([point[0] for point in points] + [curves.phases["distill"].total if "distill" in curves.phases else 1])
        for role, dash, color in (
            ("cut", "dashdot", palette.pruned),
            ("pruned", "dot", palette.pruned),
            ("teacher", "dash", palette.teacher),
        ):
            if (level := references.get(role, {}).get(domain)) is not None:
                _reference(figure, level, role, role_title(role, references), dash, color, column, end)
        figure.add_scatter(
            x=[point[0] for point in points], y=[point[1] for point in points], mode="lines+markers", name=ROLES["distilled"],
            line={"color": palette.distilled, "width": 2.5}, marker={"size": 8, "color": palette.distilled},
            showlegend=column == 1, legendgroup="distilled", cliponaxis=False, row=1, col=column,
        )  # fmt: skip
        figure.update_xaxes(title="step", row=1, col=column, range=[0, end])
        figure.update_yaxes(
            range=_padded([point[1] for point in points] + [lines[domain] for lines in references.values() if domain in lines]),
            row=1,
            col=column,
        )
    figure.update_yaxes(title="loss, nats a token", col=1)
    figure.update_layout(margin={"t": 72, "r": 56}, legend={"y": 1.12})
    return Picture(figure=figure, alt="Held-out loss. " + ". ".join(titles) + ".", table=_heldout_table(curves, references))


def quality_picture(
    runs: Sequence[Mapping[str, Any]], domain: str, *, across: str = "parameters", up: str = "above", palette: Palette = LIGHT
) -> Picture:
    """Quality against size, or against another cost, for every model of some runs, with the front that none of them beats.

    Args:
        runs: ``{"name": str, "results": results.json's data}`` each; a name may be empty.
        domain: held-out text to show.
        across: key of ``measures.COSTS``.
        up: key of ``measures.QUALITIES``.
        palette: colours.
    """
    cost, quality = COSTS[across], QUALITIES[up]
    figure = _figure(x=cost.title, y=f"{quality.title} on {domain}")
    if up == "above":
        figure.add_hline(0, line={"color": palette.teacher, "dash": "dash", "width": 1})
    rows: list[dict[str, Any]] = []
    marks: list[tuple[tuple[float, float], str, str, str, str]] = []
    for i, run in enumerate(runs):
        found = {role: _point(run["results"], role, domain, cost, quality) for role in ROLES}
        path = [point for role, point in found.items() if point and role != "teacher"]
        figure.add_scatter(x=[p[0] for p in path], y=[p[1] for p in path], mode="lines", hoverinfo="skip", showlegend=False,
                           line={"color": NEUTRAL, "width": 1, "dash": "dot"})  # fmt: skip
        for role, point in found.items():
            title = role_title(role, run["results"])
            name = title if role == "teacher" or not run["name"] else f"{run['name']}, {title.lower()}"
            row = {"model": name, cost.title: point and point[0], quality.title: point and point[1]}
            if point and row not in rows:
                rows.append(row)
                marks.append((point, role, name, SHAPES[i % len(SHAPES)], getattr(palette, role)))
    best = front([mark[0] for mark in marks], cost, quality)
    if len(best) > 1:
        x, y = zip(*(marks[i][0] for i in best), strict=True)
        figure.add_scatter(x=x, y=y, mode="lines", name="best trades", line={"color": NEUTRAL, "width": 2}, opacity=0.7, hoverinfo="skip")
    for i, (point, role, name, shape, color) in enumerate(marks):
        _mark(figure, point, role, name, shape, color, f"{cost.write(point[0])}<br>{quality.write(point[1])}", beaten=i not in best)
    figure.update_layout(hovermode="closest", legend={"x": 0, "xanchor": "left", "itemsizing": "constant"})
    figure.update_xaxes(tickformat="~s")
    table = pd.DataFrame(rows).assign(best=[i in best for i in range(len(rows))]) if rows else pd.DataFrame(rows)
    return Picture(figure=figure, alt=_quality_takeaway(runs, domain, cost, quality), table=table)


def _heldout_table(curves: Curves, references: References) -> pd.DataFrame:
    """The numbers of the held-out picture, a row a measurement."""
    return pd.DataFrame(
        {
            "domain": domain, "step": step, "loss, nats": loss, "KL, nats": kl,
            "gap recovered": recovered_by(references, domain, loss),
        }
        for domain, points in curves.heldout.items()
        for step, loss, kl in points
    )  # fmt: skip


def _figure(*, x: str, y: str) -> go.Figure:
    """An empty figure with titled axes."""
    figure = _dress(go.Figure())
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    return figure


def _dress(figure: go.Figure) -> go.Figure:
    """The look that all figures of a run share."""
    figure.update_layout(
        height=360, margin={"l": 64, "r": 16, "t": 40, "b": 48}, hovermode="x unified", uirevision="run", separators=". ", dragmode="zoom",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
    )  # fmt: skip
    figure.update_xaxes(zeroline=False, showgrid=False)
    return figure.update_yaxes(zeroline=False, hoverformat=".4f")


def _band(figure: go.Figure, steps: np.ndarray, values: np.ndarray, palette: Palette) -> None:
    """The range of the raw values around each step, as a faint area."""
    low, high = envelope(values, max(3, len(values) // 25))
    kept = extremes(high, MAX_POINTS // 2)
    red, green, blue = (int(palette.distilled[i : i + 2], 16) for i in (1, 3, 5))
    figure.add_scatter(x=steps[kept], y=high[kept], line={"width": 0, "color": CLEAR}, hoverinfo="skip", showlegend=False, mode="lines")
    figure.add_scatter(x=steps[kept], y=low[kept], line={"width": 0, "color": CLEAR}, hoverinfo="skip", fill="tonexty", name="range", mode="lines",
                       fillcolor=f"rgba({red},{green},{blue},0.14)")  # fmt: skip


def _reference(figure: go.Figure, level: float, role: str, title: str, dash: str, color: str, column: int, end: int) -> None:
    """A horizontal line with its value written at its end."""
    figure.add_scatter(
        x=[0, end], y=[level, level], mode="lines+text", text=["", f" {level:.2f}"], textposition="middle right",
        textfont={"color": color}, line={"color": color, "dash": dash, "width": 1.5}, name=title, legendgroup=role,
        showlegend=column == 1, row=1, col=column, cliponaxis=False,
    )  # fmt: skip


def _padded(values: Sequence[float]) -> list[float] | None:
    """An axis range with some air around the values; None lets Plotly choose."""
    room = 0.08 * (max(values) - min(values)) if values else 0
    return [min(values) - room, max(values) + room] if room else None


def _mark(figure: go.Figure, point: tuple[float, float], role: str, name: str, shape: str, color: str, said: str, *, beaten: bool) -> None:
    """One model: star, hollow or filled; faint where another beats it on both axes."""
    symbol = {"teacher": "star", "pruned": shape + "-open"}.get(role, shape)
    figure.add_scatter(
        x=[point[0]], y=[point[1]], mode="markers", name=name, opacity=0.5 if beaten else 1.0, hovertemplate=said,
        marker={"symbol": symbol, "size": 14, "color": color, "line": {"color": color, "width": 2.5}},
    )  # fmt: skip


def _point(results: Mapping[str, Any], role: str, domain: str, cost: Measure, quality: Measure) -> tuple[float, float] | None:
    """Where one model lies, or None where it was not measured."""
    x, y = cost.read(results, role, domain), quality.read(results, role, domain)
    return None if x is None or y is None else (x, y)


def loss_of(results: Mapping[str, Any], role: str, domain: str) -> float | None:
    """Held-out loss of one model in nats a token, or None where it was not measured."""
    return ((results.get(role) or {}).get("heldout") or {}).get(domain, {}).get("loss_nats")


def references_of(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The lines that held-out loss moves between, from results.json's data (empty where not measured yet); of a repaired run also ``cut``.

    While a run trains it looks at a few blocks only; ``glance`` holds the models before training on those very blocks.
    """
    roles = ("teacher", "pruned", "cut") if results.get("cut") else ("teacher", "pruned")
    if glance := results.get("glance"):
        return {role: dict(glance.get(role) or {}) for role in roles}
    return {
        role: {domain: measured["loss_nats"] for domain, measured in ((results.get(role) or {}).get("heldout") or {}).items()}
        for role in roles
    }


def recovered_by(references: References, domain: str, loss: float | None) -> float | None:
    """Part of what the cut lost that is back at a loss; counted from the cut model where that is known, as in the results."""
    lowest = references.get("cut", {}).get(domain, references.get("pruned", {}).get(domain))
    return recovered(references.get("teacher", {}).get(domain), lowest, loss)


def role_title(role: str, results: Mapping[str, Any]) -> str:
    """What a model of a run is called; one that was repaired is not called merely pruned."""
    if results.get("cut") and role in ("cut", "pruned"):
        return CUT if role == "cut" else REPAIRED
    return ROLES[role]


def _panel_title(domain: str, curves: Curves, references: References, estimated: bool) -> str:
    """A domain's name and how much of its gap is closed."""
    points = curves.heldout.get(domain, [])
    part = recovered_by(references, domain, points[-1][1] if points else None)
    return domain if part is None else f"{domain}: {'≈ ' if estimated else ''}{100 * part:.0f} % of the gap recovered"


def _training_takeaway(steps: np.ndarray, bold: np.ndarray) -> str:
    """What the training curve says, in a sentence."""
    seen = bold[~np.isnan(bold)]
    if not len(seen):
        return "Training divergence from the teacher: no step yet."
    return f"KL to the teacher went from {fmt.nats(seen[0])} at step {steps[0]} to {fmt.nats(seen[-1])} at step {steps[-1]}, smoothed."


def _quality_takeaway(runs: Sequence[Mapping[str, Any]], domain: str, cost: Measure, quality: Measure) -> str:
    """What the quality picture says, a clause a run."""
    clauses = []
    for run in runs:
        found = {role: point for role in ROLES if role != "teacher" and (point := _point(run["results"], role, domain, cost, quality))}
        if found:
            role, (x, y) = list(found.items())[-1]
            clauses.append(f"{run['name'] or 'the model'}: {cost.write(x)}, {quality.write(y)} ({role})")
    return f"{quality.title} against {cost.title} on {domain}: ".capitalize() + ("; ".join(clauses) or "nothing measured") + "."
