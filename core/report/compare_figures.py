"""Pictures that set runs beside each other: what each kept, layer by layer, and on which passages each got worse.

L layers of the uncut model, P pairs of runs, N passages of held-out text.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core.report import format as fmt
from core.report.picture import CIVIDIS, NEUTRAL, Picture, colour_bar, plain, ticks
from core.report.run_figures import LIGHT, ROLES, SHAPES, Palette, role_title

Masks = Mapping[str, np.ndarray]
"""What a plan keeps, as ``core.plan.plan.keep_masks`` gives it."""


def kept_picture(kept: Mapping[str, Masks]) -> Picture:
    """How far runs kept the same heads and neurons, layer by layer: a row for each pair of runs and each kind of unit.

    A cell is the part of the units kept by either that both keep (Jaccard). Layers that one of the two removed are left blank and crossed;
    layers that both removed are left blank.

    Args:
        kept: run's short name -> what it keeps of the same model.
    """
    names: list[str] = []
    rows: list[np.ndarray] = []
    crosses: list[tuple[int, str]] = []
    for (one, first), (other, second) in itertools.combinations(kept.items(), 2):
        for axis in ("heads", "neurons"):
            names.append(f"{one} and {other}, {axis}")
            # By the row's name: Plotly would take a number for a name too, and give it a row of its own.
            crosses += [(int(layer), names[-1]) for layer in np.flatnonzero(first["layers"] != second["layers"])]
            rows.append(shared(first, second, axis))
    agreement_PL = np.array(rows)
    figure = go.Figure(go.Heatmap(
        z=agreement_PL, x=list(range(agreement_PL.shape[1])), y=names, coloraxis="coloraxis", xgap=2, ygap=2, hoverongaps=False,
        hovertemplate="%{y}<br>layer %{x}: %{z:.0%} the same<extra></extra>",
    ))  # fmt: skip
    if crosses:
        x, y = zip(*crosses, strict=True)
        figure.add_scatter(x=x, y=y, mode="markers", marker={"symbol": "x-thin", "size": 9, "line": {"width": 1.5, "color": NEUTRAL}},
                           hovertemplate="layer %{x}: only one of the two keeps it<extra></extra>")  # fmt: skip
    colours = {"colorscale": CIVIDIS, "cmin": 0, "cmax": 1, "colorbar": colour_bar("the same") | {"tickformat": ".0%"}}
    plain(figure, 34 * len(names) + 130).update_layout(coloraxis=colours)
    figure.update_xaxes(title_text="layer", tickvals=ticks(agreement_PL.shape[1], 32))
    figure.update_yaxes(autorange="reversed", ticks="", showgrid=False)
    table = pd.DataFrame(agreement_PL, columns=[f"layer {i}" for i in range(agreement_PL.shape[1])]).assign(pair=names)
    return Picture(figure=figure, alt=_kept_said(kept), table=table[["pair", *table.columns[:-1]]])


def shared(first: Masks, second: Masks, axis: str) -> np.ndarray:
    """Part of what either keeps that both keep, ``[L]``; NaN where one of them removed the layer, or nothing is kept."""
    either_L, both_L = (first[axis] | second[axis]).sum(axis=1), (first[axis] & second[axis]).sum(axis=1)
    whole_L = first["layers"] & second["layers"] & (either_L > 0)
    return np.where(whole_L, both_L / np.maximum(either_L, 1), np.nan)


def _kept_said(kept: Mapping[str, Masks]) -> str:
    """Which runs agree how far, a clause a pair."""
    clauses = []
    for (one, first), (other, second) in itertools.combinations(kept.items(), 2):
        parts = {axis: shared(first, second, axis) for axis in ("heads", "neurons")}
        means = [f"{fmt.percent(float(np.nanmean(part_L)))} of {axis}" for axis, part_L in parts.items() if not np.isnan(part_L).all()]
        channels = (first["channels"] & second["channels"]).sum() / max((first["channels"] | second["channels"]).sum(), 1)
        layers = int((first["layers"] != second["layers"]).sum())
        means += [f"{fmt.percent(float(channels))} of embedding channels"]
        apart = f", {fmt.plural(layers, 'layer')} only in one" if layers else ""
        clauses.append(f"{one} and {other} share {fmt.listed(means)}{apart}")
    return "; ".join(clauses) + "."


def passages_picture(runs: Sequence[Mapping[str, Any]], *, palette: Palette = LIGHT) -> Picture:
    """Where runs got worse: a mark for every held-out passage, at its loss above the teacher's; bars are the means.

    Args:
        runs: ``{"name": str, "results": results.json's data}`` each; the last of a run's models is shown.
        palette: colours.
    """
    found = [row for run in runs for row in _passages(run["name"], run["results"])]
    table = pd.DataFrame(found, columns=["model", "text", "passage", "nats above the teacher"])
    figure, models = go.Figure(), list(dict.fromkeys(table["model"]))
    colours = (palette.distilled, palette.pruned, NEUTRAL, palette.teacher)
    for i, model in enumerate(models):
        own = table[table["model"] == model]
        place = [_place(text, table) + 0.16 * (i - (len(models) - 1) / 2) for text in own["text"]]
        figure.add_scatter(
            x=own["nats above the teacher"], y=place, mode="markers", name=model, marker={"symbol": SHAPES[i % 4] + "-open", "size": 9, "color": colours[i % 4]},
            customdata=own["passage"], hovertemplate=f"{model}<br>passage %{{customdata}}: %{{x:.3f}} nats above the teacher<extra></extra>",
        )  # fmt: skip
        for text, part in own.groupby("text", sort=False):
            y, mean = _place(str(text), table) + 0.16 * (i - (len(models) - 1) / 2), float(part["nats above the teacher"].mean())
            figure.add_scatter(x=[mean, mean], y=[y - 0.08, y + 0.08], mode="lines", line={"color": colours[i % 4], "width": 4}, showlegend=False,
                               hovertemplate=f"{model}: mean {mean:.3f} nats above the teacher<extra></extra>")  # fmt: skip
    texts = list(dict.fromkeys(table["text"]))
    plain(figure, 96 * len(texts) + 110).update_layout(showlegend=len(models) > 1)
    figure.add_vline(0, line={"color": palette.teacher, "dash": "dash", "width": 1})
    figure.update_xaxes(title_text="nats a token above the teacher; left of the line is better")
    figure.update_yaxes(tickvals=list(range(len(texts))), ticktext=texts, range=[len(texts) - 0.5, -0.5], ticks="", showgrid=False)
    return Picture(figure=figure, alt=_passages_said(table), table=table)


def _passages(name: str, results: Mapping[str, Any]) -> list[tuple[str, str, int, float]]:
    """A row for every passage on which teacher and model were both measured."""
    measured = [role for role in ROLES if role != "teacher" and (results.get(role) or {}).get("heldout")]
    if not measured or not results.get("teacher"):
        return []
    role, rows = measured[-1], []
    for text in results[role]["heldout"]:
        before, after = ((results[one]["heldout"].get(text) or {}).get("block_losses") or [] for one in ("teacher", role))
        title = f"{name}, {role_title(role, results).lower()}" if name else role_title(role, results)
        rows += [(title, text, i, b - a) for i, (a, b) in enumerate(zip(before, after, strict=False))]
    return rows


def _place(text: str, table: pd.DataFrame) -> int:
    return list(dict.fromkeys(table["text"])).index(text)


def _passages_said(table: pd.DataFrame) -> str:
    """Where each model lost most."""
    clauses = []
    for model in dict.fromkeys(table["model"]):
        own = table[table["model"] == model]
        mean = own.groupby("text", sort=False)["nats above the teacher"].mean()
        worst = own.sort_values("nats above the teacher").to_dict("records")[-1]
        clauses.append(
            f"{model} lost most on {mean.idxmax()}, {fmt.nats(float(mean.max()))} on average, and of all passages on {worst['text']} "
            f"{worst['passage']}, {fmt.nats(float(worst['nats above the teacher']))}"
        )
    return ("; ".join(clauses) or "No passage was measured one by one") + "."
