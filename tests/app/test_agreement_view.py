"""The agreement view: all criteria of an axis against each other, and how sure each is."""

import dataclasses
from pathlib import Path

import pytest

from app.state import Draft
from core.score import store
from core.score.confidence import agreement, confidence, undecided_heads
from core.specs import RankSpec, ScoreSpec, Targets
from tests.app.ready import charts, make_model, make_scores, open_page, rerun, said

CUT = Targets(num_hidden_layers=3, intermediate_size=30, num_attention_heads=3, num_key_value_heads=3, hidden_size=18)


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    """A draft with all passes, that cuts every axis."""
    score = ScoreSpec(gradient_blocks=8, covariances=True, pre_activation=True, windows=(2,), greedy=2)
    draft = Draft(model=str(make_model(tmp_path / "small")), score=score, targets=CUT)
    make_scores(Path(draft.model), draft)
    return draft


@pytest.mark.parametrize(("axis", "kept"), [("layers", 3), ("heads", 3), ("neurons", 30), ("channels", 18)])
def test_all_criteria_are_compared_at_the_drafts_size(draft: Draft, axis: str, kept: int) -> None:
    at = open_page("importance", draft, view="Agreement")
    at.segmented_control(key="w_agreement_axis").set_value(axis)
    rerun(at)
    for name in ("spearman", "overlap"):
        at.toggle(key=f"table_{name}").set_value(True)
    rerun(at)
    found = agreement(store.all_scores()[0], axis, draft.rank, kept, removed=2)
    spearman, overlap = (frame.value.drop(columns="criterion").to_numpy() for frame in at.dataframe)
    assert spearman == pytest.approx(found.spearman_CC)
    assert overlap == pytest.approx(found.overlap_CC)


def test_how_sure_each_criterion_is_stands_below_with_those_that_cannot_tell(draft: Draft) -> None:
    at = open_page("importance", draft, view="Agreement")
    at.toggle(key="table_stability").set_value(True)
    rerun(at)
    table = at.dataframe[0].value.set_index("criterion")
    scores = store.all_scores()[0]
    sure = confidence(scores, "heads", RankSpec(heads="taylor"))
    kept_layers = sorted((-scores.importance("layers", draft.rank, 2)).argsort()[:3])
    assert table.loc["Taylor, first order", "stability"] == pytest.approx(sure.stability)
    open_heads_LH = undecided_heads(scores, RankSpec(heads="taylor"), 3, 3, 1)  # three groups stay, of each one of two heads
    assert table.loc["Taylor, first order", "undecided"] == open_heads_LH[kept_layers].sum()
    assert "Weight magnitude" not in table.index
    assert "Weight magnitude" in next(caption.value for caption in at.caption if "it cannot be told" in caption.value)


def test_without_a_cut_there_is_no_overlap_but_a_way_to_choose_one(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=Targets()), view="Agreement")
    assert len(charts(at)) == 2
    assert "ndecided" not in said(at)
    assert "keeps all" in at.info[0].value
    assert at.button(key="to_targets")


def test_a_criterion_that_cannot_answer_this_draft_is_left_out_and_breaks_nothing(draft: Draft) -> None:
    at = open_page("importance", dataclasses.replace(draft, targets=Targets(num_hidden_layers=2)), view="Agreement")
    at.segmented_control(key="w_agreement_axis").set_value("layers")
    rerun(at)
    at.toggle(key="table_spearman").set_value(True)
    rerun(at)
    titles = at.dataframe[0].value["criterion"].tolist()
    assert "Angle across a run" in titles
    assert "Loss without a run" not in titles
    assert "Removed one by one" not in titles


def test_one_shard_tells_nothing_about_confidence(tmp_path: Path) -> None:
    draft = Draft(model=str(make_model(tmp_path / "small")), score=ScoreSpec(shards=1))
    make_scores(Path(draft.model), draft)
    at = open_page("importance", draft, view="Agreement")
    assert len(charts(at)) == 1
    assert "cannot be told" in said(at)
