"""Figures of layers and heads: what is cut is marked as often as it is cut, and every cell can be clicked."""

import numpy as np
import plotly.graph_objects as go
import pytest

from core.report.importance_figures import head_map, head_table, layer_bars
from core.report.picture import CLEAR, Picture
from core.score.agreement import ranks

L, H = 5, 6
RNG = np.random.default_rng(0)
SCORE_LH = RNG.random((L, H))
KEPT_LH = RNG.random((L, H)) > 0.4


def trace(picture: Picture, name: str) -> go.Scatter:
    """The trace of that name."""
    return next(trace for trace in picture.figure.data if trace.name == name)


def test_every_pruned_head_is_crossed_and_no_other() -> None:
    crosses = trace(head_map(SCORE_LH, KEPT_LH), "pruned")
    strokes = np.stack([crosses.x, crosses.y], axis=1).reshape(-1, 3, 2)
    assert np.isnan(strokes[:, 2]).all()
    centres = strokes[:, :2].mean(axis=1).round().astype(int)
    assert len(strokes) == 2 * (~KEPT_LH).sum()
    assert {tuple(centre) for centre in centres} == {tuple(cell) for cell in np.argwhere(~KEPT_LH)}


def test_kept_and_pruned_cells_share_the_map_between_them() -> None:
    kept, pruned = (np.isfinite(np.array(trace.z, dtype=float)).T for trace in head_map(SCORE_LH, KEPT_LH).figure.data[:2])
    assert (kept == KEPT_LH).all()
    assert (pruned == ~KEPT_LH).all()


def test_every_head_is_a_cell_that_tells_its_fate() -> None:
    picture = head_map(SCORE_LH, KEPT_LH)
    kept, cut = picture.figure.data[:2]
    assert picture.cells == (L, H)
    for cells, shown_LH in ((kept, KEPT_LH), (cut, ~KEPT_LH)):
        np.testing.assert_array_equal(np.isfinite(np.array(cells.z, float)).T, shown_LH)
        np.testing.assert_allclose(np.array(cells.customdata, float)[..., 0].T, SCORE_LH, rtol=1e-6)
    assert (np.where(KEPT_LH, "kept", "pruned") == np.array(kept.text).T).all()


def test_without_the_overlay_every_head_has_its_full_colour() -> None:
    figure = head_map(SCORE_LH, KEPT_LH, overlay=False).figure
    assert np.isfinite(np.array(figure.data[0].z, float)).all()
    assert not [trace for trace in figure.data if trace.name == "pruned"]


def test_pinned_heads_carry_their_own_mark_and_are_told() -> None:
    pinned_LH = RNG.choice([-1, 0, 1], (L, H)).astype(np.int8)
    picture = head_map(SCORE_LH, KEPT_LH, pinned_LH=pinned_LH)
    for sign, name in ((1, "pinned to stay"), (-1, "pinned to go")):
        marks = trace(picture, name)
        found = {(round(x), round(y)) for x, y in zip(marks.x, marks.y, strict=True)}
        assert found == {tuple(cell) for cell in np.argwhere(pinned_LH == sign)}
    assert len({trace(picture, name).marker.symbol for name in ("pinned to stay", "pinned to go")}) == 2
    assert f"{(pinned_LH > 0).sum()} pinned to stay" in picture.alt
    assert not [one for one in head_map(SCORE_LH, KEPT_LH, pinned_LH=np.zeros((L, H), np.int8)).figure.data if "pinned" in str(one.name)]


def test_pinned_layers_are_marked_and_selected_ones_shaded() -> None:
    picture = layer_bars({"bi": RNG.random(L)}, np.ones(L, bool), pinned_L=np.array([0, 1, 0, -1, 0]), selected=[2])
    assert list(trace(picture, "pinned to stay").x) == [1]
    assert list(trace(picture, "pinned to go").x) == [3]
    assert [(shape.x0, shape.x1) for shape in picture.figure.layout.shapes] == [(1.5, 2.5)]


