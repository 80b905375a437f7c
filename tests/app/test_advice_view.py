"""Advice on what a form decides is followed on the page of that form."""

from pathlib import Path

import pytest

from app.state import Draft
from core.specs import Targets
from tests.app.ready import draft_in, make_model, open_page, rerun


@pytest.mark.parametrize(
    ("name", "page", "kind", "key", "value"),
    [
        ("judge_after_retraining", "4_candidates", "number_input", "w_search_retrain_steps", 20),
        ("states_for_depth", "5_distill", "multiselect", "w_intermediate", ["output", "embedding"]),
        ("distil_only", "5_distill", "number_input", "w_ce_weight", 0.0),
        ("largest_first", "5_distill", "segmented_control", "w_kind", "family"),
    ],
)
def test_advice_on_a_form_is_followed_on_its_page(tmp_path: Path, name: str, page: str, kind: str, key: str, value: object) -> None:
    at = open_page("targets", Draft(model=str(make_model(tmp_path / "small")), targets=Targets(num_hidden_layers=1)))
    if key == "w_ce_weight":
        at.session_state[key] = 0.5
    at.button(key=f"advice_{name}").click()
    rerun(at)
    at.switch_page(f"../pages/{page}.py").run()
    assert not at.exception, at.exception
    assert getattr(at, kind)(key=key).value == value


def test_advice_on_the_model_opens_its_page_and_changes_nothing(tmp_path: Path) -> None:
    draft = Draft(model=str(make_model(tmp_path / "small")), targets=Targets(num_hidden_layers=1))
    at = open_page("targets", draft)
    at.button(key="advice_start_from_the_closest").click()
    rerun(at)
    assert [title.value for title in at.title] == ["Model & data"]
    assert draft_in(at) == draft
