"""What drafts keep; made once for all who ask."""

from functools import lru_cache

import numpy as np

from app.cached.cards import card
from app.cached.importance import Remembered, read_only
from app.state import Draft
from core.plan.outlook import Outlook
from core.plan.plan import Plan, keep_masks, make_plan
from core.score.store import Scores
from core.specs import Pins, RankSpec, Targets


def plan(scores: Scores, draft: Draft) -> Plan:
    """What the draft keeps; the scores' key names the weights, and with them the config.

    Raises:
        UserError: targets or pins are not possible.
    """
    return _plan(Remembered(scores.key, scores), draft.model, draft.targets, draft.rank, draft.pins)


@lru_cache(maxsize=64)
def _plan(known: Remembered, model: str, targets: Targets, rank: RankSpec, pins: Pins) -> Plan:
    return make_plan(known, card(model).config, targets, rank, pins)


def masks(scores: Scores, draft: Draft) -> dict[str, np.ndarray]:
    """What the draft keeps, as booleans over the uncut model; see ``keep_masks``.

    Raises:
        UserError: targets or pins are not possible.
    """
    return _masks(Remembered(scores.key, scores), draft.model, draft.targets, draft.rank, draft.pins)


@lru_cache(maxsize=16)
def _masks(known: Remembered, model: str, targets: Targets, rank: RankSpec, pins: Pins) -> dict[str, np.ndarray]:
    return {axis: read_only(mask) for axis, mask in keep_masks(_plan(known, model, targets, rank, pins)).items()}


def outlook(scores: Scores, draft: Draft) -> Outlook:
    """What every cut under the draft's ranking and pins would keep."""
    return _outlook(Remembered(scores.key, scores), draft.rank, draft.pins)


@lru_cache(maxsize=4)
def _outlook(known: Remembered, rank: RankSpec, pins: Pins) -> Outlook:
    return Outlook(known, rank, pins)
