"""Laws of the search: the same each time, resumed or not, within its budget, and what it keeps is the best of what it saw."""

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
from core.search.search import Pool, estimates_of, pool_of, search
from core.specs import RankSpec, ScoreSpec, SearchSpec
from tests.synthetic_scores import synthetic_scores
from tests.tiny import tiny_config

CONFIG = tiny_config(hidden_size=96, intermediate_size=200, num_hidden_layers=12).to_dict()
DIMS = dims_of(CONFIG)
SPEC = SearchSpec(keep=0.6, within=0.1, evaluations=14, seed=1)
TRUE_A = np.array([3.0, 0.5, 1.0, 6.0])


@pytest.fixture
def pool(workspace: Path) -> Pool:
    return pool_of(synthetic_scores("b2-search", DIMS, ScoreSpec()), CONFIG, SPEC, RankSpec())


class World:
    """Figures that a made-up model would give: a sum over the axes, bent, with noise that belongs to the plan."""

    def __init__(self, pool: Pool) -> None:
        self.asked: list[str] = []
        noise = np.random.default_rng(5).uniform(0.9, 1.1, len(pool.plans))
        kl_N = ((pool.lost_NA**1.5) @ TRUE_A) * noise
        self.kl = {plan.identity: float(kl) for plan, kl in zip(pool.plans, kl_N, strict=True)}

    def measure(self, plans: Sequence[Plan]) -> Iterator[Figures]:
        for plan in plans:
            self.asked.append(plan.identity)
            kl = self.kl[plan.identity]
            yield {"kl_nats": kl, "loss_nats": 3 + kl, "loss_se_nats": 0.1, "perplexity": float(np.exp(3 + kl)), "top1_agreement": 0.5}


class StopAt(Silent):
    def __init__(self, done: int) -> None:
        self.done = done

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        if done == self.done:
            raise Stopped


def run(pool: Pool, folder: Path, spec: SearchSpec = SPEC, progress: Silent | None = None) -> tuple[list[ledger.Row], World]:
    world = World(pool)
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


def test_the_same_seed_searches_the_same_way_and_another_does_not(pool: Pool, tmp_path: Path) -> None:
    assert run(pool, tmp_path / "a")[0] == run(pool, tmp_path / "b")[0]
    other = SearchSpec(keep=0.6, within=0.1, evaluations=14, seed=2)
    assert [row["targets"] for row in run(pool, tmp_path / "c", other)[0]] != [row["targets"] for row in run(pool, tmp_path / "a")[0]]


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
    rows, world = run(pool, tmp_path, SearchSpec(keep=0.6, within=0.1, evaluations=10))
    best = min(row["kl_nats"] for row in rows)
    kl_N = np.array([world.kl[plan.identity] for plan in pool.plans])
    chance = np.mean([np.random.default_rng(i).choice(kl_N, 10, replace=False).min() for i in range(200)])
    assert len(kl_N) > 40, "or there is nothing to search"
    assert best < kl_N[:10].min()
    assert best < chance
    assert best <= np.sort(kl_N)[2], "one of the three best of the whole pool is found"


def test_a_pool_that_is_smaller_than_the_budget_is_measured_whole(pool: Pool, tmp_path: Path) -> None:
    small = Pool(candidates=pool.candidates[:3], plans=pool.plans[:3], lost_NA=pool.lost_NA[:3])
    assert len(run(small, tmp_path)[0]) == 3
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
