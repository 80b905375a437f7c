"""The set-up of a distillation in pictures says what the trainer will do."""

import pytest

from core.report.distill_figures import map_picture, mix_of, mix_picture
from core.specs import DistillSpec


def test_states_share_what_the_logits_weigh() -> None:
    mix = mix_of(DistillSpec(loss="jsd", kl_weight=2.0, ce_weight=0.5, intermediate_weight=0.5), ("output", "embedding"))
    assert mix == {"jsd": 2.0, "output": 0.5, "embedding": 0.5, "ce": 0.5}
    assert mix_of(DistillSpec(), ()) == {"kl": 1.0}
    picture = mix_picture(DistillSpec(ce_weight=1.0), ())
    assert picture.table["share (%)"].tolist() == pytest.approx([50, 50])
    assert picture.alt == "The loss: Forward KL 50.0 %, Cross-entropy 50.0 %."


def test_every_pair_is_a_line_from_where_the_layer_came_to_where_it_learns() -> None:
    picture = map_picture(((1, 3), (2, 4)), 3, 7, [0, 2, 4])
    lines = [trace for trace in picture.figure.data if trace.mode == "lines"]
    assert [tuple(trace.x) for trace in lines] == [(2, 3), (4, 4)]
    assert picture.table.values.tolist() == [[1, 3], [2, 4]]
    assert "1 from 3, 2 from 4" in picture.alt
