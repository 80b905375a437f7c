"""The Runs page: finding, naming, starring, comparing, deleting and bringing back, and folders that are no whole run."""

import os
import shutil
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.files import read_json, write_json
from core.model.embedded import MODEL_NAME
from core.runs import control
from core.runs.folder import Run, all_runs
from core.runs.remarks import Remarks, remark, remarks, title
from core.specs import RUN_KINDS, DistillSpec, RunSpec
from core.workspace import ROOT, room
from tests.app.test_distill_page import CONFIG, labels, said
from tests.synthetic_runs import SPEC, held, make_run


@pytest.fixture(autouse=True)
def model(workspace: Path) -> None:
    """The embedded model's config, which is all that the page reads of it."""
    write_json(room("models") / MODEL_NAME / "config.json", CONFIG)


def page() -> AppTest:
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=30).run()
    at.switch_page("../pages/7_runs.py").run()
    assert not at.exception
    return at


def run(at: AppTest) -> AppTest:
    at.run()
    assert not at.exception
    return at


def press(at: AppTest, key: str) -> AppTest:
    at.button(key=key).click()
    return run(at)


def listed(at: AppTest) -> list[str]:
    """Ids of the runs on the page, in order."""
    return [button.key.removeprefix("open_") for button in at.button if str(button.key).startswith("open_2")]


def other_run() -> Run:
    return make_run(
        "interrupted", steps=3, spec=RunSpec(kind="distill", name="Second", targets=SPEC.targets, distill=DistillSpec(steps=90))
    )


def test_every_kind_of_run_is_in_the_list() -> None:
    stages = {"stages": ("intermediate_size=1152",)}
    made = [make_run("done", spec=RunSpec(kind=kind, name=kind, **(stages if kind == "family" else {}))) for kind in RUN_KINDS]
    at = page()
    assert set(listed(at)) == {run.id for run in made}


def test_without_a_run_it_says_what_to_do_next() -> None:
    at = page()
    assert "No run yet" in said(at)
    assert "Prune & distill" in labels(at)


def test_search_and_filters_find_runs_and_say_when_none_fits() -> None:
    first, second = make_run("done"), other_run()
    at = page()
    assert set(listed(at)) == {first.id, second.id}
    at.text_input(key="w_run_words").set_value("SECOND")
    assert listed(run(at)) == [second.id]
    at.text_input(key="w_run_words").set_value("")
    at.multiselect(key="w_run_states").set_value(["done"])
    assert listed(run(at)) == [first.id]
    at.multiselect(key="w_run_kinds").set_value(["score"])
    assert "No run fits" in run(at).info[0].value


def test_a_star_is_kept_on_disk_and_comes_first() -> None:
    old, new = make_run("done"), other_run()
    os.utime(old.path / "spec.json", (1, 1))
    at = page()
    assert listed(at) == [new.id, old.id]
    at.button(key=f"star_{old.id}").click()
    assert listed(run(at)) == [old.id, new.id]
    assert read_json(old.path / "remarks.json")["star"] is True
    at.toggle(key="w_run_starred").set_value(True)
    assert listed(run(at)) == [old.id]


def test_a_name_and_a_note_are_shown_as_text_and_leave_the_spec_alone() -> None:
    one = make_run("done")
    before = (one.path / "spec.json").read_bytes()
    at = page()
    press(at, f"edit_{one.id}")
    at.text_input(key="edit_name").set_value("Best **so** far")
    at.text_area(key="edit_note").set_value("<b>wide</b> [x](javascript:1)")
    press(at, "edit_save")
    assert title(one) == "Best **so** far"
    assert (one.path / "spec.json").read_bytes() == before
    text = said(page())
    assert "Best \\*\\*so\\*\\* far" in text
    assert "\\<b\\>wide\\</b\\>" in text.replace("\\\\", "\\")


@pytest.mark.parametrize("broken", ["[]", "{", '{"name": 3, "star": "yes", "note": null}'])
def test_remarks_that_cannot_be_understood_are_none(broken: str) -> None:
    one = make_run("done")
    (one.path / "remarks.json").write_text(broken)
    assert not remarks(one).star
    assert listed(page()) == [one.id]


def test_deleting_asks_names_the_size_and_can_be_undone() -> None:
    one = make_run("done")
    at = page()
    press(at, f"delete_{one.id}")
    assert "kB" in said(at)
    assert all_runs() == [one]
    press(at, "delete")
    assert all_runs() == []
    at = page()
    assert at.expander[0].label.startswith("Trash: 1 run, ")
    press(at, f"restore_{one.id}")
    assert all_runs() == [one]
    assert one.results()["distilled"]


def test_a_running_run_cannot_be_deleted_alone_or_among_others() -> None:
    with held(make_run("running", steps=3)) as live:
        at = page()
        assert at.button(key=f"delete_{live.id}").disabled
        at.checkbox(key=f"pick_{live.id}").check()
        assert run(at).button(key="delete_chosen").disabled


def test_marked_runs_go_to_the_comparison() -> None:
    first, second = make_run("done"), make_run("done", spec=RunSpec(kind="distill", name="Second", targets=SPEC.targets))
    at = page()
    for one in (first, second):
        at.checkbox(key=f"pick_{one.id}").check()
        run(at)
    press(at, "compare_chosen")
    assert at.multiselect(key="w_compared").value == [first.id, second.id]


def test_a_run_opens_on_its_page() -> None:
    one = make_run("done")
    at = page()
    press(at, f"open_{one.id}")
    assert at.title[0].value == "Prune & distill"
    assert at.query_params["run"] in (one.id, [one.id])


def test_half_a_run_and_an_unreadable_one_are_named_with_a_way_on() -> None:
    half = room("runs") / "20260101-000000-distill-abcdef"
    half.mkdir()
    os.utime(half, (time.time() - 60,) * 2)
    torn = make_run("done")
    (torn.path / "spec.json").write_text('{"kind": ')
    at = page()
    assert f"**{half.name}**".replace("-", "\\-") in said(at)
    assert "does not hold a spec" in said(at)
    press(at, f"scrap_{half.name}")
    press(at, f"scrap_{torn.id}")
    assert list(room("runs").iterdir()) == []
    assert len(control.trash()) == 2


def test_a_run_that_vanishes_under_the_open_page_is_told_not_raised() -> None:
    one = make_run("done")
    at = page()
    shutil.rmtree(one.path)
    press(at, f"star_{one.id}")
    assert "was deleted or moved" in at.toast[0].value
    assert "No run yet" in said(at)


def test_the_tree_hangs_a_run_below_the_run_that_made_its_model() -> None:
    first = make_run("done")
    (first.path / "model").mkdir()
    second = make_run("done", spec=RunSpec(kind="distill", name="Again", model=str(first.path / "model"), targets=SPEC.targets))
    remark(first, Remarks(name="Mother"))
    at = page()
    at.toggle(key="table_lineage").set_value(True)
    table = run(at).dataframe[0].value.set_index("model")
    assert table.loc["Again", "made from"] == "Mother"
    assert table.loc["Mother", "made from"] == MODEL_NAME
    assert second.id in listed(at)
