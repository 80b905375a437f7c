"""The strip says of every layer and head whether it stays, in marks, in words and as a table."""

import dataclasses

import numpy as np

from core.model.dims import Dims
from core.report.strip import architecture_strip

BEFORE = Dims(layers=5, hidden=24, ffn=40, heads=6, kv_heads=3, head_dim=8, vocab=97)
AFTER = dataclasses.replace(BEFORE, layers=3, hidden=18, ffn=30, heads=3)
KEPT_L = np.array([True, False, True, False, True])


def test_what_stays_and_what_was_there() -> None:
    strip = architecture_strip(BEFORE, AFTER, KEPT_L)
    assert strip.layers == [True, False, True, False, True]
    assert (strip.ffn, strip.hidden) == ((30, 40), (18, 24))
    assert list(strip.table["FFN neurons"]) == [30, 0, 30, 0, 30]


def test_every_head_is_marked_as_its_mask_says() -> None:
    heads_LH = np.zeros((5, 6), bool)
    heads_LH[[0, 2, 4], 3:] = True
    strip = architecture_strip(BEFORE, AFTER, KEPT_L, heads_LH)
    assert strip.heads == ["000111", "000000", "000111", "000000", "000111"]
    assert list(strip.table["heads kept"]) == ["3, 4, 5", "", "3, 4, 5", "", "3, 4, 5"]


def test_where_nothing_is_ranked_the_first_ones_stand_for_any() -> None:
    strip = architecture_strip(BEFORE, AFTER)
    assert strip.layers == [True, True, True, False, False]
    assert strip.heads == ["111000"] * 3 + ["000000"] * 2


def test_the_takeaway_names_the_removed_layers() -> None:
    assert "removed: 1, 3" in architecture_strip(BEFORE, AFTER, KEPT_L).alt