@pytest.mark.parametrize(("group", "lines"), [(1, 0), (2, 2), (3, 1)])
def test_lines_part_the_key_value_groups(group: int, lines: int) -> None:
    drawn = [shape for shape in head_map(SCORE_LH, KEPT_LH, group=group).figure.layout.shapes if shape.type == "line"]
    assert len(drawn) == lines


def test_selected_heads_are_ringed() -> None:
    rings = [shape for shape in head_map(SCORE_LH, KEPT_LH, selected=((3, 2), (0, 1))).figure.layout.shapes if shape.type == "rect"]
    assert [(ring.x0 + 0.5, ring.y0 + 0.5) for ring in rings] == [(3, 2), (0, 1)]


def test_undecided_heads_are_dotted_inside_their_cells_and_listed() -> None:
    undecided_LH = RNG.random((L, H)) > 0.6
    picture = head_map(SCORE_LH, KEPT_LH, undecided_LH=undecided_LH)
    dots = trace(picture, "undecided")
    cells = {(round(x), round(y)) for x, y in zip(dots.x, dots.y, strict=True)}
    assert cells == {tuple(cell) for cell in np.argwhere(undecided_LH)}
    assert picture.table["undecided"].tolist() == undecided_LH.ravel().tolist()


def test_a_map_without_undecided_heads_has_no_dots() -> None:
    assert not [one for one in head_map(SCORE_LH, KEPT_LH, undecided_LH=np.zeros((L, H), bool)).figure.data if one.name == "undecided"]


def test_protected_layers_have_no_bar_and_are_never_the_most_important() -> None:
    picture = layer_bars({"bi": np.array([np.inf, 1.0, 4.0, 2.0, np.inf])}, np.ones(5, bool))
    assert np.isnan(np.array(picture.figure.data[0].y, float)).tolist() == [True, False, False, False, True]
    assert "most for layer 2" in picture.alt
    assert layer_bars({"bi": np.full(5, np.inf)}, np.ones(5, bool)).figure.data


def test_colours_within_a_layer_reach_one_in_every_layer() -> None:
    shade_HL = np.array(head_map(SCORE_LH, np.ones((L, H), bool)).figure.data[0].z)
    assert np.allclose(shade_HL.max(axis=0), 1)


def test_ranks_count_from_the_largest_and_ties_by_index() -> None:
    assert ranks(np.array([[3.0, 9.0, 3.0, 1.0]])).tolist() == [[2, 1, 3, 4]]


def test_the_table_holds_every_head_once_with_its_percentile() -> None:
    table = head_table(SCORE_LH, KEPT_LH)
    best = table.loc[table["importance"].idxmax()]
    assert len(table) == L * H
    assert (best["rank in layer"], best["percentile"]) == (1, 100)
    assert table["kept"].sum() == KEPT_LH.sum()


def test_removed_layers_are_hollow_in_every_panel() -> None:
    kept_L = np.array([True, False, True, True, False])
    figure = layer_bars({"bi": RNG.random(L), "ppl": RNG.random(L)}, kept_L).figure
    hollow = [bar for bar in figure.data if bar.marker.color == CLEAR]
    assert len(hollow) == 2
    assert all(list(bar.x) == [1, 4] and bar.marker.line.width for bar in hollow)


def test_a_layer_that_towers_over_the_rest_is_cut_off_and_carries_its_value() -> None:
    score_L = np.array([9.0, 0.1, 0.12, 0.1, 0.11, 0.13, 0.1, 0.12])
    figure = layer_bars({"bi": score_L}, np.ones(8, bool)).figure
    assert figure.layout.yaxis.range[1] < 1
    assert any(note.text == "9.0 ↑" and note.x == 0 and note.textangle == -90 for note in figure.layout.annotations)


def test_the_takeaway_names_least_and_most_important_layers() -> None:
    alt = layer_bars({"bi": np.array([5.0, 1.0, 4.0, 2.0, 3.0])}, np.array([True, False, True, True, True])).alt
    assert "least for layers 1, 3 and 4" in alt
    assert "most for layer 0" in alt
    assert "removes 1 layer." in alt
