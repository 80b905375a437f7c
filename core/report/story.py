"""The story of a compression for people who decide: measured models that nothing beats, from the original to the smallest.

Only what was measured is told, and nobody needs to know what a nat is to follow it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from core.report import format as fmt
from core.report.measures import COSTS, QUALITIES, front
from core.report.picture import NEUTRAL, Picture, plain
from core.report.run_figures import LIGHT, ROLES, Palette, role_title
from core.report.tables import domains_of

Results = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One measured model."""

    run: str
    """Key of the run that it is from."""
    role: str
    """teacher, pruned, distilled: its name in results.json."""
    results: Results

    @property
    def domain(self) -> str:
        """The held-out text that it is judged on: the one of the training's own domain."""
        return domains_of(self.results)[0]

    @property
    def parameters(self) -> int:
        """How large it is."""
        return int(self.results[self.role]["parameters"])

    @property
    def cost_nats(self) -> float:
        """What it costs in quality: nats a token above the teacher."""
        return float(QUALITIES["above"].read(self.results, self.role, self.domain) or 0.0)

    @property
    def agreement(self) -> float | None:
        """Part of the next tokens on which it agrees with the teacher."""
        return 1.0 if self.role == "teacher" else QUALITIES["agreement"].read(self.results, self.role, self.domain)

    @property
    def smaller(self) -> float:
        """Part of the teacher's parameters that it does without."""
        return 1 - self.parameters / int(self.results["teacher"]["parameters"])

    @property
    def faster(self) -> float | None:
        """How much faster it decodes than the teacher did in the same run; None where that was not measured."""
        own, teacher = (COSTS["decode"].read(self.results, role, self.domain) for role in (self.role, "teacher"))
        return own / teacher - 1 if own and teacher else None


@dataclass(frozen=True)
class Number:
    """A figure in large type: the value, what it is, and where it comes from."""

    value: str
    name: str
    basis: str


def choices(runs: Mapping[str, Results]) -> list[Choice]:
    """The original, then every measured model that no other beats in size and quality at once, down to the smallest.

    Args:
        runs: key -> results.json's data, of runs that share teacher and held-out text.
    """
    models = [
        Choice(run=run, role=role, results=results)
        for run, results in runs.items()
        for role in ROLES
        if role != "teacher" and domains_of(results) and QUALITIES["above"].read(results, role, domains_of(results)[0]) is not None
    ]
    if not models:
        return []
    models = [Choice(run=models[0].run, role="teacher", results=models[0].results), *models]
    best = front([(model.parameters, model.cost_nats) for model in models], COSTS["parameters"], QUALITIES["above"])
    return sorted((models[i] for i in best), key=lambda model: model.cost_nats)


def told(choice: Choice) -> str:
    """A model in two plain sentences."""
    if choice.role == "teacher":
        return "This is the original model, uncut. Move the slider to see what giving up some quality buys."
    text = f"A model {fmt.percent(choice.smaller)} smaller"
    if choice.faster is not None:
        text += f" that writes {fmt.percent(abs(choice.faster))} {'faster' if choice.faster >= 0 else 'slower'}"
    text += f". On {choice.domain} text that it never saw, it picks the same next word piece as the original {_often(choice.agreement)}"
    before = QUALITIES["agreement"].read(choice.results, "pruned", choice.domain)
    return text + (f"; cut but not retrained, it was {_often(before)}." if choice.role != "pruned" and before is not None else ".")


def numbers(choice: Choice) -> list[Number]:
    """Size, speed, quality: three figures, each with its source."""
    measured = (choice.results[choice.role].get("heldout") or {}).get(choice.domain) or {}
    machine = choice.results.get("machine") or {}
    teacher = choice.role == "teacher"
    speed = fmt.rate(COSTS["decode"].read(choice.results, choice.role, choice.domain), "tokens/s")
    size = fmt.count(choice.parameters)
    return [
        Number(size if teacher else fmt.delta(-choice.smaller), "parameters" if teacher else f"in size: {size} parameters", "Counted."),
        Number(speed if teacher else fmt.delta(choice.faster), "writing speed" if teacher else f"in writing speed: {speed}",
               f"Measured on {machine.get('name') or machine.get('cpu') or 'this machine'}."),
        Number(fmt.percent(choice.agreement), "of next words as the original chooses them",
               f"Measured on {fmt.count(measured.get('tokens'))} word pieces of {choice.domain} that it never saw."),
    ]  # fmt: skip


def _often(part: float | None) -> str:
    return "an unmeasured share of the time" if part is None else f"{round(100 * part)} times in 100"


def story_picture(found: Sequence[Choice], chosen: int, *, palette: Palette = LIGHT) -> Picture:
    """The way from the original to the smallest: size against agreement with the original, the chosen model large."""
    x, y = [one.parameters for one in found], [one.agreement for one in found]
    figure = go.Figure()
    figure.add_scatter(x=x, y=y, mode="lines", line={"color": NEUTRAL, "width": 2}, hoverinfo="skip")
    colour = [getattr(palette, one.role) for one in found]
    symbol = [{"teacher": "star", "pruned": "circle-open"}.get(one.role, "circle") for one in found]
    figure.add_scatter(
        x=x, y=y, mode="markers+text", text=[fmt.count(one.parameters) for one in found], textposition="bottom center", cliponaxis=False,
        marker={"opacity": 1, "size": [26 if i == chosen else 14 for i in range(len(found))], "color": colour, "symbol": symbol, "line": {"width": 2.5, "color": colour}},
        hovertemplate="%{text} parameters<br>%{y:.1%} of next words as the original<extra></extra>",
    )  # fmt: skip
    plain(figure, 340)
    figure.update_xaxes(title_text="parameters", tickformat="~s", nticks=6)
    figure.update_yaxes(title_text="same next word as the original", tickformat=".0%", range=[0, 1.1], tickvals=[0, 0.25, 0.5, 0.75, 1])
    one = found[chosen]
    alt = f"{fmt.plural(len(found), 'model')} from {fmt.count(x[0])} to {fmt.count(x[-1])} parameters. Chosen: {fmt.count(one.parameters)}, {fmt.percent(one.agreement)} of next words as the original."
    table = pd.DataFrame(
        {
            "model": [role_title(one.role, one.results) for one in found],
            "parameters": x,
            "same next word": y,
            "nats above": [c.cost_nats for c in found],
        }
    )
    return Picture(figure=figure, alt=alt, table=table)
