"""Laws of the figures: pruned is hollow, the teacher dashed or a star, every figure tells its takeaway and its numbers."""

import numpy as np
import pytest

from core.report.curves import Curves
from core.report.run_figures import MAX_POINTS, heldout_picture, quality_picture, references_of, training_picture
from core.report.tables import model_rows, quality_rows
from tests.synthetic_runs import PRUNED_LOSS, TEACHER_LOSS, results, step_event


def curves(steps: int) -> Curves:
    return Curves().extend(step_event(float(step), step, steps) for step in range(1, steps + 1))


def test_training_draws_at_most_so_many_points_and_says_where_it_went() -> None:
    picture = training_picture(curves(3000))
    assert all(len(trace.x) <= MAX_POINTS for trace in picture.figure.data)
    assert "step 1 to" in picture.alt
    assert picture.figure.layout.yaxis.type == "log"
    assert {"step", "KL, nats"} <= set(picture.table.columns)


def test_the_same_data_make_the_same_figure_so_that_nothing_is_redrawn() -> None:
    assert training_picture(curves(50)).figure.to_json() == training_picture(curves(50)).figure.to_json()


def test_the_window_shows_the_last_steps_only() -> None:
    picture = training_picture(curves(60), window=20, log=False)
    assert picture.table["step"].tolist() == list(range(41, 61))


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_training_can_be_drawn_from_the_first_moment(steps: int) -> None:
    assert training_picture(curves(steps)).alt


def test_heldout_lies_between_a_dashed_and_a_dotted_line_in_each_domain() -> None:
    picture = heldout_picture(curves(60), references_of(results()))
    lines = {(trace.name, trace.line.dash): set(trace.y) for trace in picture.figure.data if trace.line.dash}
    assert lines == {("Teacher", "dash"): {TEACHER_LOSS["sotu"]}, ("Pruned, not retrained", "dot"): {PRUNED_LOSS["sotu"]}}
    assert "wikipedia: 70 % of the gap recovered" in picture.alt
    assert picture.table["gap recovered"].between(0, 1).all()


def test_a_repaired_run_shows_what_the_cut_lost_and_counts_from_there() -> None:
    cut = {"heldout": {domain: {"loss_nats": loss + 1} for domain, loss in PRUNED_LOSS.items()}}
    bare, repaired = (heldout_picture(curves(60), references_of(results() | more)) for more in ({}, {"cut": cut}))
    names = {trace.name for trace in repaired.figure.data if trace.line.dash}
    assert names == {"Teacher", "Repaired, not retrained", "Cut, before repair"}
    pairs = zip(repaired.table["gap recovered"], bare.table["gap recovered"], repaired.table["domain"], strict=True)
    for counted, before, domain in pairs:
        gap = PRUNED_LOSS[domain] - TEACHER_LOSS[domain]
        assert np.isclose(1 - counted, (1 - before) * gap / (gap + 1))


def test_every_table_and_picture_calls_a_repaired_model_repaired() -> None:
    repaired = results() | {"cut": results()["pruned"]}
    assert "Repaired, not retrained" in {row["model"] for row in model_rows(repaired)}
    rows = quality_rows(repaired, "wikipedia")
    assert [row["model"] for row in rows] == ["Teacher", "Cut, before repair", "Repaired, not retrained", "Distilled"]
    picture = quality_picture([{"name": "A", "results": repaired}], "wikipedia")
    assert "A, repaired, not retrained" in picture.table["model"].tolist()


def test_a_glance_at_few_blocks_is_measured_against_the_same_blocks() -> None:
    glance = {"teacher": {"wikipedia": 2.8}, "pruned": {"wikipedia": 4.6}}
    assert references_of(results() | {"glance": glance}) == glance


def test_pruned_is_hollow_distilled_filled_and_one_teacher_a_star() -> None:
    runs = [{"name": "A", "results": results()}, {"name": "B", "results": results(("teacher", "pruned"))}]
    picture = quality_picture(runs, "wikipedia")
    symbols = {trace.name: trace.marker.symbol for trace in picture.figure.data if trace.mode == "markers"}
    assert symbols == {
        "Teacher": "star", "A, pruned, not retrained": "circle-open", "A, distilled": "circle", "B, pruned, not retrained": "square-open",
    }  # fmt: skip
    assert "A: 107 M parameters" in picture.alt
    assert np.isclose(picture.table["nats above the teacher"][0], 0)


def test_what_was_not_measured_is_not_drawn() -> None:
    picture = quality_picture([{"name": "A", "results": {}}], "wikipedia")
    assert picture.table.empty
    assert "nothing measured" in picture.alt
