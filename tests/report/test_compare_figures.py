"""What runs kept and where they got worse."""

import numpy as np

from core.report.compare_figures import kept_picture, passages_picture, shared
from core.report.measures import COSTS, QUALITIES, front

L, H, F, D = 4, 3, 6, 5


def masks(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    layers_L = rng.random(L) < 0.7
    return {
        "layers": layers_L, "heads": (rng.random((L, H)) < 0.6) & layers_L[:, None], "neurons": (rng.random((L, F)) < 0.6) & layers_L[:, None],
        "channels": rng.random(D) < 0.6,
    }  # fmt: skip


def test_agreement_is_symmetric_whole_with_oneself_and_between_nothing_and_all() -> None:
    for seed in range(20):
        one, other = masks(seed), masks(seed + 100)
        np.testing.assert_array_equal(shared(one, other, "neurons"), shared(other, one, "neurons"))
        own_L = shared(one, one, "heads")
        assert set(own_L[~np.isnan(own_L)]) <= {1.0}
        both_L = shared(one, other, "heads")
        assert ((both_L[~np.isnan(both_L)] >= 0) & (both_L[~np.isnan(both_L)] <= 1)).all()


def test_a_layer_that_only_one_kept_is_crossed_and_has_no_share() -> None:
    one, other = masks(1), masks(2)
    one["layers"] = np.array([True, True, False, True])
    other["layers"] = np.array([True, False, False, True])
    picture = kept_picture({"A": one, "B": other})
    assert set(picture.figure.data[1].x) == {1}
    assert set(picture.figure.data[1].y) == set(picture.figure.data[0].y), "a cross stands in the row of its pair"
    assert np.isnan(picture.figure.data[0].z[:, 1]).all()
    assert "1 layer only in one" in picture.alt
    assert picture.table["pair"].tolist() == ["A and B, heads", "A and B, neurons"]


def test_nobody_on_the_front_is_beaten_and_everybody_off_it_is() -> None:
    rng = np.random.default_rng(0)
    for across, up in (("parameters", "above"), ("decode", "agreement"), ("prefill", "kl")):
        cost, quality = COSTS[across], QUALITIES[up]
        points = [tuple(map(float, pair)) for pair in rng.integers(0, 9, (30, 2))]
        signs = np.array([1 if one.smaller_is_better else -1 for one in (cost, quality)])
        array, kept = np.array(points) * signs, set(front(points, cost, quality))
        for i, point in enumerate(array):
            beaten = bool(((array <= point).all(axis=1) & (array < point).any(axis=1)).any())
            assert not (i in kept and beaten)
            assert beaten or i in kept or any((array[j] == point).all() for j in kept)


def test_every_passage_is_drawn_and_the_worst_is_named() -> None:
    def measured(losses: list[float]) -> dict[str, object]:
        return {"heldout": {"wikipedia": {"block_losses": losses}, "sotu": {"block_losses": [1.0]}}}

    results = {"teacher": measured([2.0, 3.0]), "pruned": measured([2.5, 4.5])}
    picture = passages_picture([{"name": "A", "results": results}])
    assert picture.table["nats above the teacher"].tolist() == [0.5, 1.5, 0.0]
    assert "of all passages on wikipedia 1, 1.50 nats" in picture.alt
    assert "nothing" in passages_picture([{"name": "A", "results": {}}]).alt.lower() or "No passage" in passages_picture([]).alt
