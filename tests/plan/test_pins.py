"""Pins: what is pinned stays or goes, the counts stay what the targets say, and what cannot be is refused in a sentence."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from core.model.dims import Dims, dims_of, resized
from core.plan.pins import NOUNS, pin_map, shapes, with_pins, written
from core.plan.plan import INDICES, Plan, keep_masks, make_plan, plan_problems
from core.score.criteria import criteria_of
from core.score.store import Scores
from core.specs import NO_PINS, Pins, RankSpec, ScoreSpec, Targets
from tests.synthetic_scores import synthetic_scores
from tests.tiny import tiny_config

CONFIG = tiny_config().to_dict()
DIMS = dims_of(CONFIG)
CUT = Targets(num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2, intermediate_size=11, hidden_size=12)


@pytest.fixture
def scores(workspace: Path) -> Scores:
    """Made-up scores of the tiny model: 5 layers, 6 heads in 3 groups, 40 neurons, 24 channels."""
    return synthetic_scores("b2-pins", DIMS, ScoreSpec(windows=(1, 2, 3, 4), greedy=4))


def kept(plan: Plan, axis: str) -> np.ndarray:
    """What a plan keeps as booleans in the shape of ``pin_map``."""
    if axis != "kv_heads":
        return keep_masks(plan)[axis]
    mask = np.zeros(shapes(plan.source)["kv_heads"], bool)
    mask[plan.layers[:, None], plan.kv_heads] = True
    return mask


def honoured(plan: Plan, pins: Pins) -> bool:
    """Whether all that is pinned to stay is kept, and nothing of what is pinned to go."""
    pinned = {axis: pin_map(pins, plan.source, axis) for axis in NOUNS}
    return all(kept(plan, axis)[pinned[axis] > 0].all() and not kept(plan, axis)[pinned[axis] < 0].any() for axis in NOUNS)


def random_pins(rng: np.random.Generator, chance: float) -> Pins:
    """Pins on any units, either way, whether they can be met or not."""
    pins = NO_PINS
    for axis, shape in shapes(DIMS).items():
        rate = chance / 8 if axis in ("neurons", "channels") else chance
        for verb in ("keep", "prune"):
            pins = with_pins(pins, DIMS, axis, np.argwhere(rng.random(shape) < rate).tolist(), verb)
    return pins


def some_targets(rng: np.random.Generator) -> Targets:
    """Sizes that the tiny model can be cut to."""
    kv_heads, group = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    hidden = int(rng.integers(1, 24 // (kv_heads * group) + 1)) * kv_heads * group
    return Targets(
        num_hidden_layers=int(rng.integers(1, 6)), num_key_value_heads=kv_heads, num_attention_heads=kv_heads * group,
        intermediate_size=int(rng.integers(1, 41)), hidden_size=hidden,
    )  # fmt: skip


def test_what_is_pinned_stays_or_goes_and_the_counts_do_not_change(scores: Scores) -> None:
    rng, met = np.random.default_rng(0), 0
    for _ in range(400):
        pins, targets = random_pins(rng, 0.04), some_targets(rng)
        rank = RankSpec(depth=str(rng.choice(list(criteria_of("layers")))))
        if plan_problems(CONFIG, targets, rank, pins):
            with pytest.raises(UserError):
                make_plan(scores, CONFIG, targets, rank, pins)
            continue
        plan, met = make_plan(scores, CONFIG, targets, rank, pins), met + 1
        assert honoured(plan, pins), (pins, targets)
        free = make_plan(scores, CONFIG, targets, rank)
        assert [getattr(plan, name).shape for name in INDICES] == [getattr(free, name).shape for name in INDICES]
        assert (plan.heads.reshape(*plan.kv_heads.shape, -1) // DIMS.group == plan.kv_heads[..., None]).all(), "heads by their own group"
    assert met > 100


def possible(pins: Pins, dims: Dims) -> bool:
    """Whether any choice of heads in every layer honours the pins, by trying all of them."""
    heads, kv_heads = pin_map(pins, DIMS, "heads"), pin_map(pins, DIMS, "kv_heads")

    def works(layer: int) -> bool:
        for groups in itertools.combinations(range(DIMS.kv_heads), dims.kv_heads):
            inside = [itertools.combinations(range(group * DIMS.group, (group + 1) * DIMS.group), dims.group) for group in groups]
            for chosen in itertools.product(*inside):
                head_H, kv_K = np.zeros(DIMS.heads, bool), np.zeros(DIMS.kv_heads, bool)
                head_H[[head for part in chosen for head in part]], kv_K[list(groups)] = True, True
                if all(
                    (pinned == 0).__or__((pinned > 0) == mask).all() for pinned, mask in ((heads[layer], head_H), (kv_heads[layer], kv_K))
                ):
                    return True
        return False

    return all(map(works, range(DIMS.layers)))


def test_pins_of_heads_are_refused_only_where_no_choice_meets_them(workspace: Path) -> None:
    rng, refused = np.random.default_rng(1), 0
    for _ in range(300):
        pins = with_pins(NO_PINS, DIMS, "heads", np.argwhere(rng.random((5, 6)) < 0.12).tolist(), "keep")
        pins = with_pins(pins, DIMS, "heads", np.argwhere(rng.random((5, 6)) < 0.12).tolist(), "prune")
        pins = with_pins(pins, DIMS, "kv_heads", np.argwhere(rng.random((5, 3)) < 0.05).tolist(), str(rng.choice(["keep", "prune"])))
        targets = dataclasses.replace(some_targets(rng), num_hidden_layers=None, hidden_size=None)
        problems = plan_problems(CONFIG, targets, RankSpec(), pins)
        assert bool(problems) != possible(pins, resized(DIMS, targets)), (pins, targets, problems)
        refused += bool(problems)
    assert 50 < refused < 250


def test_no_pins_change_nothing(scores: Scores) -> None:
    first, second = make_plan(scores, CONFIG, CUT, RankSpec()), make_plan(scores, CONFIG, CUT, RankSpec(), NO_PINS)
    assert first.identity == second.identity
    freed = with_pins(with_pins(NO_PINS, DIMS, "heads", [(3, 0)], "keep"), DIMS, "heads", [(3, 0)], None)
    assert freed == NO_PINS


def test_a_pin_of_what_is_kept_or_cut_anyway_changes_nothing(scores: Scores) -> None:
    plan = make_plan(scores, CONFIG, CUT, RankSpec())
    layer = int(plan.layers[0])
    pins = with_pins(NO_PINS, DIMS, "heads", [(layer, int(plan.heads[0, 0]))], "keep")
    pins = with_pins(pins, DIMS, "channels", [(int(np.setdiff1d(np.arange(24), plan.channels)[0]),)], "prune")
    assert make_plan(scores, CONFIG, CUT, RankSpec(), pins).identity == plan.identity


def test_a_pinned_unit_keeps_its_layer_and_a_pinned_head_its_group(scores: Scores) -> None:
    plan = make_plan(scores, CONFIG, CUT, RankSpec())
    layer = int(np.setdiff1d(np.arange(5), plan.layers)[0])
    steered = make_plan(scores, CONFIG, CUT, RankSpec(), Pins(keep_heads=(f"{layer}.5",), keep_neurons=(f"{layer}.0-3",)))
    row = steered.layers.tolist().index(layer)
    assert 5 in steered.heads[row]
    assert 2 in steered.kv_heads[row]
    assert {0, 1, 2, 3} <= set(steered.neurons[row])


def test_a_head_that_must_go_takes_its_group_along_where_groups_stay_whole(scores: Scores) -> None:
    plan = make_plan(scores, CONFIG, Targets(num_key_value_heads=2), RankSpec(), Pins(prune_heads=("2.3",)))
    assert plan.kv_heads[2].tolist() == [0, 2]


def test_units_are_written_in_ranges_and_read_back() -> None:
    rng = np.random.default_rng(2)
    for axis, shape in shapes(DIMS).items():
        mask = rng.random(shape) < 0.5
        pins = Pins(**{f"keep_{axis}": written(mask)})
        assert not pins.problems()
        np.testing.assert_array_equal(pin_map(pins, DIMS, axis) > 0, mask)
    assert written(np.array([True, True, False, True])) == ("0-1", "3")
    assert written(np.array([[False, False], [True, True]])) == ("1.0-1",)


def test_pins_survive_the_disk_and_old_plans_have_none(scores: Scores, tmp_path: Path) -> None:
    pins = Pins(keep_heads=("3.0",), prune_layers=("1",))
    make_plan(scores, CONFIG, CUT, RankSpec(), pins).save(tmp_path / "plan.npz")
    assert Plan.load(tmp_path / "plan.npz").pins == pins


@pytest.mark.parametrize(
    ("pins", "told"),
    [
        (Pins(keep_heads=("3",)), "keep_heads: must hold layer and number, such as 3.0 or 3.0-5; got '3'."),
        (Pins(prune_layers=("2.1",)), "prune_layers: must hold numbers, such as 12 or 0-3; got '2.1'."),
        (Pins(keep_neurons=("1.9-3",)), "got '1.9-3'"),
        (Pins(keep_heads=("3.6",)), "keep_heads: the model has no 3.6; its heads of layers 0 to 4 count from 0 to 5."),
        (Pins(prune_neurons=("5.0", "0.1")), "prune_neurons: the model has no 5.0; its neurons"),
        (Pins(keep_layers=("2",), prune_layers=("1-2",)), "These layers are pinned both to stay and to go: 2. Clear one of the pins."),
        (Pins(keep_heads=("2.1",), prune_layers=("2",)), "These heads are pinned to stay, but their layer to go: 2.1."),
        (Pins(keep_heads=("2.1",), prune_kv_heads=("2.0",)), "These heads are pinned to stay, but their key-value head to go: 2.1."),
        (Pins(keep_layers=("0-3",)), "4 layers are pinned to stay, but the target keeps 3: 0-3. Clear some, or keep more layers."),
        (Pins(keep_layers=("0-1",), keep_heads=("2.0", "3.0")), "4 layers are pinned to stay (some for the units pinned in them), but the target keeps 3"),
        (Pins(prune_layers=("0-2",)), "3 layers are pinned to go, but the target removes 2: 0-2. Clear some, or keep at most 2 layers."),
        (Pins(keep_heads=("1.0-1",)), "more are pinned to stay in 1.0 (layer.key-value head)"),
        (Pins(keep_kv_heads=("1.0-2",)), "Up to 3 key-value heads are pinned to stay in layer 1, but 2 of 3 stay. Clear some, or keep more key-value heads."),
        (Pins(prune_heads=("1.0-3",)), "Up to 2 key-value heads are pinned to go in layer 1, but 1 of 3 go."),
        (Pins(keep_kv_heads=("1.0",), prune_heads=("1.0-1",)), "1.0 (layer.key-value head), pinned to stay, cannot"),
        (Pins(keep_neurons=("0.0-11", "1.0-11")), "Up to 12 neurons are pinned to stay in layers 0-1, but 11 of 40 stay."),
        (Pins(prune_neurons=("4.0-29",)), "Up to 30 neurons are pinned to go in layer 4, but 29 of 40 go."),
        (Pins(keep_channels=("0-12",)), "13 channels are pinned to stay, but 12 of 24 stay. Clear some, or keep more channels."),
        (Pins(prune_channels=("0-12",)), "13 channels are pinned to go, but 12 of 24 go. Clear some, or keep fewer channels."),
    ],
)  # fmt: skip
def test_pins_that_cannot_be_met_are_refused_in_a_sentence(scores: Scores, pins: Pins, told: str) -> None:
    with pytest.raises(UserError) as caught:
        make_plan(scores, CONFIG, CUT, RankSpec(), pins)
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_protected_layer_cannot_be_pinned_to_go(scores: Scores) -> None:
    with pytest.raises(UserError, match="pinned to go, but protected at an end of the model: 0"):
        make_plan(scores, CONFIG, CUT, RankSpec(protect_first=1), Pins(prune_layers=("0",)))


def test_a_pin_in_a_layer_that_goes_asks_for_nothing(scores: Scores) -> None:
    pins = Pins(prune_layers=("2",), prune_heads=("2.0-5",), prune_neurons=("2.0-39",))
    plan = make_plan(scores, CONFIG, CUT, RankSpec(), pins)
    assert 2 not in plan.layers
