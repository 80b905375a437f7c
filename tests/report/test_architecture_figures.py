"""The parameter bar adds up, and the strip draws what stays as filled and what goes as hollow."""

import dataclasses

import numpy as np

from core.model.dims import Dims
from core.report.architecture_figures import MOST_HEADS, architecture_strip, parameter_bar
from core.report.picture import CLEAR

BEFORE = Dims(layers=5, hidden=24, ffn=40, heads=6, kv_heads=3, head_dim=8, vocab=97)
AFTER = dataclasses.replace(BEFORE, layers=3, hidden=18, ffn=30, heads=3)


def test_the_parts_add_up_and_empty_ones_are_left_out() -> None:
    picture = parameter_bar({"embeddings": 200, "mlp": 700, "norms": 100, "head": 0})
    assert sum(bar.x[0] for bar in picture.figure.data) == 1000
    assert "Output head" not in list(picture.table["part"])
    assert picture.table["share (%)"].sum() == 100


def test_the_strip_fills_kept_layers_and_outlines_all() -> None:
    kept_L = np.array([True, False, True, False, True])
    before, after = (trace for trace in architecture_strip(BEFORE, AFTER, kept_L).figure.data if trace.type == "bar")
    assert list(before.x) == [0, 1, 2, 3, 4]
    assert before.marker.color == CLEAR
    assert list(after.x) == [0, 2, 4]
    assert set(after.y) == {30}
    assert after.width / before.width == AFTER.hidden / BEFORE.hidden


def test_the_strip_draws_a_filled_square_for_each_kept_head_and_a_hollow_one_for_the_others() -> None:
    heads_LH = np.zeros((5, 6), bool)
    heads_LH[[0, 2, 4], :3] = True
    traces = {trace.name: trace for trace in architecture_strip(BEFORE, AFTER, heads_LH.any(axis=1), heads_LH).figure.data}
    assert len(traces["head kept"].x) == 9
    assert len(traces["head cut"].x) == 21
    assert traces["head cut"].marker.symbol == "square-open"


def test_many_heads_become_bars_of_their_number() -> None:
    wide = dataclasses.replace(BEFORE, heads=MOST_HEADS + 8, kv_heads=MOST_HEADS + 8)
    figure = architecture_strip(wide, dataclasses.replace(wide, heads=12, kv_heads=12)).figure
    assert {trace.type for trace in figure.data} == {"bar"}
    assert set(figure.data[-1].y) == {12}


def test_the_takeaway_names_the_removed_layers() -> None:
    assert "removed: 1, 3" in architecture_strip(BEFORE, AFTER, np.array([True, False, True, False, True])).alt
