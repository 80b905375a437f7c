"""The draft: kept on disk by content, named by the address, undone step by step; and widgets that follow it."""

from pathlib import Path

from app.state import Draft
from core.files import read_json
from core.specs import Targets
from core.workspace import room
from tests.app.ready import draft_in, make_model, open_page, rerun, said


def test_a_draft_survives_as_json() -> None:
    draft = Draft(model="somewhere", targets=Targets(num_hidden_layers=3))
    assert Draft.from_dict(draft.to_dict()) == draft


def test_a_link_opens_the_same_draft_in_another_tab(tmp_path: Path) -> None:
    at = open_page("targets", Draft(model=str(make_model(tmp_path / "small"))))
    at.slider(key="w_layers").set_value(2)
    rerun(at)
    again = open_page("targets", draft_in(at))
    assert again.slider(key="w_layers").value == 2


def test_a_link_to_an_unknown_draft_says_so_once_and_shows_the_default(tmp_path: Path) -> None:
    at = open_page("model", Draft(model=str(make_model(tmp_path / "small"))))
    at.query_params["draft"] = "b2-gone"
    rerun(at)
    assert "b2-gone" in said(at)
    rerun(at)
    assert "b2-gone" not in said(at)


def test_a_draft_file_that_is_no_draft_counts_as_unknown(tmp_path: Path) -> None:
    at = open_page("model", Draft(model=str(make_model(tmp_path / "small"))))
    for name, content in (("b2-torn", "{"), ("b2-odd", '{"model": 3, "colour": 1}'), ("b2-list", "[]"), ("b2-type", '{"model": 3}')):
        (room("drafts") / f"{name}.json").write_text(content)
        at.query_params["draft"] = name
        rerun(at)
        assert name in said(at)


def test_the_navigation_bar_drops_the_address_and_the_session_brings_it_back(tmp_path: Path) -> None:
    draft = Draft(model=str(make_model(tmp_path / "small")), targets=Targets(num_hidden_layers=2))
    at = open_page("targets", draft)
    at.query_params.clear()
    at.switch_page("../pages/1_model.py")
    rerun(at)
    assert draft_in(at) == draft


def test_another_model_begins_a_new_history(tmp_path: Path) -> None:
    first, second = make_model(tmp_path / "first"), make_model(tmp_path / "second")
    at = open_page("targets", Draft(model=str(first)))
    at.slider(key="w_layers").set_value(2)
    rerun(at)
    at.switch_page("../pages/1_model.py")
    rerun(at)
    at.text_input(key="w_model_Local folder").set_value(str(second))
    rerun(at)
    at.switch_page("../pages/3_targets.py")
    rerun(at)
    assert at.button(key="undo").disabled


def test_drafts_are_stored_under_the_hash_of_their_content(tmp_path: Path) -> None:
    at = open_page("targets", Draft(model=str(make_model(tmp_path / "small"))))
    at.slider(key="w_layers").set_value(2)
    rerun(at)
    for path in room("drafts").glob("*.json"):
        assert Draft.from_dict(read_json(path)).identity() == path.stem
