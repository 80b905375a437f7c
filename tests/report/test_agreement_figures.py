"""Figures of agreement and confidence: every pair has its number, every criterion its bar, and the sentence says what follows."""

import numpy as np
import pytest

from core.report.agreement_figures import overlap_matrix, percentile, spearman_matrix, stability_bars, unit_profile
from core.report.picture import CLEAR

TITLES = ["Activation", "Wanda", "Weight magnitude"]
RHO_CC = np.array([[1.0, 0.82, -0.1], [0.82, 1.0, -0.003], [-0.1, -0.003, 1.0]])


def test_every_pair_has_its_number_and_the_diagonal_is_empty() -> None:
    figure = spearman_matrix(TITLES, RHO_CC).figure
    cells = figure.data[0]
    assert [list(row) for row in cells.text] == [["", "0.82", "−0.10"], ["0.82", "", "0.00"], ["−0.10", "0.00", ""]]
    assert np.isnan(np.diagonal(np.array(cells.z, float))).all()
    assert list(cells.x) == list(cells.y) == TITLES


def test_correlations_are_coloured_around_zero() -> None:
    colours = spearman_matrix(TITLES, RHO_CC).figure.layout.coloraxis
    assert (colours.cmin, colours.cmax) == (-1, 1)
    assert colours.colorscale == spearman_matrix(TITLES, -RHO_CC).figure.layout.coloraxis.colorscale


def test_the_takeaway_names_the_pairs_that_are_most_and_least_alike() -> None:
    alt = spearman_matrix(TITLES, RHO_CC).alt
    assert "Most alike: Activation and Wanda, ρ = 0.82" in alt
    assert "least alike: Activation and Weight magnitude, ρ = −0.10" in alt


def test_overlap_is_written_in_percent_beside_what_chance_would_give() -> None:
    picture = overlap_matrix(TITLES, np.abs(RHO_CC), 0.5)
    assert picture.figure.data[0].text[0][1] == "82"
    assert "Two random choices would share 50.0 %." in picture.alt
    assert picture.table.loc[0, "Wanda"] == 0.82


def test_one_criterion_alone_is_no_comparison() -> None:
    assert "only one criterion" in spearman_matrix(TITLES[:1], np.ones((1, 1))).alt


def test_every_criterion_has_a_bar_with_its_undecided_units() -> None:
    picture = stability_bars(TITLES, [0.9, 0.4, 0.7], [3, 40, 12], 100)
    bars = picture.figure.data[0]
    assert list(bars.x) == [0.9, 0.4, 0.7]
    assert bars.text[1] == "0.40 · 40 undecided (40.0 %)"
    assert "most stable is Activation (ρ = 0.90), least Wanda (ρ = 0.40)" in picture.alt
    assert picture.table["undecided"].tolist() == [3, 40, 12]


def test_without_a_cut_nothing_is_undecided() -> None:
    picture = stability_bars(TITLES, [0.9, 0.4, 0.7], None, 100)
    assert list(picture.figure.data[0].text) == ["0.90", "0.40", "0.70"]
    assert "undecided" not in picture.table


def test_the_first_rank_is_the_hundredth_percentile() -> None:
    assert percentile(np.array([1, 50, 100]), 100).tolist() == [100, 51, 1]


@pytest.fixture
def ranks_C() -> np.ndarray:
    return np.array([2, 5, 9])


def test_a_units_profile_is_filled_where_it_is_kept_and_hollow_where_not(ranks_C: np.ndarray) -> None:
    picture = unit_profile(TITLES, ranks_C, np.array([1.0, 4.0, np.nan]), np.array([3.0, 7.5, np.nan]), 10, 5, "Wanda")
    kept, cut = picture.figure.data
    assert (list(kept.y), list(cut.y)) == (["Activation", "<b>Wanda</b>"], ["Weight magnitude"])
    assert cut.marker.color == CLEAR != kept.marker.color
    assert list(kept.x) == [90, 60]
    assert list(kept.error_x.array) == [10, 10]
    assert list(kept.error_x.arrayminus) == [10, 25]
    assert np.isnan(cut.error_x.array).all()
    assert "2 of 3 criteria would keep it (against the rest: Weight magnitude)." in picture.alt
    alike = unit_profile(TITLES, np.array([3, 3, 3]), np.full(3, np.nan), np.full(3, np.nan), 10, 10, "")
    assert alike.alt.startswith("Its percentile is 80, as")


def test_the_cut_lies_between_the_last_that_stays_and_the_first_that_goes(ranks_C: np.ndarray) -> None:
    unknown = np.full(3, np.nan)
    line = unit_profile(TITLES, ranks_C, unknown, unknown, 10, 5, "").figure.layout.shapes[0]
    assert percentile(np.array([6]), 10)[0] < line.x0 < percentile(np.array([5]), 10)[0]


def test_a_draft_that_cuts_nothing_has_no_cut_line(ranks_C: np.ndarray) -> None:
    unknown = np.full(3, np.nan)
    picture = unit_profile(TITLES, ranks_C, unknown, unknown, 10, 10, "")
    assert not picture.figure.layout.shapes
    assert "would keep it" not in picture.alt
