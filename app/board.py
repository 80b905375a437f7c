"""What a draft comes to, in one element: its numbers, the importance that stays, and its layers before and after the cut.

Its data may be told long before they are shown (ahead.py), so they are all that it needs; every element of a page costs the browser some
milliseconds, a chart 50.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from app import cached
from app.state import Draft
from app.target_form import sizes_of
from core.model.card import Card
from core.model.cost import Cost
from core.model.dims import resized
from core.plan.outlook import Outlook
from core.report.format import count, delta, percent, size
from core.report.strip import architecture_strip
from core.specs import Goal, Targets

AXES = {"layers": "Layers", "heads": "Heads", "neurons": "FFN neurons", "channels": "Channels"}
HTML = """<div class="coppice-board"><div class="numbers"></div>
<p class="title">Before and after</p><p class="said strip-said"></p><svg class="coppice-strip" role="img"></svg><span class="tip" hidden></span>
<details><summary>Show as table</summary><table></table></details></div>"""


def board(data: Mapping[str, Any]) -> None:
    """Draw the board; see ``told``."""
    _component()(data={"name": "board", **data}, key="board")


def told(card: Card, draft: Draft, outlook: Outlook | None) -> dict[str, Any]:
    """All that the board shows of a draft whose targets are possible.

    Args:
        outlook: what its ranking keeps; None if that is not known.

    Raises:
        UserError: the ranking's criterion was not measured.
    """
    dims, context = resized(card.dims, draft.targets), draft.data.seq_len
    view = outlook.view(dims) if outlook else None
    strip = architecture_strip(card.dims, dims, *((view.layers_L, view.heads_LH) if view else ()))
    basis = f"FLOPs of a forward pass, with attention over {context} earlier tokens. KV cache: keys and values of all layers, 16 bit."
    return {
        "draft": replace(draft, targets=Targets(), goal=Goal()).identity(), "sizes": {name: str(size) for name, size in sizes_of(card.dims, draft.targets).items()},
        "numbers": numbers(card.cost, cached.cost(card.config, draft.targets), context), "basis": basis,
        "kept": _shares(view.share) if view else None, "alt": strip.alt,
        "strip": {name: getattr(strip, name) for name in ("layers", "heads", "ffn", "hidden")},
    }  # fmt: skip


def _shares(share: Mapping[str, float]) -> list[dict[str, Any]]:
    """Name and part of every axis' importance that stays."""
    return [{"name": name, "part": min(share[axis], 1.0), "said": percent(share[axis])} for axis, name in AXES.items()]


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
