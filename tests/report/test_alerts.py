"""Alerts: each is raised by what it is for, and by nothing less."""

import numpy as np
import pytest

from core.report.alerts import alerts
from core.report.curves import Curves
from tests.synthetic_runs import step_event


def curves(n: int = 120, heldout: list[float] | None = None, **series: np.ndarray) -> Curves:
    """A calm run of ``n`` steps, but for the given series; held-out losses every tenth step."""
    calm = np.linspace(2.0, 1.0, n)
    losses = heldout if heldout is not None else list(np.linspace(5.0, 4.0, n // 10))
    events = []
    for i in range(n):
        event = {"time": float(i), "phase": "distill", "done": i + 1, "total": n} | {
            name: float(series.get(name, usual)[i])
            for name, usual in (("loss", calm), ("kl", calm), ("ce", calm), ("tokens_per_second", np.full(n, 200.0)))
        }
        if (i + 1) % 10 == 0 and i // 10 < len(losses):
            event["heldout"] = {"wikipedia": {"loss": losses[i // 10]}}
        events.append(event)
    return Curves().extend(events)


def test_a_calm_run_raises_none() -> None:
    assert alerts(curves()) == {}
    assert alerts(Curves()) == {}
    assert alerts(Curves().extend(step_event(float(step), step) for step in range(1, 61))) == {}


def test_a_loss_above_twice_its_best_for_fifty_steps_diverges() -> None:
    loss = np.r_[np.linspace(2.0, 1.0, 50), np.full(70, 3.0)]
    assert "lower learning rate" in alerts(curves(loss=loss))["diverging"]
    assert "diverging" not in alerts(curves(loss=np.r_[np.linspace(2.0, 1.0, 80), np.full(40, 3.0)]))
    assert "diverging" not in alerts(curves(loss=np.r_[np.linspace(2.0, 1.0, 50), np.full(70, 1.8)]))


@pytest.mark.parametrize(("last", "raised"), [([4.0, 4.1, 4.05], True), ([4.1, 4.05, 3.9], False), ([4.2, 4.3], False)])
def test_three_measurements_without_a_lower_loss_are_level(last: list[float], raised: bool) -> None:
    found = alerts(curves(heldout=[5.0, 4.5, 4.0, *last]))
    assert ("level" in found) == raised
    if raised:
        assert "3 measurements" in found["level"]
        assert "step 30" in found["level"]


def test_learning_the_text_rather_than_the_teacher_is_off_course() -> None:
    up, down = np.linspace(1.0, 2.0, 120), np.linspace(4.0, 2.0, 120)
    assert "CE weight" in alerts(curves(kl=up, ce=down))["off_course"]
    assert "off_course" not in alerts(curves(kl=down, ce=down))
    assert "off_course" not in alerts(curves(kl=up, ce=up))


def test_half_the_speed_is_told_and_a_slow_step_is_not() -> None:
    slow = np.r_[np.full(100, 200.0), np.full(20, 80.0)]
    assert alerts(curves(tokens_per_second=slow))["slowed"].startswith("Training has slowed to 80")
    once = np.full(120, 200.0)
    once[-1] = 5.0
    assert "slowed" not in alerts(curves(tokens_per_second=once))
