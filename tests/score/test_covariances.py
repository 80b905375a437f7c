"""Covariances: the sums themselves, what removal by them promises, and what is refused."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from core.errors import UserError
from core.score.batch import Batch
from core.score.covariances import CovarianceAccumulator, add_gram, covariance_scores, removal_places
from core.score.scoring import score_model
from core.score.sites import covariance_bytes
from core.specs import RankSpec, ScoreSpec
from tests.score.oracles import removal_order
from tests.score.world import KINDS, exact_model, hooks_left, world
from tests.tiny import random_blocks, tiny_model


def scored(model: Any, blocks: np.ndarray, ridge: float = 0.03, size: int = 3) -> dict[str, np.ndarray]:
    accumulator = CovarianceAccumulator(model, model.config.to_dict())
    for start in range(0, len(blocks), size):
        accumulator.feed(model, Batch(torch.from_numpy(blocks[start : start + size]).long()))
    return covariance_scores(accumulator, model, ridge)


@pytest.mark.parametrize("kind", KINDS)
def test_covariances_are_the_mean_outer_products_of_what_is_read(kind: str) -> None:
    here = world(kind)
    accumulator = CovarianceAccumulator(here.model, here.model.config.to_dict())
    for part in (here.blocks_NT[:4], here.blocks_NT[4:]):
        accumulator.feed(here.model, Batch(torch.from_numpy(part).long()))
    assert hooks_left(here.model) == 0
    for site, axis in (("head_channels", "heads"), ("neurons", "neurons"), ("channels", "channels")):
        for place, acts_MC in enumerate(here.read(axis)):
            expected = acts_MC.T @ acts_MC / len(acts_MC)
            found = accumulator.covariance(site, place).numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
            np.testing.assert_array_equal(found, found.T)


def test_a_part_of_the_tokens_is_the_same_however_it_is_batched_and_tells_how_sure_it_is() -> None:
    here = world("llama")
    config, blocks = here.model.config.to_dict(), torch.from_numpy(here.blocks_NT).long()
    chosen = Batch(blocks).drawn(0.4).numpy()
    together, apart = (CovarianceAccumulator(here.model, config, 0.4) for _ in range(2))
    together.feed(here.model, Batch(blocks))
    for block in blocks:
        apart.feed(here.model, Batch(block[None]))
    assert together.taken == apart.taken == chosen.sum() == len(blocks) * round(0.4 * blocks.shape[1])
    for place in range(5):
        acts_NF = here.held["neurons"][place][chosen]
        expected = acts_NF.T @ acts_NF / len(acts_NF)
        for accumulator in (together, apart):
            np.testing.assert_allclose(accumulator.covariance("neurons", place), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
        energy = (acts_NF**2).sum(1)
        error = energy.std(ddof=1) / energy.mean() * np.sqrt((1 - len(energy) / blocks.numel()) / len(energy))
        assert together.errors("neurons")[place] == pytest.approx(error, rel=1e-5)


def test_padding_is_never_drawn() -> None:
    documents = torch.tensor([[-1, -1, 0, 0, 0, 1, 1, 1], [0] * 8])
    batch = Batch(torch.arange(16).view(2, 8), documents)
    for share in (0.1, 0.5, 1.0):
        found = batch.drawn(share)
        assert not (found & (documents == -1)).any()
        assert found.sum(1).tolist() == [max(2, round(share * count)) for count in (6, 8)]


@pytest.mark.parametrize("units", [1, 63, 64, 65, 512, 513, 700])
def test_the_upper_triangle_is_whole_however_the_stripes_fall(units: int) -> None:
    acts = torch.randn(30, units, generator=torch.Generator().manual_seed(units))
    found = torch.zeros(units, units)
    add_gram(found, acts[:11])
    add_gram(found, acts[11:])
    torch.testing.assert_close(found.triu(), (acts.T @ acts).triu(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axis", ["heads", "neurons", "channels"])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_the_last_to_go_and_every_step_before_are_the_literal_loops(kind: str, axis: str) -> None:
    places = world(kind).scores.importance(axis, RankSpec(**{axis: "iterative"}))
    for row in places if places.ndim == 2 else places[None]:
        assert sorted(row) == list(range(1, len(row) + 1)), "every unit has a place of its own"


def test_removal_recomputes_what_the_removed_do_together() -> None:
    # Two columns that cancel each other: alone each is costly, together they are free. The third is alone and middling.
    effect = np.array([[5.0, -4.9, 0], [-4.9, 5.1, 0], [0, 0, 5.2]])
    assert removal_places(effect).tolist() == [1, 2, 3]
    rng = np.random.default_rng(0)
    for _ in range(20):
        factor = rng.normal(size=(4, 9))
        effect = factor.T @ factor
        expected = removal_order(lambda gone, effect=effect: effect[np.ix_(gone, gone)].sum(), [[i] for i in range(9)])
        np.testing.assert_array_equal(removal_places(effect), expected)


def test_a_unit_that_others_can_stand_in_for_costs_a_surgeon_nothing() -> None:
    model, blocks = exact_model("llama"), random_blocks(6, 19)
    mlp = model.model.layers[2].mlp
    for projection in (mlp.gate_proj, mlp.up_proj):
        projection.weight.data[7] = projection.weight.data[8]
    found = scored(model, blocks, ridge=1e-4)
    assert found["obs.neurons"][2, [7, 8]].max() < 0.02 * np.median(found["obs.neurons"][2])
    assert found["contribution.neurons"][2, 7] > 0.02 * np.median(found["contribution.neurons"][2])
    assert found["leverage.neurons"][2, 7] == pytest.approx(found["leverage.neurons"][2, 8], rel=1e-4)


def test_bounds_that_the_formulas_promise() -> None:
    here = world("llama")
    for axis, widest in (("heads", 8), ("neurons", 1), ("channels", 10)):
        values = {name: here.scores.importance(axis, RankSpec(**{axis: name})) for name in ("leverage", "obs", "contribution")}
        assert (values["leverage"] > 0).all()
        assert (values["leverage"] < widest).all()
        assert (values["obs"] > 0).all()
    neurons = {name: here.scores.importance("neurons", RankSpec(neurons=name)) for name in ("obs", "contribution")}
    ridge = here.spec.ridge * (here.read("neurons") ** 2).mean((1, 2))
    norms = np.stack([(weight**2).sum(0) for (weight,) in here.reading("neurons")])
    assert (neurons["obs"] <= (neurons["contribution"] + ridge[:, None] * norms) * (1 + 1e-6)).all(), "adapting is never worse than not"


def test_a_dead_unit_is_worth_nothing_and_breaks_nothing() -> None:
    model = exact_model("llama")
    model.model.layers[1].mlp.up_proj.weight.data[4] = 0
    found = scored(model, random_blocks(4, 19))
    assert found["contribution.neurons"][1, 4] == 0
    assert found["leverage.neurons"][1, 4] == pytest.approx(0, abs=1e-12), (
        "one less the ridge's share of it, and some processors round that"
    )
    assert found["iterative.neurons"][1, 4] == 1
    assert all(np.isfinite(values).all() for values in found.values())


def test_a_layer_that_writes_nothing_breaks_nothing() -> None:
    model = exact_model("llama")
    model.model.layers[1].mlp.up_proj.weight.data.zero_()
    model.model.layers[3].input_layernorm.weight.data.zero_()
    assert all(np.isfinite(values).all() for values in scored(model, random_blocks(4, 19)).values())


def test_hardly_any_ridge_and_fewer_tokens_than_units_is_refused() -> None:
    with pytest.raises(UserError, match=r"cannot be inverted with a ridge of 1e-12.*Raise ridge"):
        scored(tiny_model(), random_blocks(1, 12), ridge=1e-12)


def test_scores_do_not_depend_on_how_the_blocks_are_batched() -> None:
    model, blocks = exact_model("llama"), random_blocks(6, 19)
    one, other = scored(model, blocks, size=6), scored(model, blocks, size=1)
    for name, expected in one.items():
        np.testing.assert_allclose(other[name], expected, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_that_is_told_is_what_is_taken(kind: str) -> None:
    model = exact_model(kind)
    config = model.config.to_dict()
    for dtype, number_bytes in ((torch.bfloat16, 4), (torch.float32, 4), (torch.float64, 8)):
        taken = sum(sums.nbytes for sums in CovarianceAccumulator(model.to(dtype), config).sums.values())
        assert covariance_bytes(config, number_bytes) == taken
    assert covariance_bytes(config) == covariance_bytes(config, 4), "as the dashboard tells it"


def test_what_does_not_fit_into_memory_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(UserError, match=r"covariances of this model take 0\.0 GB, and 0\.0 GB are free\. Score without covariances"):
        score_model(tiny_model(), random_blocks(1, 8), ScoreSpec(shards=1, ppl_blocks=0, covariances=True))


def test_no_hook_is_left_behind_after_an_error() -> None:
    model = tiny_model()
    with pytest.raises(IndexError):
        scored(model, np.full((1, 8), 97))
    assert hooks_left(model) == 0
