"""What the repair's form says that was measured is what the benchmarks' table says."""

from pathlib import Path

import pytest

from app.repair_form import GAPS, REPAIR_NAMES, effect_of

ROWS = {"none": "no repair", "closed": "closed form", "scaled": "closed form and scales"}


@pytest.mark.parametrize("method", ROWS)
def test_what_is_said_of_a_repair_stands_in_the_benchmarks(method: str) -> None:
    lines = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text().splitlines()
    row = next(line for line in lines if line.startswith(f"| Coppice, FFN by RMS, {ROWS[method]} |"))  # the first table: most blocks
    assert [float(cell.split("/")[0]) for cell in row.strip("| ").split("|")[2:4]] == list(GAPS[method])
    assert all(f"{gap:.2f}" in effect_of(method) for gap in GAPS[method])


def test_what_was_not_measured_is_not_said() -> None:
    assert not [method for method in REPAIR_NAMES if method not in GAPS and effect_of(method)]
