"""How a distillation is set up, as pictures: what is learnt from and how much, and which layers are held against which."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from core.distill.matching import Pairs
from core.report.format import percent
from core.report.picture import NEUTRAL, SERIES, Picture, plain
from core.report.run_figures import TERM_NAMES
from core.specs import DistillSpec


def mix_of(spec: DistillSpec, kinds: Sequence[str]) -> dict[str, float]:
    """Weight of everything that is learnt from; intermediate states are scaled to weigh as much as the logits, and share that."""
    states = {kind: spec.kl_weight * spec.intermediate_weight / len(kinds) for kind in kinds}
    return {name: weight for name, weight in {spec.loss: spec.kl_weight, **states, "ce": spec.ce_weight}.items() if weight > 0}


def mix_picture(spec: DistillSpec, kinds: Sequence[str]) -> Picture:
    """One bar of the loss, parted by what it is made of."""
    mix = mix_of(spec, kinds)
    total = sum(mix.values()) or 1.0
    figure = go.Figure()
    for name, weight in mix.items():
        label = f"{TERM_NAMES[name]}<br>{percent(weight / total)}"
        figure.add_bar(
            x=[weight], y=[""], orientation="h", name=TERM_NAMES[name], text=label if weight / total > 0.16 else "", textposition="inside",
            insidetextanchor="middle", textangle=0, constraintext="none", hovertemplate=f"{label}<extra></extra>",
        )  # fmt: skip
    plain(figure, 64).update_layout(barmode="stack", margin={"l": 0, "r": 0, "t": 0, "b": 0}, bargap=0)
    figure.update_xaxes(range=[0, total], visible=False)
    figure.update_yaxes(visible=False)
    shares = [f"{TERM_NAMES[name]} {percent(weight / total)}" for name, weight in mix.items()]
    table = pd.DataFrame(
        {"learnt from": [TERM_NAMES[name] for name in mix], "share (%)": [100 * weight / total for weight in mix.values()]}
    )
    return Picture(figure=figure, alt=f"The loss: {', '.join(shares) or 'nothing'}.", table=table)


def map_picture(pairs: Pairs, layers: int, teacher_layers: int, kept: Sequence[int] | None = None) -> Picture:
    """The teacher's layers above, the student's below where they come from, and a line for every pair.

    Args:
        pairs: (student's layer, teacher's layer).
        layers: of the student.
        teacher_layers: of the teacher.
        kept: which of the teacher's layers the student has; without it they are spread evenly.
    """
    places = list(kept) if kept is not None else [i * (teacher_layers - 1) / max(1, layers - 1) for i in range(layers)]
    figure = go.Figure()
    for student, teacher in pairs:
        figure.add_scatter(x=[places[student], teacher], y=[0, 1], mode="lines", line={"color": SERIES, "width": 2}, hoverinfo="skip")
    rows = (("Teacher", 1, list(range(teacher_layers)), {p[1] for p in pairs}), ("Student", 0, places, {p[0] for p in pairs}))
    for name, height, x, used in rows:
        figure.add_scatter(
            x=x, y=[height] * len(x), mode="markers", name=name, hovertemplate=f"{name}, layer %{{customdata}}<extra></extra>", customdata=list(range(len(x))),
            marker={"size": 11, "symbol": "square", "color": [SERIES if i in used else NEUTRAL for i in range(len(x))], "opacity": [1 if i in used else 0.35 for i in range(len(x))]},
        )  # fmt: skip
    for student, teacher in pairs if len(pairs) <= 6 else ():
        figure.add_annotation(x=teacher, y=1, text=str(teacher), showarrow=False, yshift=17)
        figure.add_annotation(x=places[student], y=0, text=str(student), showarrow=False, yshift=-17)
    plain(figure, 130).update_layout(margin={"l": 8, "r": 8, "t": 8, "b": 8})
    figure.update_xaxes(visible=False, range=[-0.7, teacher_layers - 0.3])
    figure.update_yaxes(range=[-0.55, 1.55], tickvals=[0, 1], ticktext=["Student", "Teacher"], ticks="", showgrid=False)
    table = pd.DataFrame(pairs, columns=["student's layer", "teacher's layer"])
    told = ", ".join(f"{student} from {teacher}" for student, teacher in pairs)
    return Picture(figure=figure, alt=f"Layers of the student that learn from layers of the teacher: {told}.", table=table)
