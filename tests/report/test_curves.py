"""Events become curves, whatever the run went through."""

import numpy as np
import pytest

from core.report.curves import Curves, envelope, extremes, recovered, smooth
from tests.synthetic_runs import early_events, step_event


def test_reading_in_pieces_equals_reading_at_once() -> None:
    events = early_events(0.0) + [step_event(100.0 + step, step) for step in range(1, 31)]
    pieces = Curves()
    for start in range(0, len(events), 7):
        pieces.extend(events[start : start + 7])
    assert pieces == Curves().extend(events)
    assert pieces.steps == list(range(1, 31))
    assert [step for step, _, _ in pieces.heldout["wikipedia"]] == [1, 10, 20, 30]


def test_a_snapshot_stays_as_it_was() -> None:
    events = early_events(0.0) + [step_event(100.0 + step, step) for step in range(1, 31)]
    curves = Curves().extend(events[:-20])
    kept = curves.snapshot()
    curves.extend([*events[-20:], {"time": 200.0, "segment": 2}, step_event(201.0, 5)])
    assert kept == Curves().extend(events[:-20])


def test_a_resumed_run_replaces_what_it_does_again() -> None:
    events = [{"time": 0.0, "segment": 1}, *(step_event(float(step), step) for step in range(1, 34))]
    events += [{"time": 50.0, "segment": 2}, *(step_event(50.0 + step, step) for step in range(21, 31))]
    curves = Curves().extend(events)
    assert curves.steps == list(range(1, 31))
    assert curves.times[20] == 71.0
    assert [step for step, _, _ in curves.heldout["sotu"]] == [1, 10, 20, 30]
    assert curves.segments == [(50.0, 33)]


def test_losses_that_were_not_finite_leave_a_gap() -> None:
    curves = Curves().extend([step_event(1.0, 1), step_event(2.0, 2) | {"kl": None}])
    assert np.isnan(curves.series["kl"][1])
    assert curves.latest("kl") == curves.series["kl"][0]


def test_pace_counts_only_since_the_last_resume() -> None:
    events = [step_event(10.0 * step, step) for step in range(1, 5)] + [{"time": 1000.0, "segment": 2}]
    curves = Curves().extend(events)
    assert curves.seconds_per_unit() is None
    curves.extend([step_event(1002.0, 5), step_event(1004.0, 6), step_event(1006.0, 7)])
    assert curves.seconds_per_unit() == pytest.approx(2.0)


def test_pace_is_that_of_the_last_units_of_the_present_phase() -> None:
    quick = [{"time": float(i), "phase": "score", "done": i, "total": 90} for i in range(1, 31)]
    slow = [{"time": 30 + 5.0 * i, "phase": "score", "done": 30 + i, "total": 90} for i in range(1, 31)]
    curves = Curves().extend(quick + slow)
    assert curves.seconds_per_unit() == pytest.approx(5.0)
    assert curves.extend([{"time": 500.0, "phase": "plan", "done": 1, "total": 1}]).seconds_per_unit() is None


@pytest.mark.parametrize("count", [5, 800, 801, 5000])
def test_downsampling_keeps_the_extremes_and_the_ends(count: int) -> None:
    values = np.random.default_rng(0).normal(size=count)
    kept = extremes(values, 800)
    assert len(kept) <= 800
    assert {0, count - 1, int(values.argmin()), int(values.argmax())} <= set(kept.tolist())
    assert (np.diff(kept) > 0).all()


def test_downsampling_survives_gaps() -> None:
    assert len(extremes([float("nan")] * 3000, 800)) <= 800


def test_smoothing_by_0_changes_nothing_and_a_constant_stays_itself() -> None:
    values = np.array([3.0, 1.0, np.nan, 2.0])
    np.testing.assert_allclose(smooth(values, 0.0)[[0, 1, 3]], values[[0, 1, 3]])
    np.testing.assert_allclose(smooth(np.full(50, 2.5), 0.9), 2.5)


def test_smoothing_is_the_same_seen_from_either_end() -> None:
    values = np.random.default_rng(1).normal(size=40)
    np.testing.assert_allclose(smooth(values, 0.8), smooth(values[::-1], 0.8)[::-1])


def test_smoothing_is_a_mean_weighted_by_distance_over_what_was_reported() -> None:
    values = np.random.default_rng(1).normal(size=30)
    values[[4, 17]] = np.nan
    weight_NN = 0.7 ** np.abs(np.subtract.outer(np.arange(30), np.arange(30))) * ~np.isnan(values)
    np.testing.assert_allclose(smooth(values, 0.7), weight_NN @ np.nan_to_num(values) / weight_NN.sum(axis=1))


@pytest.mark.parametrize("width", [6, 7])
def test_the_envelope_is_the_range_of_a_centred_window(width: int) -> None:
    values = np.random.default_rng(2).normal(size=60)
    windows = [values[max(0, i - width // 2) : i + (width + 1) // 2] for i in range(60)]
    np.testing.assert_array_equal(envelope(values, width), [[window.min() for window in windows], [window.max() for window in windows]])


def test_the_envelope_encloses_the_values() -> None:
    values = np.random.default_rng(2).normal(size=60)
    low, high = envelope(values, 7)
    assert (low <= values).all()
    assert (values <= high).all()


def test_recovered_is_a_part_of_the_gap_or_unknown() -> None:
    assert recovered(3.0, 5.0, 3.5) == pytest.approx(0.75)
    assert recovered(3.0, 5.0, 5.5) == pytest.approx(-0.25)
    assert recovered(3.0, 3.0, 2.9) is None
    assert recovered(None, 5.0, 4.0) is None


def test_terms_are_those_that_the_run_reports_from_the_step_on_at_which_it_does() -> None:
    curves = Curves().extend([step_event(1.0, 1), step_event(2.0, 2) | {"jsd": 0.4, "output": 0.1}, step_event(3.0, 3) | {"jsd": 0.3}])
    assert curves.terms == ["kl", "jsd", "output", "ce"]
    assert np.isnan(curves.series["jsd"][0])
    assert curves.series["jsd"][1:] == [0.4, 0.3]
    assert {len(values) for values in curves.series.values()} == {3}


def test_the_latest_words_of_the_student_are_remembered_with_their_step() -> None:
    said = [{"prompt": "a", "text": "b"}]
    assert Curves().extend([step_event(1.0, 1), step_event(2.0, 2) | {"samples": said}, step_event(3.0, 3)]).samples == (2, said)
