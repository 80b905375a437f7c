"""What a slider's move comes to is told beforehand: at every size exactly what the page says once the move was made."""

import json
from pathlib import Path
from typing import Any

import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetStates
from streamlit.runtime.state.session_state import STREAMLIT_INTERNAL_KEY_PREFIX
from streamlit.testing.v1 import AppTest

from app.state import Draft
from core.specs import RankSpec, Targets
from tests.app.ready import board, components, make_model, make_scores, open_page, rerun, whole


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    return Draft(model=str(make_model(tmp_path / "small")))


def asked(at: AppTest, axis: str) -> dict[str, Any]:
    """Ask for a slider's answers as the browser does."""
    ahead = next(one for one in at.get("bidi_component") if json.loads(one.proto.json)["name"] == "ahead")  # type: ignore[attr-defined]
    states = WidgetStates()
    widget = states.widgets.add()
    widget.id = f"{STREAMLIT_INTERNAL_KEY_PREFIX}_{ahead.proto.id}__events"  # type: ignore[attr-defined]
    widget.json_trigger_value = json.dumps([{"event": "axis", "value": axis}])
    at._run(widget_state=states)
    assert not at.exception, at.exception
    return components(at)["ahead"]


def shown(at: AppTest) -> dict[str, Any]:
    """What the page shows of the draft."""
    return {key: value for key, value in board(at).items() if key != "name"} | {"cut": components(at)["cut"]["said"]}


def painted(table: dict[str, Any], size: int) -> dict[str, Any]:
    """What ahead.js makes of an answer."""
    base, answer = table["base"], table["answers"][str(size)]
    return base | answer | {name: base[name] | answer.get(name, {}) for name in ("strip", "sizes")}


@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize(
    ("axis", "kind", "sizes"),
    [
        ("layers", "slider", range(1, 6)), ("ffn", "select_slider", (8, 30, 40)), ("kv_heads", "select_slider", (1, 2, 3)),
        ("group", "select_slider", (1, 2)), ("hidden", "select_slider", (6, 18, 24)),
    ],
)  # fmt: skip
def test_every_answer_is_what_the_page_says_after_the_move(draft: Draft, scored: bool, axis: str, kind: str, sizes: range) -> None:
    if scored:
        make_scores(Path(draft.model), draft)
    at = open_page("targets", draft)
    at.toggle(key="w_any_size").set_value(True)
    table = asked(rerun(at), axis)
    assert painted(table, int(shown(at)["sizes"][axis])) == shown(at)
    for size in sizes:
        getattr(at, kind)(key=f"w_{axis}").set_value(size)
        assert painted(table, size) == shown(whole(at))


def test_nothing_is_told_before_it_is_asked_for(draft: Draft) -> None:
    at = open_page("targets", draft)
    assert "answers" not in components(at)["ahead"]


def test_a_size_that_cannot_be_built_has_no_answer(draft: Draft) -> None:
    at = open_page("targets", Draft(model=draft.model, rank=RankSpec(protect_first=2)))
    assert list(asked(at, "layers")["answers"]) == ["2", "3", "4", "5"]


def test_where_the_page_itself_says_what_is_wrong_nothing_is_told(draft: Draft) -> None:
    make_scores(Path(draft.model), draft)
    for wrong in (Draft(model=draft.model, rank=RankSpec(heads="taylor")), Draft(model=draft.model, targets=Targets(hidden_size=23))):
        assert "answers" not in asked(open_page("targets", wrong), "ffn")
