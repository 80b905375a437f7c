"""Speeds are positive, ordered, and told apart."""

import pytest

from core.errors import UserError
from core.evaluate.speed import tokens_per_second
from tests.tiny import tiny_model


def test_a_much_smaller_model_is_faster_at_both() -> None:
    models = {"large": tiny_model(num_hidden_layers=12), "small": tiny_model(num_hidden_layers=1)}
    found = tokens_per_second(models, seq_len=40, repeats=3)
    for kind in ("prefill", "decode"):
        assert found["small"][kind] > found["large"][kind] > 0
        slowest, fastest = found["large"][f"{kind}_range"]
        assert slowest <= found["large"][kind] <= fastest


def test_a_sequence_beyond_the_context_is_refused() -> None:
    with pytest.raises(UserError, match="context of 64"):
        tokens_per_second({"tiny": tiny_model()}, seq_len=60)
