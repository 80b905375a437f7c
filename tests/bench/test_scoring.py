"""The benchmark of scoring: its parts can be measured apart, and what grows linearly is told to."""

import sys
from typing import Any

import pytest

from bench import scoring
from bench.harness import interleaved
from bench.scoring import PARTS, SIZES, exponent, measure


def test_a_power_is_the_slope_in_logarithms() -> None:
    sizes = [1, 2, 4, 8]
    for power in (0.5, 1.0, 2.0):
        assert exponent(sizes, [[9.0, 0.1 * size**power, 0.0] for size in sizes]) == pytest.approx(power)


def test_growth_is_shown_on_four_sizes_of_everything_and_needs_no_large_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(len(set(sizes)) == 4 for sizes in SIZES.values())
    monkeypatch.setattr(scoring, "SIZES", {"tokens": (128, 256), "layers": (1, 2), "width": (64, 128)})
    found = measure(quick=True, parts=["growth"])
    assert [bar.name.split(",")[0] for bar in found.bars] == ["growth with tokens", "growth with layers", "growth with width"]
    assert [row["what"] for row in found.rows] == [
        "tokens: 128", "tokens: 256", "layers: 1", "layers: 2", "width: 64", "width: 128",
    ]  # fmt: skip


def test_only_the_named_parts_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    measured: list[str] = []
    for name in PARTS:
        monkeypatch.setitem(PARTS, name, lambda bench, name=name: measured.append(name) or scoring.Outcome())
    monkeypatch.setattr(scoring.Bench, "batch", scoring.torch.zeros(1, 8))
    monkeypatch.setattr(sys, "argv", ["bench.scoring", "greedy", "memory", "--quick"])
    assert scoring.main() == 0
    assert measured == ["greedy", "memory"]
    monkeypatch.setattr(sys, "argv", ["bench.scoring", "weather"])
    with pytest.raises(SystemExit):
        scoring.main()
    assert "invalid choice: 'weather'" in capsys.readouterr().err


def test_a_cold_measurement_runs_every_action_as_often_as_asked() -> None:
    runs: list[Any] = []
    actions = {name: lambda name=name: runs.append(name) for name in "ab"}
    assert [len(times) for times in interleaved(actions, 2, warm=False).values()] == [2, 2]
    assert runs == list("abab")
    runs.clear()
    assert [len(times) for times in interleaved(actions, 2).values()] == [2, 2]
    assert runs == list("ababab")
