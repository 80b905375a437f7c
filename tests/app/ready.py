"""A small model and its scores in the test's workspace, made without running a model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from streamlit.proto.WidgetStates_pb2 import WidgetStates
from streamlit.runtime.state.session_state import STREAMLIT_INTERNAL_KEY_PREFIX
from streamlit.testing.v1 import AppTest

from app.state import Draft
from core.files import write_json
from core.model.dims import Dims
from core.model.source import fingerprint
from core.score import store
from core.score.store import Scores
from core.workspace import ROOT, room
from tests.synthetic_scores import synthetic_scores

CONFIG = {
    "model_type": "llama", "vocab_size": 97, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 5, "num_attention_heads": 6,
    "num_key_value_heads": 3, "head_dim": 8, "tie_word_embeddings": False,
}  # fmt: skip
DIMS = Dims(layers=5, hidden=24, ffn=40, heads=6, kv_heads=3, head_dim=8, vocab=97)
PAGES = {"model": "1_model", "importance": "2_importance", "targets": "3_targets", "candidates": "4_candidates", "distill": "5_distill"}


def make_model(folder: Path) -> Path:
    """A checkpoint folder that is whole as far as the dashboard looks."""
    write_json(folder / "config.json", CONFIG)
    save_file({"x": np.zeros(3, np.float32)}, folder / "model.safetensors")
    return folder


def make_scores(model: Path, draft: Draft) -> Scores:
    """Random importance of a model, with the passes that the draft asks for, stored as a scoring would store it."""
    meta = {"model": draft.model, "model_fingerprint": fingerprint(model), "data": draft.data.to_dict()}
    return synthetic_scores(store.score_key(fingerprint(model), "synthetic", draft.score), DIMS, draft.score, meta=meta)


def store_draft(draft: Draft) -> str:
    """Store a draft as the pages do, and name it."""
    write_json(room("drafts") / f"{draft.identity()}.json", draft.to_dict())
    return draft.identity()


def unfolded(at: AppTest) -> AppTest:
    """Open every fold of the pages to come: what is in one is made only then."""
    for name in ("command", "log", "diagnostics", "text", "advice"):
        at.session_state[f"fold_{name}"] = True
    return at


def open_page(page: str, draft: Draft, **query: str) -> AppTest:
    """Open a page under the address of a draft."""
    at = unfolded(AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=30))
    at.query_params["draft"] = store_draft(draft)
    at.run()
    for name, value in query.items():
        at.query_params[name] = value
    at.switch_page(f"../pages/{PAGES[page]}.py").run()
    assert not at.exception, at.exception
    return at


def rerun(at: AppTest) -> AppTest:
    """Run the page again and hold it to raising nothing."""
    at.run()
    assert not at.exception, at.exception
    return at


def whole(at: AppTest) -> AppTest:
    """Run the page again, and once more whole: after a knob's move the app tester holds only the parts that followed it."""
    return rerun(rerun(at))


def draft_in(at: AppTest) -> Draft:
    """The draft that the page's address names."""
    from core.files import read_json

    name = at.query_params.get("draft")
    return Draft.from_dict(read_json(room("drafts") / f"{name[0] if isinstance(name, list) else name}.json"))


def said(at: AppTest) -> str:
    """All text on the page."""
    kinds = ("markdown", "caption", "error", "warning", "info", "title", "header", "subheader", "code", "text")
    return "\n".join(str(element.value) for kind in kinds for element in at.get(kind))


def charts(at: AppTest) -> list[str]:
    """Alternative text of every chart on the page."""
    return [data["alt"] for data in components(at).values() if "alt" in data]


def figure(at: AppTest, name: str | None = None) -> Any:
    """The Plotly figure of a chart: the first of the page, or that of a name."""
    found = components(at)
    return found[next(one for one in found if "figure" in found[one]) if name is None else name]["figure"]


def board(at: AppTest) -> dict[str, Any]:
    """What the targets page's board is given to draw."""
    return components(at)["board"]


def components(at: AppTest) -> dict[str, dict[str, Any]]:
    """What each component of ours is given, by its name."""
    return {data["name"]: data for chart in at.get("bidi_component") for data in [json.loads(chart.proto.json)]}  # type: ignore[attr-defined]


def select(at: AppTest, name: str, x: tuple[float, float], y: tuple[float, float]) -> AppTest:
    """Do what a box on a chart in the browser does (a click if it has no extent): the app tester has no gesture for it."""
    chart = next(chart for chart in at.get("bidi_component") if json.loads(chart.proto.json)["name"] == name)  # type: ignore[attr-defined]
    states = WidgetStates()
    widget = states.widgets.add()
    widget.id = f"{STREAMLIT_INTERNAL_KEY_PREFIX}_{chart.proto.id}__events"  # type: ignore[attr-defined]
    widget.json_trigger_value = json.dumps([{"event": "area", "value": [*x, *y]}])
    at._run(widget_state=states)
    assert not at.exception, at.exception
    return at
