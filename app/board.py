"""What a draft comes to, in one element: its numbers, the importance that stays, and its layers before and after the cut.

A slider waits for all of it at every step, and every element of a page costs the browser some milliseconds, a chart 50.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import streamlit as st

from core.model.cost import Cost
from core.report.format import count, delta, percent, size
from core.report.strip import Strip

AXES = {"layers": "Layers", "heads": "Heads", "neurons": "FFN neurons", "channels": "Channels"}
HTML = """<div class="coppice-board"><div class="numbers"></div>
<p class="title">Before and after</p><p class="said strip-said"></p><svg class="coppice-strip" role="img"></svg><span class="tip" hidden></span>
<details><summary>Show as table</summary><table></table></details></div>"""


def board(before: Cost, after: Cost, context: int, kept: Mapping[str, float] | None, strip: Strip) -> None:
    """Draw the board; the strip's numbers as a table are in a fold of it.

    Args:
        context: earlier tokens that attention sees, for the FLOPs of one token.
        kept: axis -> part of the importance that stays; None if that is not known.
    """
    shares = [{"name": AXES[axis], "part": min(kept[axis], 1.0), "said": percent(kept[axis])} for axis in AXES] if kept else None
    drawn = {name: getattr(strip, name) for name in ("layers", "heads", "ffn", "hidden")}
    table = {"columns": list(strip.table), "rows": strip.table.astype(str).to_numpy().tolist()}
    basis = f"FLOPs of a forward pass, with attention over {context} earlier tokens. KV cache: keys and values of all layers, 16 bit."
    data = {
        "name": "board",
        "numbers": numbers(before, after, context),
        "basis": basis,
        "kept": shares,
        "alt": strip.alt,
        "strip": drawn,
        "table": table,
    }
    _component()(data=data, key="board")


def numbers(before: Cost, after: Cost, context: int) -> list[dict[str, str]]:
    """Name, value, change and value before, of all that the sizes alone decide."""
    rows = (
        ("Parameters", before.parameters, after.parameters, count),
        ("Without embedding", before.non_embedding_parameters, after.non_embedding_parameters, count),
        ("Weights, bfloat16", before.weight_bytes(), after.weight_bytes(), size),
        ("FLOPs a token", before.flops_per_token(context), after.flops_per_token(context), count),
        ("KV cache a token", before.kv_bytes_per_token, after.kv_bytes_per_token, size),
    )
    return [{"name": name, "value": write(new), "change": delta(new / old - 1), "before": write(old)} for name, old, new, write in rows]


@st.cache_resource
def _component() -> Callable[..., object]:
    """The component, registered once."""
    js, css = ((Path(__file__).parent / f"board.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return st.components.v2.component("coppice_board", html=HTML, js=js, css=css, isolate_styles=False)
