"""Layers left out: what is told of them, against full forward passes; and how runs of layers are chosen."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import UserError
from core.model.dims import dims_of
from core.score.batch import Batch
from core.score.criteria import problems
from core.score.criteria.depth import best_run
from core.score.depth import Remover, angles_between, greedy_removal, losses_without
from core.score.scoring import score_model
from core.specs import RankSpec, ScoreSpec
from tests.score.world import KINDS, block_divergences, block_losses, exact_model, hold, hooks_left, log_probabilities, loss, world
from tests.synthetic_scores import synthetic_scores
from tests.tiny import random_blocks, tiny_config, tiny_model


def token_losses_of(model: Any, block_T: np.ndarray, without: list[int]) -> np.ndarray:
    """Losses of a block's predicted tokens, ``[T - 1]``, by a full forward."""
    found = np.asarray(log_probabilities(model, block_T[None], without)[0])
    return -found[np.arange(len(block_T) - 1), block_T[1:]]


def ids(blocks_NT: np.ndarray) -> Batch:
    return Batch(torch.from_numpy(blocks_NT).long())


@pytest.mark.parametrize("kind", KINDS)
def test_the_damage_without_a_layer_is_that_of_a_full_forward_without_it(kind: str) -> None:
    model, blocks = exact_model(kind), random_blocks(2, 24)
    with torch.no_grad():
        whole = log_probabilities(model, blocks)
        for without, damage in zip([[], *([i] for i in range(5))], losses_without(model, model.config.to_dict(), ids(blocks)), strict=True):
            cut = log_probabilities(model, blocks, without)
            assert damage.loss == pytest.approx(float(block_losses(model, blocks, without).mean()), rel=1e-6)
            assert damage.kl == pytest.approx(float(block_divergences(whole, cut).mean()), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("length", [1, 2, 4, 5])
def test_the_damage_without_a_run_is_that_of_a_full_forward_without_it(length: int) -> None:
    model, blocks = exact_model("qwen3"), random_blocks(2, 24)
    remover = Remover(model, model.config.to_dict(), ids(blocks))
    damages = [remover.without(start, length) for start in range(6 - length)]
    with torch.no_grad():
        for start, damage in enumerate(damages):
            assert damage.loss == pytest.approx(float(block_losses(model, blocks, list(range(start, start + length))).mean()), rel=1e-6)


def test_removing_in_any_order_is_a_full_forward_without_all_that_went() -> None:
    model, blocks = exact_model("mistral"), random_blocks(2, 24)
    for order in itertools.islice(itertools.permutations(range(5), 4), 0, None, 17):
        remover, gone = Remover(model, model.config.to_dict(), ids(blocks)), []
        for layer in order:
            place = remover.present.index(layer)
            gone.append(layer)
            with torch.no_grad():
                expected = float(block_losses(model, blocks, gone).mean())
            assert remover.without(place).loss == pytest.approx(expected, rel=1e-6)
            remover.remove(place)
        assert len(remover.entered) == 2


def test_greedy_removal_stops_at_one_layer_and_tells_the_loss_after_each() -> None:
    model, blocks, told = exact_model("llama"), random_blocks(3, 24), []
    removers = [Remover(model, model.config.to_dict(), ids(blocks[i : i + 1])) for i in range(3)]
    steps = list(greedy_removal(removers, lambda layer, loss: told.append((layer, loss))))
    assert len({layer for layer, _ in steps}) == 4
    assert len(told) == 5 + 4 + 3 + 2
    with torch.no_grad():
        for i, (_, found) in enumerate(steps):
            gone = [layer for layer, _ in steps[: i + 1]]
            assert found == pytest.approx(float(block_losses(model, blocks, gone).mean()), rel=1e-6)


def test_lazy_removal_finds_the_same_where_no_layer_grows_cheaper_and_tries_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    worth = np.random.default_rng(3).random(9)

    class Layers:
        """A model whose loss is the square of all that went: the more is gone, the more each layer costs."""

        def __init__(self) -> None:
            self.present, self.gone, self.whole = list(range(9)), 0.0, SimpleNamespace(loss=0.0)

        def without(self, place: int) -> Any:
            return SimpleNamespace(loss=(self.gone + worth[self.present[place]]) ** 2)

        def remove(self, place: int) -> None:
            self.gone += worth[self.present.pop(place)]

    told: dict[bool, list[int]] = {False: [], True: []}
    found = {lazy: list(greedy_removal([Layers()], lambda i, _, lazy=lazy: told[lazy].append(i), lazy=lazy)) for lazy in told}  # type: ignore[list-item, misc]
    assert [layer for layer, _ in found[True]] == [layer for layer, _ in found[False]] == np.argsort(worth)[:8].tolist()
    np.testing.assert_allclose([loss for _, loss in found[True]], np.cumsum(np.sort(worth)[:8]) ** 2)
    assert len(told[False]) == sum(range(2, 10))
    assert len(told[True]) < len(told[False])


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_part_of_the_tokens_tells_the_rise_on_just_those_and_how_sure_it_is(kind: str) -> None:
    model, blocks = exact_model(kind), random_blocks(1, 60)
    remover = Remover(model, model.config.to_dict(), ids(blocks), share=0.3)
    places = remover.drawn_N.tolist()
    assert len(places) == round(0.3 * 59)
    with torch.no_grad():
        rise = (token_losses_of(model, blocks[0], [2]) - token_losses_of(model, blocks[0], []))[places]
    damage = remover.without(2)
    assert damage.loss - remover.whole.loss == pytest.approx(float(rise.mean()), rel=1e-6, abs=1e-6)
    assert damage.loss_error == pytest.approx(float(rise.std(ddof=1)) * np.sqrt((1 - len(places) / 59) / len(places)), rel=1e-6)
    assert remover.whole.loss == pytest.approx(float(block_losses(model, blocks, []).detach().mean()), rel=1e-6), (
        "of the whole model on all tokens"
    )


def test_errors_are_as_large_as_the_standard_errors_say() -> None:
    model, blocks = exact_model("llama"), random_blocks(40, 60)
    apart, told = [], []
    for i in range(len(blocks)):
        whole, part = (Remover(model, model.config.to_dict(), ids(blocks[i : i + 1]), share) for share in (1.0, 0.5))
        apart.append((whole.without(1).loss - part.without(1).loss, whole.without(1).kl - part.without(1).kl))
        told.append((part.without(1).loss_error, part.without(1).kl_error))
        assert whole.without(1).loss_error == whole.without(1).kl_error == 0
    ratio = np.sqrt((np.array(apart) ** 2).mean(0) / (np.array(told) ** 2).mean(0))
    assert ((ratio > 0.6) & (ratio < 1.6)).all(), ratio


def test_greedy_losses_are_stored_in_the_order_of_removal() -> None:
    here = world("llama")
    arrays = here.scores.arrays("greedy")
    expected = [loss(here, arrays["order"][:count].tolist()) for count in range(here.spec.greedy + 1)]
    np.testing.assert_allclose(arrays["losses"], expected, rtol=1e-6)


def test_angles_are_half_turns_between_all_depths() -> None:
    model, blocks = exact_model("llama"), random_blocks(2, 70)
    states = hold(model, blocks)["entered"]
    found = angles_between([torch.from_numpy(state).flatten(0, 1) for state in states]).numpy()
    unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
    expected = (np.arccos(np.clip(np.einsum("intd,jntd->ijnt", unit, unit), -1, 1)) / np.pi).mean((2, 3))
    apart = ~np.eye(6, dtype=bool)
    np.testing.assert_allclose(found[apart], expected[apart], rtol=1e-6)
    np.testing.assert_allclose(found.diagonal(), 0, atol=3e-4)  # arccos near 1 of a float32 cosine
    half = torch.ones(3, 4)
    np.testing.assert_allclose(angles_between([half, -half]).numpy(), [[0, 1], [1, 0]], atol=3e-4)


def test_losses_do_not_depend_on_the_batch() -> None:
    model, blocks = exact_model("llama"), random_blocks(3, 24)
    single = [[damage.loss for damage in losses_without(model, model.config.to_dict(), ids(blocks[i : i + 1]))] for i in range(3)]
    together = [damage.loss for damage in losses_without(model, model.config.to_dict(), ids(blocks))]
    np.testing.assert_allclose(np.mean(single, axis=0), together, rtol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_the_layers_of_the_best_run_come_out_lowest_whatever_is_protected_or_equal(length: int) -> None:
    rng = np.random.default_rng(length)
    for _ in range(200):
        values, free = rng.integers(0, 3, 7 - length + 1).astype(float), rng.random(7) < 0.8
        starts = [start for start in range(len(values)) if free[start : start + length].all()]
        found = best_run(values, length, free)
        assert np.isinf(found[~free]).all()
        if starts:
            lowest = np.argsort(-found, kind="stable")[7 - length :]  # as a plan picks them
            start = int(lowest.min())
            assert sorted(lowest) == list(range(start, start + length)), "consecutive"
            assert values[start] == min(values[at] for at in starts)


def test_protected_layers_are_infinite_under_every_criterion() -> None:
    scores = world("llama").scores
    for name in scores.offered("layers"):
        found = scores.importance("layers", RankSpec(depth=name, protect_first=1, protect_last=2), 2)
        assert np.isinf(found).tolist() == [True, False, False, True, True], name


def test_more_protection_than_there_are_layers_protects_all() -> None:
    for first, last in ((9, 0), (0, 9), (3, 4)):
        assert np.isinf(world("llama").scores.importance("layers", RankSpec(protect_first=first, protect_last=last))).all()


def test_a_window_of_a_length_that_was_not_measured_is_refused() -> None:
    with pytest.raises(UserError, match=r"Runs of 4 layers were not measured, only of 1, 2, 3\. Score again with 4 among the windows\."):
        world("llama").scores.importance("layers", RankSpec(depth="window"), 4)


def test_removing_more_than_greedy_removed_is_refused_and_protected_layers_do_not_count() -> None:
    scores = score_model(tiny_model(), random_blocks(2, 12), ScoreSpec(shards=1, ppl_blocks=2, greedy=2))
    order = scores.arrays("greedy")["order"].tolist()
    assert np.argsort(scores.importance("layers", RankSpec(depth="greedy"), 2), kind="stable")[:2].tolist() == order
    with pytest.raises(UserError, match=r"Only 2 layers that may go were removed one by one\. Score again with greedy of at least 3\."):
        scores.importance("layers", RankSpec(depth="greedy"), 3)
    shielding = RankSpec(depth="greedy", protect_last=5 - max(order))  # of the two that went, at least one
    with pytest.raises(
        UserError, match=r"Only [01] layers that may go were removed one by one\. Score again with greedy of at least [34]\."
    ):
        scores.importance("layers", shielding, 2)


@pytest.mark.parametrize("protect", [(0, 0), (1, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("removed", [0, 1, 2, 3])
def test_what_is_not_refused_before_greedy_removal_is_not_refused_after_it(removed: int, protect: tuple[int, int], workspace: Path) -> None:
    rank, dims = RankSpec(depth="greedy", protect_first=protect[0], protect_last=protect[1]), dims_of(tiny_config().to_dict())
    least = next(count for count in range(1, 6) if not problems(rank, ScoreSpec(greedy=count), removed))
    assert least == (removed + sum(protect) if removed else 1)
    for seed in range(8):  # in any order that may be found
        scores = synthetic_scores(f"b2-{seed}", dims, ScoreSpec(greedy=least), seed=seed)
        scores.importance("layers", rank, removed)
    if removed and sum(protect):
        (told,) = problems(rank, ScoreSpec(greedy=removed), removed)
        assert f"the {sum(protect)} protected ones may be among the first to go. Score again with greedy of at least {least}." in told


def test_what_greedy_left_over_is_known_to_go_last() -> None:
    scores = world("llama").scores  # four of five went
    last = ({0, 1, 2, 3, 4} - set(scores.arrays("greedy")["order"].tolist())).pop()
    assert scores.importance("layers", RankSpec(depth="greedy"), 4).argmax() == last


def test_a_plan_that_removes_no_layer_needs_no_measured_run() -> None:
    scores = score_model(tiny_model(), random_blocks(1, 12), ScoreSpec(shards=1, ppl_blocks=1, windows=(2,)))
    rank = RankSpec(depth="window")
    np.testing.assert_array_equal(scores.importance("layers", rank, 0), scores.importance("layers", rank, 2))


def test_no_hook_is_left_behind() -> None:
    model = tiny_model()
    list(losses_without(model, model.config.to_dict(), ids(random_blocks(1, 8))))
    assert hooks_left(model) == 0
    with pytest.raises(IndexError):
        Remover(model, model.config.to_dict(), Batch(torch.full((1, 8), 97)))
    assert hooks_left(model) == 0
