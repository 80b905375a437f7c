"""An outlook says of every cut what its plan would."""

from pathlib import Path

import numpy as np
import pytest

from core.model.dims import dims_of, resized
from core.plan.outlook import Outlook
from core.plan.plan import keep_masks, make_plan, plan_problems
from core.score.criteria import criteria_of
from core.score.store import Scores
from core.specs import NO_PINS, Pins, RankSpec, Targets
from tests.plan.kept import kept_share
from tests.plan.test_plan import CONFIG, EVERYTHING
from tests.synthetic_scores import synthetic_scores

PINS = Pins(keep_heads=("1.0",), prune_neurons=("0.3-5",), keep_channels=("2-4",), prune_layers=("2",))
OWN = dims_of(CONFIG)
CUTS = [
    Targets(
        num_hidden_layers=layers,
        intermediate_size=ffn,
        hidden_size=hidden,
        num_attention_heads=kv_heads * group,
        num_key_value_heads=kv_heads,
    )
    for layers in range(1, OWN.layers + 1)
    for ffn in (1, 11, OWN.ffn)
    for hidden in (12, OWN.hidden)
    for kv_heads in range(1, OWN.kv_heads + 1)
    for group in range(1, OWN.group + 1)
]


@pytest.fixture
def scores(workspace: Path) -> Scores:
    return synthetic_scores("b2-test", OWN, EVERYTHING)


def agree(scores: Scores, targets: Targets, rank: RankSpec, pins: Pins, outlook: Outlook) -> None:
    """Hold a view to the plan of the same cut."""
    plan, view = make_plan(scores, CONFIG, targets, rank, pins), outlook.view(resized(OWN, targets))
    masks = keep_masks(plan)
    np.testing.assert_array_equal(view.layers_L, masks["layers"])
    np.testing.assert_array_equal(view.heads_LH, masks["heads"])
    assert view.share == pytest.approx(kept_share(plan, scores), rel=1e-6)


@pytest.mark.parametrize("pins", [NO_PINS, PINS], ids=["free", "pinned"])
@pytest.mark.parametrize("rank", [RankSpec(), RankSpec(protect_first=1, protect_last=0, batch="var")], ids=["default", "protected"])
def test_a_view_is_that_of_the_plan(scores: Scores, rank: RankSpec, pins: Pins) -> None:
    outlook = Outlook(scores, rank, pins)
    possible = [targets for targets in CUTS if not plan_problems(CONFIG, targets, rank, pins)]
    assert len(possible) >= 12
    for targets in possible:
        agree(scores, targets, rank, pins, outlook)


def test_a_view_is_that_of_the_plan_under_every_criterion(scores: Scores) -> None:
    targets = Targets(num_hidden_layers=3, intermediate_size=11, hidden_size=16, num_key_value_heads=2)
    for axis in ("heads", "neurons", "channels", "layers"):
        for name in criteria_of(axis):
            rank = RankSpec().by(axis, name)
            agree(scores, targets, rank, NO_PINS, Outlook(scores, rank, NO_PINS))
