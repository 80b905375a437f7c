"""What in a run's curves a person would want to be told of while it still can be stopped.

Pure functions from curves to a sentence; they judge what was measured and change nothing. A loss that is not finite is none of them: it ends
the run by itself and says so.
"""

import numpy as np

from core.report.curves import Curves, smooth
from core.report.format import nats, rate

DIVERGED, DIVERGED_STEPS = 2.0, 50
"""The smoothed loss is above so many times its best, for so many steps."""
LEVEL = 3
"""Measurements on held-out text without a lower loss."""
SLOWED, RECENT_STEPS = 0.5, 10
"""Part of the usual speed, judged by the median of so many steps."""
TREND_STEPS = 25
"""Steps whose mean is compared with the mean of as many before them."""
TREND = 0.05
"""Part by which a mean must move to count."""
SMOOTHING = 0.8


def alerts(curves: Curves) -> dict[str, str]:
    """Kind of what is wrong -> a sentence with its number and what to do; empty if nothing is."""
    found = {find.__name__.strip("_"): find(curves) for find in (_diverging, _level, _off_course, _slowed)}
    return {kind: said for kind, said in found.items() if said}


def _diverging(curves: Curves) -> str:
    """The loss is far above its best, and stays there."""
    loss = smooth(np.array(curves.series["loss"], float), SMOOTHING)
    if len(loss) <= DIVERGED_STEPS or not (np.nanmin(loss) > 0 and (loss[-DIVERGED_STEPS:] > DIVERGED * np.nanmin(loss)).all()):
        return ""
    best = int(np.nanargmin(loss))
    return (
        f"The loss diverges: for {DIVERGED_STEPS} steps it has been above twice its best, {nats(loss[best])} at step {curves.steps[best]}. "
        "Stop, and start again with a lower learning rate."
    )


def _level(curves: Curves) -> str:
    """The held-out loss of the training's own domain falls no more."""
    points = next(iter(curves.heldout.values()), [])
    losses = [loss for _, loss, _ in points]
    if len(losses) <= LEVEL or min(losses[-LEVEL:]) < min(losses[:-LEVEL]):
        return ""
    best = int(np.argmin(losses))
    return (
        f"The held-out loss has not fallen for {len(losses) - 1 - best} measurements: its best was {nats(losses[best])} at step {points[best][0]}. "
        "Stop and save, or let patience and the best weights decide next time."
    )


def _off_course(curves: Curves) -> str:
    """The student comes closer to the text and goes away from the teacher."""
    kl, ce = (np.array(curves.series[name], float) for name in ("kl", "ce"))
    if len(kl) < 2 * TREND_STEPS or not (_moved(kl) > TREND and _moved(ce) < -TREND):
        return ""
    return "The student learns the text rather than the teacher: cross-entropy falls while the divergence rises. Lower the CE weight."


def _moved(values: np.ndarray) -> float:
    """Relative change of the mean of the last steps against that of the steps before; NaN where nothing was reported."""
    before, after = values[-2 * TREND_STEPS : -TREND_STEPS].mean(), values[-TREND_STEPS:].mean()
    return float(after / before - 1) if before else float("nan")


def _slowed(curves: Curves) -> str:
    """Training is much slower than it was."""
    speed = np.array([value for value in curves.series["tokens_per_second"] if value == value])
    if len(speed) < 3 * RECENT_STEPS:
        return ""
    usual, now = float(np.median(speed[:-RECENT_STEPS])), float(np.median(speed[-RECENT_STEPS:]))
    if now >= SLOWED * usual:
        return ""
    return f"Training has slowed to {rate(now, 'tok/s')}, from {rate(usual, 'tok/s')} before. Something else may be using the machine."
