"""The order of the training blocks."""

import numpy as np

from core.distill.rows import TrainingRows, row_order
from tests.tiny import random_blocks


def test_every_epoch_sees_every_block_once_in_an_order_of_its_own() -> None:
    order = row_order(num_blocks=7, num_rows=17, seed=0)
    assert len(order) == 17
    first, second = order[:7], order[7:14]
    assert sorted(first) == sorted(second) == list(range(7))
    assert list(first) != list(second)


def test_more_steps_only_append_to_the_order() -> None:
    assert np.array_equal(row_order(7, 17, 0), row_order(7, 40, 0)[:17])
    assert not np.array_equal(row_order(7, 17, 0), row_order(7, 17, 1))


def test_a_row_is_a_block_whose_tokens_are_inputs_and_labels() -> None:
    blocks_NT = random_blocks(3, 8)
    rows = TrainingRows(blocks_NT, 5, seed=0)
    assert len(rows) == 5
    assert rows[4]["input_ids"].tolist() == rows[4]["labels"].tolist() == blocks_NT[rows.order[4]].tolist()
