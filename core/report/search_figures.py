"""Pictures of a search: quality against size, and every measured candidate across all its dimensions.

Measured candidates are filled circles on the front and hollow ones off it, the best is a star, sizes that were only estimated are
small crosses, and what the viewer picked is vermilion and larger. Nothing is told by colour alone.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core.model.dims import CONFIG_KEYS, Dims
from core.report import format as fmt
from core.report.picture import CLEAR, NEUTRAL, SELECTED, SERIES, Picture, plain
from core.score.criteria import criteria_of
from core.search.ledger import Row, best, front, standing

COSTS = {"parameters": "parameters", "flops": "FLOPs a token"}
"""What quality can be seen against -> how it is called."""
AXES = {
    "layers": "Layers", "hidden": "Hidden size", "ffn": "FFN neurons", "heads": "Heads", "kv_heads": "KV heads", "parameters": "Parameters",
    "flops": "FLOPs a token", "kl_nats": "KL, nats",
}  # fmt: skip
"""Axes of the parallel coordinates, in order."""

PARTS = {"groups": "key-value groups", "queries": "query heads"}
"""Axis of the estimate -> how it is called, where that differs."""

REPAIRED, RETRAINED = "KL repaired, nats", "KL retrained, nats"
"""Columns of the divergence after repair, and after retraining."""


def sizes_of(row: Row, source: Dims) -> dict[str, int]:
    """A candidate's dimensions, those that it leaves alone too."""
    return {
        name: row["targets"].get(CONFIG_KEYS[name]) or getattr(source, name) for name in ("layers", "hidden", "ffn", "heads", "kv_heads")
    }


def ranking_said(row: Row) -> str:
    """By what a candidate's units were chosen, if not by the search's own ranking: the criterion of layers and the aggregation."""
    if not (rank := row.get("rank")):
        return ""
    return f"{criteria_of('layers')[rank['depth']].title.lower()}, ({rank['batch']}, {rank['sequence']})"


def candidate_table(rows: Sequence[Row], source: Dims) -> pd.DataFrame:
    """A row a measured candidate, the best first."""
    ahead = {row["number"] for row in front(rows)}
    table = pd.DataFrame(
        {
            "Candidate": row["number"], "On the front": row["number"] in ahead, "KL, nats": row["kl_nats"], "Perplexity": row["perplexity"],
            "Same next token": row["top1_agreement"], "Estimated KL, nats": row["estimate"],
            **{AXES[name]: size for name, size in sizes_of(row, source).items()}, "Parameters": row["parameters"], "FLOPs a token": row["flops"],
        }
        for row in sorted(rows, key=standing)
    )  # fmt: skip
    ordered = sorted(rows, key=standing)
    after = {
        REPAIRED: [(row.get("repaired") or {}).get("kl_nats") for row in ordered],
        RETRAINED: [row["retrained"][-1]["kl_nats"] if row.get("retrained") else None for row in ordered],
    }
    if any(row.get("rank") for row in rows):
        table["Ranked by"] = [ranking_said(row) or "as the draft" for row in ordered]
    for place, (name, figures) in enumerate((name, figures) for name, figures in after.items() if any(figures)):
        table.insert(3 + place, name, figures)
    return table


def front_picture(
    rows: Sequence[Row], pool: Sequence[Mapping[str, Any]], source: Dims, cost: str = "parameters", picked: Collection[int] = ()
) -> Picture:
    """Divergence from the teacher against a cost.

    Args:
        rows: the measured candidates.
        pool: all candidates with their estimates; empty while the search works.
        source: the uncut model's dimensions.
        cost: ``parameters`` or ``flops``.
        picked: numbers of the candidates that the viewer chose.
    """
    figure, ahead, top = go.Figure(), front(rows), best(rows)
    measured = {str(row["targets"]) for row in rows}
    guessed = [one for one in pool if str(one["targets"]) not in measured]
    if guessed:
        figure.add_scatter(
            x=[one[cost] for one in guessed], y=[one["estimate"] for one in guessed], mode="markers", name="≈ estimated only", hoverinfo="skip",
            marker={"symbol": "x-thin", "size": 5, "line": {"width": 1, "color": NEUTRAL}},
        )  # fmt: skip
    numbers = {row["number"] for row in ahead}
    for name, chosen, fill in (
        ("measured", [row for row in rows if row["number"] not in numbers], CLEAR),
        ("measured, on the front", [row for row in ahead if row is not top], SERIES),
    ):
        _marks(figure, chosen, cost, name, {"symbol": "circle", "size": 10, "color": fill, "line": {"width": 1.5, "color": SERIES}}, source)
    if top is not None:
        _marks(figure, [top], cost, "best", {"symbol": "star", "size": 17, "color": SERIES, "line": {"width": 1, "color": SERIES}}, source)
    if chosen := [row for row in rows if row["number"] in picked]:
        ring = {"symbol": "circle-open", "size": 20, "color": SELECTED, "line": {"width": 2.5, "color": SELECTED}}
        _marks(figure, chosen, cost, "picked", ring, source)
    plain(figure, 380)
    figure.update_layout(showlegend=True, dragmode="select", margin={"t": 40})
    figure.update_xaxes(title=COSTS[cost], tickformat="~s")
    figure.update_yaxes(title="KL to the teacher as cut, nats a token", rangemode="tozero")
    return Picture(figure=figure, alt=_front_said(rows, top, len(ahead)), table=candidate_table(rows, source) if rows else pd.DataFrame())


