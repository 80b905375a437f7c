"""A model's build as a picture: where its parameters are."""

import pandas as pd
import plotly.graph_objects as go

from core.report.format import count, percent
from core.report.picture import Picture, plain

PART_NAMES = {"embeddings": "Embeddings", "attention": "Attention", "mlp": "MLP", "norms": "Norms", "head": "Output head"}


def parameter_bar(parts: dict[str, int]) -> Picture:
    """One bar of all parameters, parted by what they belong to; parts of nothing (a tied head) are left out."""
    shown = {PART_NAMES.get(name, name): size for name, size in parts.items() if size}
    total = sum(shown.values())
    figure = go.Figure()
    for name, size in shown.items():
        wide = size / total > 0.06
        figure.add_bar(
            x=[size], y=[""], orientation="h", name=name, text=f"{name}<br>{count(size)} · {percent(size / total)}" if wide else "",
            textposition="inside", insidetextanchor="middle", hovertemplate=f"{name}<br>{count(size)}, {percent(size / total)}<extra></extra>",
        )  # fmt: skip
    plain(figure, 64).update_layout(barmode="stack", margin={"l": 0, "r": 0, "t": 0, "b": 0}, bargap=0)
    figure.update_xaxes(range=[0, total], visible=False)
    figure.update_yaxes(visible=False)
    table = pd.DataFrame(
        {"part": list(shown), "parameters": list(shown.values()), "share (%)": [100 * size / total for size in shown.values()]}
    )
    alt = f"{count(total)} parameters: " + ", ".join(f"{name.lower()} {percent(size / total)}" for name, size in shown.items()) + "."
    return Picture(figure=figure, alt=alt, table=table)
