"""How far criteria agree, and how sure each is, as pictures.

C criteria, U units of one kind.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core.report.format import MINUS, count, listed, percent, plural
from core.report.picture import CIVIDIS, CLEAR, NEUTRAL, SELECTED, SERIES, Picture, plain

DIVERGING = "PuOr"
ROW = 30
"""Height of a criterion's row, in pixels."""


def spearman_matrix(titles: Sequence[str], spearman_CC: np.ndarray) -> Picture:
    """Heat map of the rank correlation of every pair of criteria, with the number in each cell."""
    colours = {"colorscale": DIVERGING, "cmin": -1, "cmax": 1}
    figure = _matrix(titles, spearman_CC, colours, [[_hundredths(value) for value in row] for row in spearman_CC], "Spearman's ρ")
    said = _pairs_said(titles, spearman_CC, lambda value: f"ρ = {_hundredths(value)}")
    return Picture(figure=figure, alt=f"Spearman correlation of the rankings. {said}", table=_square_table(titles, spearman_CC))


def overlap_matrix(titles: Sequence[str], overlap_CC: np.ndarray, kept_share: float) -> Picture:
    """Heat map of the part of the kept units that both criteria of a pair keep.

    Args:
        kept_share: part of the units that stays, which is what two random choices would have in common.
    """
    colours = {"colorscale": CIVIDIS, "cmin": min(kept_share, float(overlap_CC.min())), "cmax": 1}
    figure = _matrix(titles, overlap_CC, colours, [[f"{100 * value:.0f}" for value in row] for row in overlap_CC], "both keep, in percent")
    said = f"{_pairs_said(titles, overlap_CC, percent)} Two random choices would share {percent(kept_share)}."
    return Picture(figure=figure, alt=f"Part of what is kept that both keep. {said}", table=_square_table(titles, overlap_CC))


def _matrix(titles: Sequence[str], value_CC: np.ndarray, colours: dict[str, object], texts: list[list[str]], name: str) -> go.Figure:
    """A square of cells with their numbers, so that it needs no colour bar; the first criterion is on top, the idle diagonal is left out."""
    value_CC, texts = value_CC.astype(float), [list(row) for row in texts]
    for i in range(len(titles)):
        value_CC[i, i], texts[i][i] = np.nan, ""
    figure = go.Figure(
        go.Heatmap(
            x=list(titles), y=list(titles), z=value_CC, text=texts, texttemplate="%{text}", textfont={"size": 10}, coloraxis="coloraxis",
            xgap=2, ygap=2, hoverongaps=False, hovertemplate=f"%{{y}}<br>%{{x}}<br>{name}: %{{text}}<extra></extra>",
        )
    )  # fmt: skip
    plain(figure, max(ROW * len(titles), 120) + 150).update_layout(coloraxis=colours, coloraxis_showscale=False)
    figure.update_xaxes(tickangle=-40, ticks="")
    figure.update_yaxes(autorange="reversed", ticks="", showgrid=False)
    return figure


