"""The draft: kept on disk by content, named by the address, undone step by step; and widgets that follow it."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import history
from app.state import Draft
from core.files import read_json
from core.specs import Pins, RankSpec, Targets
from core.workspace import room
from tests.app.ready import draft_in, make_model, open_page, rerun, said, whole


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
    assert "b2\\-gone, which is not in this workspace" in said(at)
    rerun(at)
    assert "b2\\-gone" not in said(at)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot use: "),
        ('{"colour": 1}', "colour"),
        ('{"model": 3}', "cannot"),
        ('{"targets": {"num_hidden_layers": -3}}', "-3"),
    ],
)
def test_a_draft_file_that_is_no_draft_is_answered_with_the_reason(tmp_path: Path, content: str, why: str) -> None:
    at = open_page("model", Draft(model=str(make_model(tmp_path / "small"))))
    (room("drafts") / "odd.json").write_text(content)
    at.query_params["draft"] = "odd"
    rerun(at)
    told = next(warning.value for warning in at.warning if "names the draft odd" in warning.value).replace("\\", "")
    assert why in told
    assert "is not in this workspace" not in told


@pytest.mark.parametrize("name", ["a" * 400, "x\0y", "../../etc/passwd", "**bold**"])
def test_whatever_a_link_calls_a_draft_is_answered_in_a_sentence(tmp_path: Path, name: str) -> None:
    at = open_page("model", Draft(model=str(make_model(tmp_path / "small"))))
    at.query_params["draft"] = name
    rerun(at)
    told = at.warning[0].value
    assert "The default is shown" in told
    assert len(told) < 200
    assert "**" not in told.replace("\\*", "")


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
    at.button(key="undo").click()
    rerun(at)
    assert draft_in(at).model == str(second)
    assert "nothing to undo" in at.toast[0].value


def sized(at: AppTest, layers: int) -> AppTest:
    at.slider(key="w_layers").set_value(layers)
    return whole(at)


def test_undo_and_redo_survive_a_reload(tmp_path: Path) -> None:
    at = open_page("targets", Draft(model=str(make_model(tmp_path / "small"))))
    for layers in (4, 3):
        sized(at, layers)
    again = open_page("targets", draft_in(at))
    for layers in (4, 5):
        again.button(key="undo").click()
        assert rerun(again).slider(key="w_layers").value == layers
    again.button(key="undo").click()
    assert rerun(again).slider(key="w_layers").value == 5, "the first version"
    fresh = open_page("targets", draft_in(again))
    for layers in (4, 3):
        fresh.button(key="redo").click()
        assert rerun(fresh).slider(key="w_layers").value == layers
    fresh.button(key="redo").click()
    assert rerun(fresh).slider(key="w_layers").value == 3, "the last version"


def test_a_change_after_undo_is_a_branch_and_redo_follows_the_way_back(tmp_path: Path) -> None:
    at = open_page("targets", Draft(model=str(make_model(tmp_path / "small"))))
    sized(at, 4)
    at.button(key="undo").click()
    sized(rerun(at), 2)
    first, four, two = history.read().values()
    assert (four.parent, two.parent) == (first.key, first.key)
    assert history.family(history.read(), two.key) == [first, four, two]
    at.button(key="undo").click()
    rerun(at)
    at.button(key="redo").click()
    assert rerun(at).slider(key="w_layers").value == 2


def test_the_same_draft_reached_twice_is_two_versions_and_undo_goes_back_the_way_it_came(tmp_path: Path) -> None:
    at = open_page("targets", Draft(model=str(make_model(tmp_path / "small"))))
    for layers in (4, 3, 4, 2):
        sized(at, layers)
    for layers in (4, 3, 4, 5):
        at.button(key="undo").click()
        assert rerun(at).slider(key="w_layers").value == layers


def test_a_version_is_named_and_gone_back_to(tmp_path: Path) -> None:
    at = open_page("targets", Draft(model=str(make_model(tmp_path / "small"))))
    sized(at, 4)
    version = list(history.read().values())[-1]
    history.rename(version.key, "gentle")
    sized(at, 3)
    at.session_state["versions"] = True
    rerun(at)
    button = at.button(key=f"version_{version.key}")
    assert "gentle" in button.label
    assert "layers 4" in button.label
    button.click()
    assert rerun(at).slider(key="w_layers").value == 4


def test_torn_lines_of_the_history_are_passed_over(tmp_path: Path) -> None:
    key = history.add("b2-one", None)
    with history.file().open("a") as file:
        file.write('{"version": "x"\n[]\n{"version": 3}\n')
    assert list(history.read()) == [key]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, Draft(), "the beginning"),
        (Draft(), Draft(targets=Targets(num_hidden_layers=3)), "layers 3"),
        (Draft(targets=Targets(num_hidden_layers=3)), Draft(), "layers as in the model"),
        (Draft(), Draft(rank=RankSpec(heads="wanda"), pins=Pins(keep_heads=("1.0",))), "heads by wanda and pins"),
    ],
)
def test_a_step_is_told_in_a_few_words(before: Draft | None, after: Draft, told: str) -> None:
    assert history.said(before, after) == told


def test_drafts_are_stored_under_the_hash_of_their_content(tmp_path: Path) -> None:
    at = open_page("targets", Draft(model=str(make_model(tmp_path / "small"))))
    at.slider(key="w_layers").set_value(2)
    rerun(at)
    for path in room("drafts").glob("*.json"):
        assert Draft.from_dict(read_json(path)).identity() == path.stem