def _marks(figure: go.Figure, rows: Sequence[Row], cost: str, name: str, marker: dict[str, Any], source: Dims) -> None:
    figure.add_scatter(
        x=[row[cost] for row in rows], y=[row["kl_nats"] for row in rows], mode="markers", name=name, marker=marker,
        customdata=[row["number"] for row in rows], text=[shape_said(row, source) for row in rows],
        hovertemplate="Candidate %{customdata}: %{y:.3g} nats<br>%{text}<extra></extra>",
        selected={"marker": {"opacity": 1}}, unselected={"marker": {"opacity": 1}},
    )  # fmt: skip


def parallel_picture(rows: Sequence[Row], source: Dims, picked: Collection[int] = ()) -> Picture:
    """Every measured candidate as a line over all its dimensions, low at the bottom; a box around part of an axis picks lines.

    Axes on which the candidates do not differ are left out.
    """
    figure, top = go.Figure(), best(rows)
    values = pd.DataFrame([sizes_of(row, source) | {name: row[name] for name in ("parameters", "flops", "kl_nats")} for row in rows])
    shown = [name for name in AXES if len(rows) and (values[name].nunique() > 1 or name == "kl_nats")]
    numbers = [row["number"] for row in rows]
    groups = [
        ("measured", [n for n in numbers if n not in picked and (top is None or n != top["number"])], NEUTRAL, 1.2, "circle-open"),
        ("best", [top["number"]] if top is not None and top["number"] not in picked else [], SERIES, 3.0, "star"),
        ("picked", [n for n in numbers if n in picked], SELECTED, 2.5, "circle"),
    ]
    for name, members, color, width, symbol in groups:
        x, y, data = _lines(values, shown, [numbers.index(n) for n in members], members)
        figure.add_scatter(
            x=x, y=y, customdata=data, mode="lines+markers", name=name, line={"color": color, "width": width}, connectgaps=False,
            marker={"symbol": symbol, "size": 7, "color": color}, opacity=0.55 if name == "measured" and picked else 1.0,
            hovertemplate="Candidate %{customdata}<extra></extra>", visible=True if members else "legendonly", showlegend=bool(members),
            selected={"marker": {"opacity": 1}}, unselected={"marker": {"opacity": 1}},
        )  # fmt: skip
    plain(figure, 360)
    figure.update_layout(showlegend=True, dragmode="select", margin={"t": 56, "l": 48, "r": 48})
    figure.update_xaxes(tickvals=list(range(len(shown))), ticktext=[AXES[name] for name in shown], range=[-0.3, len(shown) - 0.7], ticks="")
    figure.update_yaxes(visible=False, range=[-0.12, 1.12])
    for place, name in enumerate(shown):
        _axis(figure, place, name, values[name])
    return Picture(figure=figure, alt=_parallel_said(rows, shown), table=candidate_table(rows, source) if rows else pd.DataFrame())


def _lines(
    values: pd.DataFrame, shown: Sequence[str], places: Sequence[int], numbers: Sequence[int]
) -> tuple[list[Any], list[Any], list[Any]]:
    """Points of several lines with gaps between them: x, height in [0, 1], and whose point it is."""
    x: list[Any] = []
    y: list[Any] = []
    data: list[Any] = []
    low, high = values.min(), values.max()
    for place, number in zip(places, numbers, strict=True):
        x += [*range(len(shown)), None]
        y += [*(float((values[name][place] - low[name]) / max(high[name] - low[name], 1e-12)) for name in shown), None]
        data += [*(number for _ in shown), None]
    return x, y, data