def _hundredths(value: float) -> str:
    """A correlation to two places; there is no minus before a zero."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", MINUS)


def _pairs_said(titles: Sequence[str], value_CC: np.ndarray, write: Callable[[float], str]) -> str:
    """Which two criteria are most, and which are least alike."""
    if len(titles) < 2:
        return "There is only one criterion."
    first_P, second_P = np.triu_indices(len(titles), 1)
    value_P = value_CC[first_P, second_P]
    ends = int(np.argmax(value_P)), int(np.argmin(value_P))
    pairs = [f"{titles[first_P[i]]} and {titles[second_P[i]]}, {write(float(value_P[i]))}" for i in ends]
    return f"Most alike: {pairs[0]}; least alike: {pairs[1]}."


def _square_table(titles: Sequence[str], value_CC: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(value_CC, columns=list(titles)).assign(criterion=list(titles))[["criterion", *titles]]


def stability_bars(titles: Sequence[str], stability_C: Sequence[float], undecided_C: Sequence[int] | None, units: int) -> Picture:
    """A bar a criterion: how alike the rankings of its shards are, with the number of units whose fate is within the noise.

    Args:
        undecided_C: units that might as well be on the other side of the cut; None if nothing is cut.
        units: units in all.
    """
    texts = [_hundredths(value) for value in stability_C]
    if undecided_C is not None:
        texts = [f"{text} · {count(many)} undecided ({percent(many / units)})" for text, many in zip(texts, undecided_C, strict=True)]
    figure = go.Figure(
        go.Bar(
            x=list(stability_C), y=list(titles), orientation="h", marker={"color": SERIES}, text=texts, textposition="outside",
            cliponaxis=False, hovertemplate="%{y}<br>%{text}<extra></extra>",
        )
    )  # fmt: skip
    plain(figure, ROW * len(titles) + 70).update_layout(bargap=0.4)
    figure.update_xaxes(title_text="Spearman's ρ between shards", range=[min(0.0, *stability_C), 1.6], tickvals=[0, 0.25, 0.5, 0.75, 1])
    figure.update_yaxes(autorange="reversed", ticks="")
    table = pd.DataFrame({"criterion": titles, "stability": stability_C})
    if undecided_C is not None:
        table["undecided"], table["of units"] = undecided_C, units
    best, worst = int(np.argmax(stability_C)), int(np.argmin(stability_C))
    alt = (
        f"Stability of {plural(len(titles), 'criterion', 'criteria')}: most stable is {titles[best]} (ρ = {_hundredths(stability_C[best])}), "
        f"least {titles[worst]} (ρ = {_hundredths(stability_C[worst])})."
    )
    return Picture(figure=figure, alt=alt, table=table)


def unit_profile(
    titles: Sequence[str], rank_C: np.ndarray, low_C: np.ndarray, high_C: np.ndarray, units: int, kept_count: int, chosen: str
) -> Picture:
    """Where one unit stands under every criterion: a dot at its percentile, with what is within the noise as a line.

    Args:
        rank_C: its rank, 1 the most important of ``units``.
        low_C: the best rank that is within the noise; NaN where that is not known.
        high_C: the worst.
        chosen: title of the draft's criterion, whose name is bold.
    """
    place_C, best_C, worst_C = (percentile(ranks_C, units) for ranks_C in (rank_C, low_C, high_C))
    kept_C = rank_C <= kept_count
    figure = go.Figure()
    names = [f"<b>{title}</b>" if title == chosen else title for title in titles]
    for kept, word in ((True, "would keep it"), (False, "would cut it")):
        these = np.flatnonzero(kept_C == kept)
        figure.add_scatter(
            x=place_C[these], y=[names[i] for i in these], mode="markers", name=word, marker=_dot(kept), customdata=rank_C[these],
            error_x=_reach(place_C[these], best_C[these], worst_C[these]),
            hovertemplate=f"%{{y}} {word}<br>rank %{{customdata}} of {units}<extra></extra>",
        )  # fmt: skip
    plain(figure, 26 * len(titles) + 80)
    if kept_count < units:
        _cut_line(figure, float(percentile(np.array([kept_count + 0.5]), units)[0]))
    figure.update_xaxes(title_text="percentile (100 is the most important)", range=[-2, 102], showgrid=True)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], range=[-0.6, len(names) - 0.4], ticks="")
    table = pd.DataFrame({"criterion": titles, "rank": rank_C, "from": low_C, "to": high_C, "percentile": place_C, "kept": kept_C})
    return Picture(figure=figure, alt=_profile_said(titles, kept_C, place_C, kept_count < units), table=table)


def percentile(rank_C: np.ndarray, units: int) -> np.ndarray:
    """A rank's percentile among ``units``: 100 for the first."""
    return 100 * (units - rank_C + 1) / units


def _dot(kept: bool) -> dict[str, object]:
    return {"size": 10, "color": SERIES} if kept else {"size": 10, "color": CLEAR, "line": {"color": NEUTRAL, "width": 2}}


def _reach(place_C: np.ndarray, best_C: np.ndarray, worst_C: np.ndarray) -> dict[str, object]:
    """Error bars; none where the noise is not known, or there is none."""
    some_C = best_C > worst_C
    up_C, down_C = np.where(some_C, best_C - place_C, np.nan), np.where(some_C, place_C - worst_C, np.nan)
    return {"type": "data", "array": up_C, "arrayminus": down_C, "symmetric": False, "color": NEUTRAL, "thickness": 1.5, "width": 4}


def _cut_line(figure: go.Figure, x: float) -> None:
    figure.add_vline(x=x, line={"color": SELECTED, "width": 2, "dash": "dash"})
    figure.add_annotation(
        x=x, y=1, yref="paper", text="cut", showarrow=False, xanchor="left", xshift=4, yanchor="bottom", font={"color": SELECTED}
    )


def _profile_said(titles: Sequence[str], kept_C: np.ndarray, place_C: np.ndarray, cutting: bool) -> str:
    """How many criteria keep the unit, and how far they are apart."""
    low, high = f"{place_C.min():.0f}", f"{place_C.max():.0f}"
    reach = f"Its percentile is {low if low == high else f'between {low} and {high}'}, as the criteria see it."
    if not cutting:
        return reach
    against = [title for title, kept in zip(titles, kept_C, strict=True) if kept != (kept_C.sum() * 2 > len(kept_C))]
    kept = f"{int(kept_C.sum())} of {plural(len(titles), 'criterion', 'criteria')} would keep it"
    apart = f" (against the rest: {listed(against)})" if 0 < len(against) <= 3 else ""
    return f"{kept}{apart}. {reach}"
