"""Numbers are written exactly as the house style says."""

import math

import pytest

from core.report import format as fmt


@pytest.mark.parametrize(("value", "text"), [
    (134515008, "135 M"), (576, "576"), (9999, "9999"), (10_000, "10.0 k"), (49152, "49.2 k"), (999_999, "1.00 M"), (1.2e9, "1.20 B"), (0, "0"),
    (None, "–"),
])  # fmt: skip
def test_counts(value: float | None, text: str) -> None:
    assert fmt.count(value) == text


@pytest.mark.parametrize(("value", "text"), [(269030016, "269 MB"), (12, "12 B"), (999_999, "1.00 MB"), (3.29e9, "3.29 GB"), (None, "–")])
def test_sizes_are_decimal(value: float | None, text: str) -> None:
    assert fmt.size(value) == text


@pytest.mark.parametrize(("value", "text"), [
    (28.104, "28.1"), (0.3512, "0.351"), (4321.5, "4320"), (9.999, "10.0"), (-0.0351, "−0.0351"), (0, "0"), (1.2e-5, "1.20 × 10⁻⁵"),
    (math.inf, "∞"), (-math.inf, "−∞"), (math.nan, "–"), (None, "–"),
])  # fmt: skip
def test_numbers_have_three_significant_digits(value: float | None, text: str) -> None:
    assert fmt.number(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.203, "20.3 %"), (-0.203, "−20.3 %"), (1, "100.0 %"), (None, "–")])
def test_percentages(value: float | None, text: str) -> None:
    assert fmt.percent(value) == text


@pytest.mark.parametrize(("value", "text"), [(-0.203, "−20.3 %"), (0.05, "+5.0 %"), (0, "0.0 %"), (0.00001, "0.0 %"), (-0.00001, "0.0 %")])
def test_changes_carry_their_sign(value: float, text: str) -> None:
    assert fmt.delta(value) == text


@pytest.mark.parametrize(("seconds", "text"), [
    (4.25, "4.2 s"), (12, "12 s"), (200, "3 min 20 s"), (59.7, "1 min 0 s"), (7500, "2 h 5 min"), (100_000, "1 d 3 h"), (None, "–"),
])  # fmt: skip
def test_durations_in_their_two_largest_units(seconds: float | None, text: str) -> None:
    assert fmt.duration(seconds) == text


def test_estimates_are_marked_and_units_follow() -> None:
    assert fmt.rate(412.3, "tokens/s") == "412 tokens/s"
    assert fmt.nats(0.3512) == "0.351 nats"
    assert fmt.delta(0.05, estimated=True) == "≈ +5.0 %"
    assert fmt.duration(200, estimated=True) == "≈ 3 min 20 s"
    assert fmt.nats(None, estimated=True) == "–"


def test_words() -> None:
    assert fmt.plural(1, "layer") == "1 layer"
    assert fmt.plural(3, "layer") == "3 layers"
    assert fmt.listed(["a", "b", "c"]) == "a, b and c"
    assert fmt.listed(["a"]) == "a"
    assert fmt.listed([]) == ""
