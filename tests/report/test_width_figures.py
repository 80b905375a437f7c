"""Figures of neurons and channels: binning keeps the sum, the cut line stands where the draft cuts."""

import numpy as np
import pytest

from core.plan.plan import top
from core.report.picture import log_ticks
from core.report.width_figures import binned, cut_curve, kept_share, neuron_map, places_between, score_histogram

RNG = np.random.default_rng(1)
SCORE_LF = RNG.lognormal(size=(5, 40))
KEPT_L = np.array([True, True, False, True, True])


@pytest.mark.parametrize("bins", [1, 7, 40, 256])
def test_bins_fall_from_left_to_right_and_keep_the_sum(bins: int) -> None:
    bins_LQ = binned(-np.sort(-SCORE_LF, axis=1), bins)
    sizes = np.diff(np.linspace(0, 40, min(bins, 40) + 1).astype(int))
    assert bins_LQ.shape == (5, min(bins, 40))
    assert (np.diff(bins_LQ, axis=1) <= 1e-12).all()
    assert np.allclose((bins_LQ * sizes).sum(axis=1), SCORE_LF.sum(axis=1))


def test_the_kept_share_is_that_of_the_largest() -> None:
    assert kept_share(np.array([[1.0, 5.0, 4.0]]), 2).tolist() == [0.9]


def test_the_kept_share_heeds_pins() -> None:
    pinned_LN = np.array([[1, -1, 0]])
    assert kept_share(np.array([[1.0, 5.0, 4.0]]), 2, pinned_LN).tolist() == [0.5]


def test_pins_are_marked_on_the_curve_and_the_cut_stands_behind_the_last_free_unit_that_stays() -> None:
    pinned_N = np.zeros(40, np.int8)
    order = np.argsort(-SCORE_LF[0])
    pinned_N[order[[0, 39]]] = [-1, 1]
    picture = cut_curve(SCORE_LF[0], 30, "neurons", pinned_N=pinned_N)
    marks = {trace.name: list(trace.x) for trace in picture.figure.data if trace.name.startswith("pinned")}
    assert marks == {"pinned to stay": [40], "pinned to go": [1]}
    assert picture.table["kept"].tolist() == [False] + [True] * 29 + [False] * 9 + [True]
    assert picture.figure.layout.shapes[-1].x0 == 30.5
    assert "1 pinned to stay (diamond) and 1 pinned to go (x) by hand" in picture.alt


def test_a_slice_of_the_map_leads_to_its_neurons_and_a_pinned_neuron_to_its_slice() -> None:
    for first, last in ((0, 1), (3, 3), (38, 39)):
        assert places_between((first + 0.5) * 2.5, (last + 0.5) * 2.5, 40) == range(first, last + 1)
    assert places_between(3.0, 3.1, 40) == range(0)
    assert len(places_between(0, 100, 14336)) == 14336
    pinned_LF = np.zeros((5, 40), np.int8)
    pinned_LF[3, np.argsort(-SCORE_LF[3])[7]] = 1
    mark = next(trace for trace in neuron_map(SCORE_LF, 30, KEPT_L, pinned_LF=pinned_LF).figure.data if trace.name == "pinned to stay")
    assert round(float(mark.x[0])) == 3
    assert places_between(float(mark.y[0]), float(mark.y[0]), 40) == range(7, 8)


def test_a_pinned_unit_stays_in_the_figures_as_it_does_in_the_plan() -> None:
    pinned_N = np.random.default_rng(3).choice([-1, 0, 0, 0, 1], 40).astype(np.int8)
    table = cut_curve(SCORE_LF[1], 20, "neurons", pinned_N=pinned_N).table
    steered = np.where(pinned_N > 0, np.inf, np.where(pinned_N < 0, -np.inf, SCORE_LF[1]))
    assert sorted(table["index"][table["kept"]]) == top(steered, 20).tolist()


def test_the_map_marks_the_cut_and_crosses_removed_layers() -> None:
    figure = neuron_map(SCORE_LF, 30, KEPT_L).figure
    assert [shape.y0 for shape in figure.layout.shapes] == [75]
    crosses = next(trace for trace in figure.data if trace.name == "removed")
    assert set(crosses.x) == {2}


def test_a_draft_that_keeps_all_draws_no_cut() -> None:
    assert not neuron_map(SCORE_LF, 40, np.ones(5, bool)).figure.layout.shapes
    assert not cut_curve(SCORE_LF[0], 40, "neurons").figure.layout.shapes
    assert not score_histogram(SCORE_LF[0], 40, "neurons").figure.layout.shapes


def test_units_of_no_importance_draw_without_complaint() -> None:
    assert neuron_map(np.zeros((5, 40)), 30, KEPT_L).figure.data
    assert score_histogram(np.zeros(40), 30, "neurons").figure.data


def test_the_curve_splits_at_the_cut() -> None:
    kept, pruned = cut_curve(SCORE_LF[0], 30, "neurons").figure.data
    assert (len(kept.x), len(pruned.x)) == (30, 11)
    assert kept.x[-1] == pruned.x[0]


def test_the_table_of_a_curve_lists_every_unit_from_the_best() -> None:
    table = cut_curve(SCORE_LF[0], 30, "neurons").table
    assert table["kept"].sum() == 30
    assert sorted(table["index"]) == list(range(40))
    assert table["importance"].is_monotonic_decreasing


def test_the_histogram_counts_every_unit() -> None:
    assert score_histogram(SCORE_LF[0], 30, "neurons").table["neurons"].sum() == 40


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.09, 3, [0.1, 0.2, 0.5, 1, 2]), (1e-6, 10, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10])]
)
def test_logarithmic_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(expected)


def test_the_curve_shades_from_the_first_to_the_last_undecided_place() -> None:
    order = np.argsort(-SCORE_LF[0])
    undecided_F = np.zeros(40, bool)
    undecided_F[order[[26, 28, 33]]] = True
    picture = cut_curve(SCORE_LF[0], 30, "neurons", undecided_F)
    band = next(shape for shape in picture.figure.layout.shapes if shape.type == "rect")
    assert (band.x0, band.x1) == (26.5, 34.5)
    strokes = next(trace for trace in picture.figure.data if trace.name == "undecided")
    assert list(strokes.x) == [27, 29, 34]
    assert "For 3 of them the cut is within the noise (shaded)." in picture.alt
    assert picture.table["undecided"].sum() == 3


def test_a_sure_cut_is_not_shaded() -> None:
    picture = cut_curve(SCORE_LF[0], 30, "neurons", np.zeros(40, bool))
    assert not [shape for shape in picture.figure.layout.shapes if shape.type == "rect"]
    assert "For 0 of them" in picture.alt


def test_a_histogram_over_less_than_a_decade_has_ticks() -> None:
    narrow = score_histogram(np.linspace(240, 400, 40), 30, "channels").figure
    assert narrow.layout.xaxis.tickvals is None
    assert len(score_histogram(np.geomspace(0.1, 10, 40), 30, "channels").figure.layout.xaxis.tickvals) > 1
