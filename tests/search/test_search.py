"""Laws of the search: the same each time, resumed or not, within its budget, and what it keeps is the best of what it saw."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import UserError
from core.evaluate.store import Figures
from core.model.dims import dims_of
from core.plan.plan import Plan
from core.progress import Silent, Stopped
from core.search import ledger
from core.search.choose import next_batch
from core.search.rankings import others_of
from core.search.search import Pool, estimates_of, pool_of, search
from core.specs import RankSpec, ScoreSpec, SearchSpec
from tests.synthetic_scores import synthetic_scores
from tests.tiny import tiny_config

CONFIG = tiny_config(hidden_size=96, intermediate_size=200, num_hidden_layers=12).to_dict()
DIMS = dims_of(CONFIG)
SPEC = SearchSpec(keep=0.6, within=0.1, evaluations=14, seed=1)
BETTER = {"kl": 0.8, "angle": 1.3}
"""What another criterion of layers makes of the divergence."""
TRUE_A = np.array([3.0, 0.5, 0.5, 1.0, 6.0])


@pytest.fixture
def pool(workspace: Path) -> Pool:
    return pool_of(synthetic_scores("b2-search", DIMS, ScoreSpec()), CONFIG, SPEC, RankSpec())


class World:
    """Figures that a made-up model would give: a sum over the axes, bent, with noise that belongs to the plan."""

    def __init__(self, pool: Pool, true_A: np.ndarray = TRUE_A) -> None:
        self.asked: list[str] = []
        noise = np.random.default_rng(5).uniform(0.9, 1.1, len(pool.plans))
        kl_N = ((pool.lost_NA**1.5) @ true_A) * noise
        self.kl = {plan.identity: float(kl) for plan, kl in zip(pool.plans, kl_N, strict=True)}
        self.sizes = {plan.targets: self.kl[plan.identity] for plan in pool.plans}

    def measure(self, plans: Sequence[Plan]) -> Iterator[Figures]:
        for plan in plans:
            self.asked.append(plan.identity)
            kl = self.sizes[plan.targets] * BETTER.get(plan.rank.depth, 1.0) * (0.95 if plan.rank.sequence == "l2" else 1.0)
            yield {"kl_nats": kl, "loss_nats": 3 + kl, "loss_se_nats": 0.1, "perplexity": float(np.exp(3 + kl)), "top1_agreement": 0.5}


class StopAt(Silent):
    def __init__(self, done: int) -> None:
        self.done = done

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        if done == self.done:
            raise Stopped


def run(
    pool: Pool, folder: Path, spec: SearchSpec = SPEC, progress: Silent | None = None, true_A: np.ndarray = TRUE_A
) -> tuple[list[ledger.Row], World]:
    world = World(pool, true_A)
    folder.mkdir(exist_ok=True)
    return search(pool, spec, world.measure, folder, progress or Silent()), world


def test_it_measures_as_many_as_it_may_none_twice_and_keeps_the_best(pool: Pool, tmp_path: Path) -> None:
    rows, world = run(pool, tmp_path)
    assert len(rows) == 14 == len(set(world.asked))
    best = ledger.best(rows)
    assert best is not None
    assert best["kl_nats"] == min(row["kl_nats"] for row in rows)
    assert [row["number"] for row in rows] == list(range(1, 15))
    assert ledger.read(tmp_path)["rows"] == rows


def test_every_measured_candidate_is_of_the_pool_and_under_the_budget(pool: Pool, tmp_path: Path) -> None:
    known = {one.targets: one for one in pool.candidates}
    for row in run(pool, tmp_path)[0]:
        assert row["parameters"] == known[ledger.targets_of(row)].parameters <= max(one.parameters for one in pool.candidates)


def test_the_last_measurements_try_other_rankings_of_the_best_sizes_and_build_on_what_wins(pool: Pool, tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, evaluations=16, rankings=7)
    fewer, shallow_A = dataclasses.replace(spec, evaluations=9, rankings=0), np.array([0.1, 5.0, 5.0, 4.0, 9.0])
    (rows, _), (bare, _) = run(pool, tmp_path / "a", spec, true_A=shallow_A), run(pool, tmp_path / "b", fewer, true_A=shallow_A)
    assert len(rows) == 16
    assert [row["targets"] for row in rows[:9]] == [row["targets"] for row in bare]
    assert not any(row.get("rank") for row in rows[:9])
    assert all(row["rank"] != RankSpec().to_dict() for row in rows[9:])
    first, best = min(bare, key=lambda row: row["kl_nats"]), ledger.best(rows)
    assert best is not None
    assert rows[9]["targets"] == first["targets"], "it begins with the best sizes"
    assert ledger.rank_of(best, RankSpec()).depth == "kl"
    assert {(row["rank"]["depth"], row["rank"]["sequence"]) for row in rows[9:]} >= {("kl", "mean"), ("kl", "l2")}, (
        "one change on the other"
    )
    plain = next(row for row in rows if row["targets"] == best["targets"])
    assert best["kl_nats"] == pytest.approx(0.8 * plain["kl_nats"])
    assert len({(str(row["targets"]), str(row.get("rank"))) for row in rows}) == 16, "none twice"


def test_a_criterion_that_was_not_measured_is_not_tried_and_no_layer_criterion_where_all_layers_stay(workspace: Path) -> None:
    scores = synthetic_scores("b2-search", DIMS, ScoreSpec(ppl_blocks=0))
    pool = pool_of(scores, CONFIG, SPEC, RankSpec())
    whole, cut = (next(plan for plan in pool.plans if (plan.dims.layers == DIMS.layers) == stays) for stays in (True, False))
    assert {rank.depth for rank in others_of(whole, pool.offered)} == {"bi"}
    assert {rank.depth for rank in others_of(cut, pool.offered)} == {"bi"}, "only block importance is there"
    assert {rank.depth for rank in others_of(cut, {"kl", "bi"})} == {"bi", "kl"}
    assert [rank.sequence for rank in others_of(cut, pool.offered)] == ["l2"]
    flap = dataclasses.replace(cut, rank=RankSpec(heads="magnitude", neurons="magnitude", channels="magnitude"))
    assert others_of(flap, pool.offered) == [], "no criterion of the cut aggregates activations"


def test_at_most_half_of_the_measurements_go_to_rankings() -> None:
    assert [(spec.sized, spec.ranked) for n in (1, 2, 5, 24) for spec in [SearchSpec(evaluations=n)]] == [(1, 0), (1, 1), (3, 2), (18, 6)]


def test_the_same_seed_searches_the_same_way_and_another_does_not(pool: Pool, tmp_path: Path) -> None:
    assert run(pool, tmp_path / "a")[0] == run(pool, tmp_path / "b")[0]
    one, other = (run(pool, tmp_path / str(seed), dataclasses.replace(SPEC, rankings=0, seed=seed))[0] for seed in (1, 2))
    assert [row["targets"] for row in one] != [row["targets"] for row in other]


@pytest.mark.parametrize("stopped_at", [1, 4, 6, 13])
def test_stopped_and_resumed_it_ends_like_one_that_was_not_and_keeps_what_it_had(pool: Pool, tmp_path: Path, stopped_at: int) -> None:
    undisturbed, _ = run(pool, tmp_path / "undisturbed")
    with pytest.raises(Stopped):
        run(pool, tmp_path / "disturbed", progress=StopAt(stopped_at))
    kept = ledger.read(tmp_path / "disturbed")["rows"]
    assert [row["targets"] for row in kept] == [row["targets"] for row in undisturbed[:stopped_at]]
    assert run(pool, tmp_path / "disturbed")[0] == undisturbed
    assert ledger.read(tmp_path / "disturbed")["rows"] == undisturbed


def test_it_beats_the_ten_largest_and_chance_at_as_many_measurements(pool: Pool, tmp_path: Path) -> None:
    rows, world = run(pool, tmp_path, SearchSpec(keep=0.6, within=0.1, evaluations=10, rankings=0))
    best = min(row["kl_nats"] for row in rows)
    kl_N = np.array([world.kl[plan.identity] for plan in pool.plans])
    chance = np.mean([np.random.default_rng(i).choice(kl_N, 10, replace=False).min() for i in range(200)])
    assert len(kl_N) > 40, "or there is nothing to search"
    assert best < kl_N[:10].min()
    assert best < chance
    assert best <= np.sort(kl_N)[2], "one of the three best of the whole pool is found"


def test_a_pool_that_is_smaller_than_the_budget_is_measured_whole(pool: Pool, tmp_path: Path) -> None:
    small = dataclasses.replace(pool, candidates=pool.candidates[:3], plans=pool.plans[:3], lost_NA=pool.lost_NA[:3])
    assert len(run(small, tmp_path, dataclasses.replace(SPEC, rankings=0))[0]) == 3
    assert next_batch(small.lost_NA, {0: 1.0, 1: 1.0, 2: 1.0}, SPEC) == []


def test_when_the_time_is_spent_the_best_so_far_is_kept(pool: Pool, tmp_path: Path) -> None:
    rows, _ = run(pool, tmp_path, SearchSpec(keep=0.6, within=0.1, evaluations=14, minutes=1e-9))
    assert rows == [], "not a single batch fits"
    ledger.write(tmp_path, pool=9, seconds=0.0, teacher={}, rows=run(pool, tmp_path / "full")[0][:4])
    again, _ = run(pool, tmp_path, SearchSpec(keep=0.6, within=0.1, evaluations=14, minutes=1e-9, seed=1))
    assert len(again) == 4, "what a resumed search had is kept although no time is left"


def test_the_front_holds_the_best_and_nothing_that_is_beaten(pool: Pool, tmp_path: Path) -> None:
    rows = run(pool, tmp_path)[0]
    front = ledger.front(rows)
    assert ledger.best(rows) in front
    for row in rows:
        beaten = any(
            all(other[name] <= row[name] for name in ("kl_nats", "parameters", "flops")) and other["kl_nats"] < row["kl_nats"]
            for other in rows
        )
        assert (row in front) is not beaten


def test_the_estimates_of_the_whole_pool_stand_best_first(pool: Pool, tmp_path: Path) -> None:
    found = estimates_of(pool, run(pool, tmp_path)[0])
    assert len(found) == len(pool.candidates)
    assert [one["estimate"] for one in found] == sorted(one["estimate"] for one in found)


def test_protecting_more_layers_than_any_candidate_keeps_is_told(workspace: Path) -> None:
    scores = synthetic_scores("b2-search", DIMS, ScoreSpec())
    with pytest.raises(UserError, match="are protected, more than"):
        pool_of(scores, CONFIG, SearchSpec(keep=0.3), RankSpec(protect_first=7, protect_last=7))
