"""Rows and sentences made from what a run found."""

import pytest

from core.report.tables import common_start, domains_of, model_rows, quality_rows, recovered_of, sentence, spec_differences, title_of
from core.specs import DistillSpec, RunSpec, Targets
from tests.synthetic_runs import SPEC, results


def test_rows_carry_units_and_dashes_where_nothing_is_to_say() -> None:
    teacher, pruned, distilled = model_rows(results())
    assert teacher["change"] == "–"
    assert (pruned["parameters"], pruned["change"]) == ("107 M", "−20.2 %")
    assert distilled["decode"] == "26.9 tokens/s"
    assert quality_rows(results(), "sotu")[0]["KL to the teacher"] == "–"
    assert quality_rows(results(), "sotu")[1]["above the teacher"] == "2.10 nats"


def test_nothing_measured_makes_no_rows_and_an_honest_sentence() -> None:
    assert model_rows({}) == []
    assert domains_of({}) == []
    assert sentence({}) == "There is no measured result yet."


def test_the_sentence_is_made_of_the_numbers() -> None:
    text = sentence(results())
    assert all(part in text for part in ("135 M to 107 M", "−20.2 %", "perplexity is 32.9 (teacher 18.4)", "70.4 %"))
    assert "won back" not in sentence(results(("teacher", "pruned")))


def test_recovered_needs_all_three_models() -> None:
    assert recovered_of(results(), "wikipedia") == pytest.approx(0.704, abs=1e-3)
    assert recovered_of(results(("teacher", "pruned")), "wikipedia") is None
    found = results()
    worse = {"heldout": {"wikipedia": {"loss_nats": found["pruned"]["heldout"]["wikipedia"]["loss_nats"] + 1}}}
    more = recovered_of(found | {"cut": worse}, "wikipedia")
    assert more is not None
    assert more > 0.704, "what repair made good counts too"


def test_only_what_differs_is_listed() -> None:
    other = RunSpec(kind="distill", name="another", targets=SPEC.targets, distill=DistillSpec(steps=90))
    rows = dict(spec_differences([SPEC.to_dict(), other.to_dict()]))
    assert rows == {"distill.steps": [60, 90]}
    assert spec_differences([SPEC.to_dict(), SPEC.to_dict()]) == []


def test_titles() -> None:
    assert title_of(SPEC) == "Prune and distill the embedded model: 24 layers and 1280 neurons"
    assert title_of(RunSpec(name="Mine")) == "Mine"
    assert title_of(RunSpec(kind="prune", model="owner/Big-7B/", targets=Targets(num_hidden_layers=1))) == "Prune Big-7B: 1 layer"


@pytest.mark.parametrize(("one", "other", "shared"), [
    ("a b c", "a b c", "a b c"), ("a b c", "a b d", "a b "), ("Paris is", "Parma is", ""), ("a b", "a b c", "a b"), ("", "x", ""), ("a\nbe", "a\nbo", "a\n"),
])  # fmt: skip
def test_texts_part_at_a_whole_word(one: str, other: str, shared: str) -> None:
    assert other[: common_start(one, other)] == shared


def test_the_best_of_a_search_is_called_repaired_where_its_figures_are_those_of_the_repaired_model() -> None:
    found = results(("teacher",)) | {"draft": results(("pruned",))["pruned"]}
    assert model_rows(found)[-1]["model"] == "Draft, by masks"
    found["draft"]["repaired"] = True
    assert model_rows(found)[-1]["model"] == quality_rows(found, "wikipedia")[-1]["model"] == "Best candidate, repaired"