def _axis(figure: go.Figure, place: int, name: str, column: pd.Series) -> None:
    """One upright axis with its lowest and highest value."""
    figure.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, layer="below", line={"color": NEUTRAL, "width": 1})
    for height, value, side in ((0.0, column.min(), "top"), (1.0, column.max(), "bottom")):
        said = fmt.number(float(value)) if name == "kl_nats" else fmt.count(float(value))
        figure.add_annotation(
            x=place, y=height, text=said, showarrow=False, yanchor=side, yshift=-8 if side == "top" else 8, font={"size": 12}
        )


def marks_of(picture: Picture) -> list[tuple[int, float, float]]:
    """Number, x and y of every mark that stands for a measured candidate."""
    return [
        (int(number), float(x), float(y))
        for trace in picture.figure.data
        if trace.customdata is not None
        for number, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
        if number is not None
    ]


def shape_said(row: Row, source: Dims) -> str:
    """A candidate's sizes in a few words, only what is cut."""
    found = sizes_of(row, source)
    cut = [f"{AXES[name][:1].lower() + AXES[name][1:] if name != 'ffn' and name != 'kv_heads' else AXES[name]} {getattr(source, name)} → {size}"
           for name, size in found.items() if size != getattr(source, name)]  # fmt: skip
    chosen = [f"chosen by {said}"] if (said := ranking_said(row)) else []
    return ", ".join(cut + chosen) or "nothing cut"


def _after(row: Row) -> str:
    """What was done to a candidate before it was compared last."""
    done = ["repair"] if row.get("repaired") else []
    if retrained := row.get("retrained"):
        done.append(f"{fmt.plural(retrained[-1]['steps'], 'step')} of retraining")
    return f" after {fmt.listed(done)}" if done else ""


def why(rows: Sequence[Row], source: Dims, pool: int) -> list[str]:
    """Why the best one is the best, a sentence each, from the numbers alone."""
    top, *others = sorted(rows, key=standing)
    after, before = _after(top), f" ({fmt.nats(top['kl_nats'])} before)"
    if not after:
        before = f", with the same next token in {fmt.percent(top['top1_agreement'])}"
    said = [
        f"Of {fmt.plural(len(rows), 'measured candidate')}, from {fmt.count(pool)} under the budget, candidate {top['number']} diverges least from the "
        f"teacher{after}: {fmt.nats(standing(top)[-1])} a token{before}."
    ]
    if others:
        if standing(others[0])[:-1] == standing(top)[:-1]:  # one that was repaired or retrained less is no rival
            rise = standing(others[0])[-1] / max(standing(top)[-1], 1e-12) - 1
            said.append(
                f"The next best, candidate {others[0]['number']} ({shape_said(others[0], source)}), diverges {fmt.percent(rise)} more."
            )
        largest = max(rows, key=lambda row: row["parameters"])
        if largest["kl_nats"] > top["kl_nats"] and largest["parameters"] > top["parameters"]:
            said.append(
                f"The largest one measured, candidate {largest['number']}, has {fmt.percent(largest['parameters'] / top['parameters'] - 1)} more parameters "
                f"and diverges by {fmt.nats(largest['kl_nats'])}: size alone does not decide."
            )
    if plain_one := next((row for row in others if row["targets"] == top["targets"] and not row.get("rank")), None):
        said.append(
            f"Ranked as the draft is, the same sizes diverge by {fmt.nats(plain_one['kl_nats'])}, before repair and retraining; "
            f"as chosen here by {fmt.nats(top['kl_nats'])}."
        )
    parts = {axis: nats for axis, nats in sorted(top.get("parts", {}).items(), key=lambda item: -item[1]) if nats > 0.005 * top["kl_nats"]}
    said.append(f"It cuts {shape_said(top, source)}.")
    if parts:
        costs = fmt.listed([f"{fmt.nats(nats, estimated=True)} by {PARTS.get(axis, axis)}" for axis, nats in parts.items()])
        said.append(f"What that costs before repair and retraining, as learnt from the measurements: {costs}.")
    return said


def _front_said(rows: Sequence[Row], top: Row | None, ahead: int) -> str:
    if top is None:
        return "No candidate has been measured yet."
    return (
        f"{fmt.plural(len(rows), 'candidate')} measured, {ahead} of them on the front of quality, parameters and FLOPs. The best, number "
        f"{top['number']}, diverges by {fmt.nats(top['kl_nats'])} at {fmt.count(top['parameters'])} parameters."
    )


def _parallel_said(rows: Sequence[Row], shown: Sequence[str]) -> str:
    if len(rows) < 2:
        return "Lines appear here with the second measured candidate."
    places = np.array([[row["kl_nats"] for row in rows]])
    return (
        f"{len(rows)} measured candidates over {fmt.listed([AXES[name] for name in shown])}; the divergence ranges from "
        f"{fmt.nats(float(places.min()))} to {fmt.nats(float(places.max()))}."
    )
