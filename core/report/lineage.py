"""Where models come from: which run was made from which model, and how good what it made is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from core.report import format as fmt
from core.report.picture import NEUTRAL, SERIES, Picture, plain

ROW = 34
"""Height of a row, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Descendant:
    """A model in the tree: one that was loaded, or what a run made of another."""

    key: str
    parent: str | None
    """Key of the model that it was made from; None for one that no run here made."""
    name: str
    parameters: int | None = None
    recovered: float | None = None
    """Part of the gap between pruned and teacher that distillation closed."""
    made: bool = True
    """Whether it exists: its run is done."""


def in_order(models: Iterable[Descendant]) -> list[tuple[int, Descendant]]:
    """Every model behind the one that it was made from, with its generation: 0 for one that no run here made."""
    models = list(models)
    keys = {model.key for model in models}
    children: dict[str | None, list[Descendant]] = {}
    for model in models:
        children.setdefault(model.parent if model.parent in keys else None, []).append(model)

    def below(parent: str | None, generation: int) -> Iterable[tuple[int, Descendant]]:
        for model in children.get(parent, []):
            yield generation, model
            yield from below(model.key, generation + 1)

    return list(below(None, 0))


def lineage_picture(models: Sequence[Descendant]) -> Picture:
    """The tree, a row a model: it is to the right of the model that it was made from; what is not finished is hollow."""
    rows = in_order(models)
    place = {model.key: (generation, row) for row, (generation, model) in enumerate(rows)}
    figure = go.Figure()
    for model_key, parent in ((model.key, model.parent) for model in models if model.parent in place):
        (x0, y0), (x1, y1) = place[str(parent)], place[model_key]
        figure.add_scatter(x=[x0, x0, x1], y=[y0, y1, y1], mode="lines", line={"color": NEUTRAL, "width": 1.5}, hoverinfo="skip")
    figure.add_scatter(
        x=[generation for generation, _ in rows], y=list(range(len(rows))), mode="markers+text", textposition="middle right",
        text=[f"  <b>{_escaped(model.name)}</b>  {_said(model)}" for _, model in rows], hoverinfo="skip", cliponaxis=False,
        marker={"size": 13, "color": SERIES, "symbol": [_symbol(generation, model) for generation, model in rows], "line": {"width": 2}},
    )  # fmt: skip
    plain(figure, ROW * len(rows) + 32)
    depth = max((generation for generation, _ in rows), default=0)
    figure.update_xaxes(visible=False, range=[-0.15, max(depth + 2.0, 4.0)], fixedrange=True)
    figure.update_yaxes(visible=False, range=[len(rows) - 0.4, -0.6], fixedrange=True)
    return Picture(figure=figure, alt=_takeaway(rows), table=_table(rows))


def _symbol(generation: int, model: Descendant) -> str:
    return "star" if generation == 0 else "circle" if model.made else "circle-open"


def _said(model: Descendant) -> str:
    """Size and quality, as far as they are known."""
    size = [fmt.count(model.parameters)] if model.parameters else []
    back = [f"{fmt.percent(model.recovered)} recovered"] if model.recovered is not None else []
    return " · ".join(size + back + ([] if model.made else ["not finished"]))


def _takeaway(rows: Sequence[tuple[int, Descendant]]) -> str:
    origins = [model for generation, model in rows if generation == 0]
    made, deepest = len(rows) - len(origins), max((generation for generation, _ in rows), default=0)
    further = f" The longest chain has {fmt.plural(deepest, 'generation')}." if deepest > 1 else ""
    return f"{fmt.plural(made, 'run')} made from {fmt.plural(len(origins), 'model')}: {fmt.listed([model.name for model in origins])}.{further}"


def _table(rows: Sequence[tuple[int, Descendant]]) -> pd.DataFrame:
    names = {model.key: model.name for _, model in rows}
    return pd.DataFrame(
        {"model": model.name, "made from": names.get(model.parent or "", fmt.MISSING), "parameters": model.parameters,
         "gap recovered": model.recovered, "finished": model.made}
        for _, model in rows
    )  # fmt: skip


def _escaped(text: str) -> str:
    """A name as text: Plotly reads some HTML in it."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
