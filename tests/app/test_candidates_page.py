"""The search page: what it will do, refusal of what it cannot, the numbers of a search, picking, and a candidate that becomes the draft."""

import dataclasses
from pathlib import Path

import pytest

from app.state import Draft
from core.files import write_json
from core.runs import control
from core.runs.folder import Run, create
from core.runs.status import Status
from core.search import ledger
from core.specs import RankSpec, RunSpec, SearchSpec, Targets
from tests.app.ready import charts, draft_in, make_model, open_page, rerun, said
from tests.report.test_search_figures import ROWS, row

FIGURES = {"perplexity": 30.1, "kl_nats": 0.43, "top1_agreement": 0.6}


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    return Draft(model=str(make_model(tmp_path / "small")), rank=RankSpec(neurons="wanda"))


def searched(draft: Draft, rows: list[ledger.Row], state: str = "done") -> Run:
    run = create(dataclasses.replace(draft, targets=Targets()).run_spec(kind="search"))
    ledger.write(run.path, pool=75, seconds=9.0, teacher={}, rows=rows)
    write_json(run.path / "results.json", {"pool": [], "teacher": {"heldout": {"sotu": FIGURES | {"perplexity": 20.0}}}})
    run.write_status(Status(state=state, created=1.0))
    return run


def test_the_form_tells_what_the_search_will_do_and_starts_it(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[RunSpec] = []
    monkeypatch.setattr(control, "start", lambda spec: started.append(spec) or create(spec))
    at = open_page("candidates", dataclasses.replace(draft, targets=Targets(num_hidden_layers=3)))
    assert "--keep" not in at.code[-1].value, "what is the default is not spelled out"
    at.slider(key="w_search_keep").set_value(60)
    at.number_input(key="w_search_evaluations").set_value(8)
    rerun(at)
    assert "--keep 0.6" in at.code[-1].value
    at.button(key="start_search").click()
    rerun(at)
    assert len(started) == 1
    assert started[0].kind == "search"
    assert (started[0].search.keep, started[0].search.evaluations) == (0.6, 8)
    assert started[0].rank == draft.rank
    assert started[0].targets == Targets(), "a search does not begin at the draft's sizes"


def test_a_budget_below_the_smallest_model_is_told_and_cannot_be_started(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    from app import search_form

    monkeypatch.setattr(search_form, "SearchSpec", lambda **values: SearchSpec(**(values | {"keep": 0.001} if values else {})))
    at = open_page("candidates", draft)
    assert "the smallest model that this grid holds" in at.error[0].value
    assert at.button(key="start_search").disabled


def test_a_finished_search_shows_its_best_and_why_and_all_it_measured(draft: Draft) -> None:
    searched(draft, [*ROWS[:1], ROWS[1] | {"heldout": {"sotu": FIGURES}}, ROWS[2]])
    at = open_page("candidates", draft)
    assert any("Best: candidate 2" in heading.value for heading in at.subheader)
    assert "candidate 2 diverges least" in said(at)
    assert len(charts(at)) == 2
    assert list(at.dataframe[0].value["Candidate"]) == [2, 3, 1]
    assert list(at.table[0].value["Perplexity"]) == ["30.1"]


def test_one_click_makes_the_best_candidate_the_draft(draft: Draft) -> None:
    searched(draft, [row(1, 0.5, 9000, 9000, intermediate_size=20), row(2, 0.3, 9000, 9000, num_hidden_layers=3)])
    at = open_page("candidates", Draft())
    at.button(key="take_candidate").click()
    rerun(at)
    taken = draft_in(at)
    assert taken == dataclasses.replace(draft, targets=Targets(num_hidden_layers=3))


def test_a_candidate_takes_the_ranking_that_it_won_by_along_into_the_draft(draft: Draft) -> None:
    rank = dataclasses.replace(draft.rank, depth="ppl")
    searched(draft, [row(1, 0.5, 9000, 9000, num_hidden_layers=3), row(2, 0.3, 9000, 9000, num_hidden_layers=3) | {"rank": rank.to_dict()}])
    at = open_page("candidates", Draft())
    assert "chosen by loss when removed" in said(at)
    at.button(key="take_candidate").click()
    rerun(at)
    assert draft_in(at) == dataclasses.replace(draft, targets=Targets(num_hidden_layers=3), rank=rank)


def test_what_is_picked_is_offered_instead_of_the_best(draft: Draft) -> None:
    searched(draft, [row(1, 0.5, 9000, 9000, intermediate_size=20), row(2, 0.3, 9000, 9000, num_hidden_layers=3)])
    at = open_page("candidates", draft)
    at.session_state["m_search_picked"] = [1]
    rerun(at)
    assert "candidate 1" in at.button(key="take_candidate").label
    at.button(key="pick_none").click()
    rerun(at)
    assert "candidate 2" in at.button(key="take_candidate").label


@pytest.mark.parametrize("rows", [[], ROWS[:1]])
def test_a_search_that_was_stopped_early_keeps_what_it_has_and_can_be_resumed(draft: Draft, rows: list[ledger.Row]) -> None:
    searched(draft, rows, "stopped")
    at = open_page("candidates", draft)
    assert at.button(key="resume")
    assert ("Candidates appear here" in said(at)) is not bool(rows)
