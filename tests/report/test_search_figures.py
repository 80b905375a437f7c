"""Pictures and sentences of a search: every measured candidate is shown, and what is said is what the numbers say."""

from typing import Any

import pytest

from core.model.dims import Dims
from core.report.picture import SELECTED
from core.report.search_figures import candidate_table, front_picture, parallel_picture, shape_said, why
from core.specs import RankSpec, Targets

SOURCE = Dims(layers=30, hidden=576, ffn=1536, heads=9, kv_heads=3, head_dim=64, vocab=49152)


def row(number: int, kl: float, parameters: int, flops: int, **targets: int) -> dict[str, Any]:
    figures = {"kl_nats": kl, "loss_nats": 3 + kl, "loss_se_nats": 0.1, "perplexity": 25.0, "top1_agreement": 0.612, "estimate": 0.9 * kl}
    parts = {"layers": 0.0, "heads": 0.1 * kl, "neurons": 0.8 * kl, "channels": 0.0}
    return {"number": number, "targets": Targets(**targets).to_dict(), "parameters": parameters, "flops": flops, "parts": parts, **figures}


ROWS = [
    row(1, 0.9, 107_000_000, 210_000_000, num_hidden_layers=23),
    row(2, 0.4, 105_000_000, 220_000_000, intermediate_size=1024),
    row(3, 0.6, 106_000_000, 230_000_000, hidden_size=504),
]


def numbers_in(figure: Any) -> list[int]:
    return sorted({number for trace in figure.data if trace.customdata is not None for number in trace.customdata if number})


def test_every_measured_candidate_is_in_each_picture_and_the_table() -> None:
    for picture in (front_picture(ROWS, [], SOURCE), parallel_picture(ROWS, SOURCE)):
        assert numbers_in(picture.figure) == [1, 2, 3]
        assert list(picture.table["Candidate"]) == [2, 3, 1], "the best first"
    assert list(candidate_table(ROWS, SOURCE)["On the front"]) == [True, False, True]


def test_the_best_is_a_star_and_what_is_picked_is_another_colour_and_size() -> None:
    figure = front_picture(ROWS, [], SOURCE, picked=[3]).figure
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces["best"].customdata) == [2]
    assert traces["best"].marker.symbol == "star"
    assert list(traces["picked"].customdata) == [3]
    assert traces["picked"].marker.color == SELECTED
    lines = {trace.name: trace for trace in parallel_picture(ROWS, SOURCE, [3]).figure.data}
    assert set(lines["picked"].customdata) == {3, None}


def test_sizes_that_were_only_estimated_are_marked_so_and_measured_ones_are_not_among_them() -> None:
    pool = [{"targets": one["targets"], "parameters": 1, "flops": 1, "estimate": 0.5} for one in ROWS]
    pool.append({"targets": Targets(num_hidden_layers=9).to_dict(), "parameters": 104_000_000, "flops": 1, "estimate": 1.5})
    trace = front_picture(ROWS, pool, SOURCE).figure.data[0]
    assert trace.name.startswith("≈")
    assert list(trace.y) == [1.5]


@pytest.mark.parametrize("rows", [[], ROWS[:1]])
def test_a_search_that_has_just_begun_can_be_drawn(rows: list[dict[str, Any]]) -> None:
    for picture in (front_picture(rows, [], SOURCE), parallel_picture(rows, SOURCE)):
        assert picture.alt
        assert len(picture.table) == len(rows)


def test_axes_on_which_nothing_differs_are_left_out() -> None:
    labels = parallel_picture(ROWS, SOURCE).figure.layout.xaxis.ticktext
    assert list(labels) == ["Layers", "Hidden size", "FFN neurons", "Parameters", "FLOPs a token", "KL, nats"]


def test_the_reasons_are_the_numbers() -> None:
    said = " ".join(why(ROWS, SOURCE, 75))
    assert "candidate 2 diverges least" in said
    assert "Of 3 measured candidates, from 75 under the budget" in said
    assert "0.400 nats" in said
    assert "candidate 3 (hidden size 576 → 504), diverges 50.0 % more" in said
    assert "candidate 1, has 1.9 % more parameters" in said
    assert "It cuts FFN neurons 1536 → 1024." in said
    assert "≈ 0.320 nats by neurons and ≈ 0.0400 nats by heads" in said
    assert "layers" not in said.split("learnt")[1]


def test_after_repair_it_is_the_repaired_order_that_counts_and_only_equals_are_rivals() -> None:
    rows = [ROWS[0], ROWS[1] | {"repaired": {"kl_nats": 0.35}}, ROWS[2] | {"repaired": {"kl_nats": 0.3}}]
    told = " ".join(why(rows, SOURCE, 40))
    assert "candidate 3 diverges least from the teacher after repair: 0.300 nats a token (0.600 nats before)" in told
    assert "The next best, candidate 2" in told
    table = candidate_table(rows, SOURCE)
    assert list(table["Candidate"]) == [3, 2, 1]
    assert list(table["KL repaired, nats"])[:2] == [0.3, 0.35]
    assert "next best" not in " ".join(why([*ROWS[:2], rows[2]], SOURCE, 40)), "one that was not repaired is no rival"


def test_after_retraining_it_is_the_retrained_order_that_counts() -> None:
    rows = [ROWS[0], ROWS[1] | {"retrained": [{"steps": 20, "kl_nats": 0.3}]}, ROWS[2] | {"retrained": [{"steps": 20, "kl_nats": 0.2}]}]
    said = " ".join(why(rows, SOURCE, 75))
    assert "candidate 3 diverges least from the teacher after 20 steps of retraining: 0.200 nats a token (0.600 nats before)" in said
    assert "The next best, candidate 2 (FFN neurons 1536 → 1024), diverges 50.0 % more" in said
    assert list(candidate_table(rows, SOURCE)["KL retrained, nats"])[:2] == [0.2, 0.3]


def test_a_shape_is_said_by_what_is_cut() -> None:
    assert shape_said(row(1, 1, 1, 1), SOURCE) == "nothing cut"
    assert shape_said(row(1, 1, 1, 1, num_hidden_layers=20, num_key_value_heads=2, num_attention_heads=6), SOURCE) == (
        "layers 30 → 20, heads 9 → 6, KV heads 3 → 2"
    )


def test_a_candidate_that_was_ranked_otherwise_says_so_and_is_held_against_the_same_sizes() -> None:
    better = row(4, 0.3, 105_000_000, 220_000_000, intermediate_size=1024) | {"rank": RankSpec(depth="kl", sequence="l2").to_dict()}
    table = candidate_table([*ROWS, better], SOURCE)
    assert list(table["Candidate"]) == [4, 2, 3, 1]
    assert list(table["Ranked by"]) == ["divergence when removed, (l2, l2)", *["as the draft"] * 3]
    assert "Ranked by" not in candidate_table(ROWS, SOURCE)
    told = why([*ROWS, better], SOURCE, 60)
    assert any("the same sizes diverge by 0.400 nats" in one and "as chosen here by 0.300 nats" in one for one in told)
    assert shape_said(better, SOURCE).endswith("chosen by divergence when removed, (l2, l2)")


def test_only_a_larger_candidate_is_called_the_largest() -> None:
    assert any("has 1.9 % more parameters and diverges by 0.900 nats" in one for one in why(ROWS, SOURCE, 60))
    assert not any("The largest" in one for one in why([row(1, 0.4, 100, 1), row(2, 0.5, 100, 1)], SOURCE, 60))
