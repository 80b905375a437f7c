"""The bars of the quality bench are what their names say, and random plans are what they claim to be."""

import numpy as np
import pytest

from bench import plans, quality
from tests.bench.tiny import tiny_ground


@pytest.mark.parametrize("mine", [quality.DEFAULT, quality.SCALED])
def test_the_best_tool_is_taken_apart_for_each_text_and_osscar_is_not_among_them(mine: quality.Row) -> None:
    gaps = {row.name: (1.0 + i, 2.0) for i, row in enumerate(quality.PEERS)}
    gaps |= {"OSSCAR, FFN": (0.4, 0.1), "SliceGPT": (5.0, 1.0), quality.DEFAULT.name: (9.0, 9.0), quality.SCALED.name: (9.0, 9.0)}
    values = {
        bar.name.removeprefix(f"{mine.name}, "): bar.value for bar in quality.against_peers(gaps | {mine.name: (0.3, 0.6)}, 0.2, mine)
    }
    assert values == pytest.approx(
        {"20% removed: gap / the best tool's": 0.3, "20% removed: gap / OSSCAR's": 0.75, "20% removed: gap / the best tool's on sotu": 0.6}
    )


def test_every_row_has_a_name_of_its_own_and_the_default_is_coppice_s() -> None:
    names = [row.name for row in quality.ROWS]
    assert len(set(names)) == len(names)
    assert quality.DEFAULT.how == quality.SCALED.how == "Coppice"
    assert "scales" not in quality.DEFAULT.name
    assert "scales" in quality.SCALED.name
    assert not any(row.best_of for row in quality.RECIPES)


def test_random_plans_are_within_the_bounds_cut_every_axis_and_come_back_from_their_seed() -> None:
    ground = tiny_ground(4, 16)
    first, again = ([plan.identity for plan in plans.random_plans(ground, 12, seed)] for seed in (1, 1))
    assert first == again
    assert len(set(first)) > 8
    made = list(plans.random_plans(ground, 12))
    for name in ("layers", "heads", "ffn", "hidden"):
        assert len({getattr(plan.dims, name) for plan in made}) > 1
    shares = [1 - ground.parameters(plan.targets) / ground.budget(0) for plan in made]
    assert all(plans.REMOVED[0] < share < plans.REMOVED[1] for share in shares)


def test_spearman_looks_at_the_order_alone() -> None:
    assert plans.spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 10.0, 11.0])) == pytest.approx(1)
    assert plans.spearman(np.array([1.0, 2.0, 3.0]), np.array([5.0, 4.0, -9.0])) == pytest.approx(-1)
