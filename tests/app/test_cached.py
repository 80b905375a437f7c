"""What the pages look up: scores are found by what determines them, however they were asked for."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import cached
from app.state import Draft
from core.data import blocks
from core.model.dims import dims_of
from core.model.source import fingerprint
from core.score import store
from core.score.passes import PASSES
from core.specs import DataSpec, RankSpec, ScoreSpec, Targets, TextSpec
from tests.app.ready import DIMS, make_model, make_scores
from tests.synthetic_scores import synthetic_scores
from tests.tiny import save_tiny, tiny_config
from tests.whole.conftest import write_text


def test_scores_are_found_by_the_calibration_tokens_themselves(tmp_path: Path) -> None:
    model, text = save_tiny(tmp_path / "model"), write_text(tmp_path / "text.txt", 40, 0)
    data = DataSpec(text=TextSpec(source=str(text)), elsewhere=(), seq_len=32, calibration_blocks=4, train_blocks=8, heldout_blocks=3)
    draft = Draft(model=str(model), data=data)
    calibration = blocks.build(data, model).meta["sets"]["calibration"]["fingerprint"]
    key = store.score_key(fingerprint(model), calibration, draft.score)
    meta = {"created": 0.0, "model_fingerprint": fingerprint(model), "data": data.to_dict()}
    synthetic_scores(key, dims_of(tiny_config().to_dict()), draft.score, meta=meta)
    more_training = dataclasses.replace(draft, data=dataclasses.replace(data, train_blocks=9))
    assert blocks.build(more_training.data, model).meta["sets"]["calibration"]["fingerprint"] == calibration
    for wanted in (draft, more_training):
        found = cached.find_scores(wanted)
        assert found is not None
        assert found.key == key
    other = dataclasses.replace(draft, data=dataclasses.replace(data, seed=1))
    blocks.build(other.data, model)
    assert cached.find_scores(other) is None


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"batch_size": 1}, True),
        ({"shards": 2}, False),
        ({"gradient_blocks": 8}, False),
        ({"windows": (2,)}, False),
        ({"ridge": 0.1}, False),
    ],
)
def test_every_setting_but_the_batch_size_makes_other_scores(tmp_path: Path, change: dict[str, Any], found: bool) -> None:
    draft = Draft(model=str(make_model(tmp_path / "small")), score=ScoreSpec(windows=(3,)))
    make_scores(Path(draft.model), draft)
    asked = dataclasses.replace(draft, score=dataclasses.replace(draft.score, **change))
    assert (cached.find_scores(asked) is not None) == found


def test_scores_whose_passes_are_gone_are_not_there(tmp_path: Path) -> None:
    draft = Draft(model=str(make_model(tmp_path / "small")))
    scores = make_scores(Path(draft.model), draft)
    assert cached.find_scores(draft) is not None
    store.pass_file(scores.meta["passes"]["removal"]).unlink()
    assert cached.find_scores(draft) is None


def test_passes_that_are_made_are_known_whatever_else_is_asked_for(tmp_path: Path) -> None:
    model, text = save_tiny(tmp_path / "model"), write_text(tmp_path / "text.txt", 40, 0)
    data = DataSpec(text=TextSpec(source=str(text)), elsewhere=(), seq_len=32, calibration_blocks=4, train_blocks=8, heldout_blocks=3)
    draft = Draft(model=str(model), data=data, score=ScoreSpec(gradient_blocks=8))
    assert cached.made_passes(draft) == set()
    calibration = blocks.build(data, model).meta["sets"]["calibration"]["fingerprint"]
    for name in ("weights", "activations", "removal"):
        store.save_pass(store.pass_key(fingerprint(model), calibration, PASSES[name], ScoreSpec()), {"seconds": np.array(2.0)})
    assert cached.made_passes(draft) == {"weights", "activations", "removal"}
    other_losses = dataclasses.replace(draft, score=ScoreSpec(ppl_blocks=1))
    assert cached.made_passes(other_losses) == {"weights", "activations"}


@pytest.mark.parametrize("axis", ["heads", "neurons", "channels", "layers"])
def test_what_is_cached_follows_every_part_of_a_ranking_that_matters(axis: str) -> None:
    spec = ScoreSpec(windows=(2, 3), gradient_blocks=4)
    scores = synthetic_scores("b2-cache", DIMS, spec)
    rankings = [RankSpec(), RankSpec(batch="var"), RankSpec(sequence="l2"), RankSpec(protect_first=1), RankSpec(protect_last=2)]
    for rank in rankings:
        for name in scores.offered(axis):
            for removed in (2, 3):
                asked = rank.by(axis, name)
                assert np.array_equal(cached.importance(scores, axis, asked, removed), scores.importance(axis, asked, removed))


def test_all_ranks_leave_out_what_cannot_be_answered() -> None:
    scores = synthetic_scores("b2-ranks", DIMS, ScoreSpec(windows=(2,)))
    assert "window" in cached.all_ranks(scores, "layers", RankSpec(), 2)
    assert "window" not in cached.all_ranks(scores, "layers", RankSpec(), 3)


def test_confidence_that_cannot_be_told_is_none() -> None:
    scores = synthetic_scores("b2-sure", DIMS, ScoreSpec(ppl_blocks=1))
    assert cached.confidence(scores, "heads", RankSpec(heads="magnitude"), 1) is None
    assert cached.confidence(scores, "layers", RankSpec(depth="ppl"), 1) is None
    assert cached.confidence(scores, "layers", RankSpec(), 1) is not None


def test_what_all_sessions_share_cannot_be_written_to(tmp_path: Path) -> None:
    draft = Draft(model=str(make_model(tmp_path / "small")), targets=Targets(num_hidden_layers=3))
    scores = make_scores(Path(draft.model), draft)
    with pytest.raises(ValueError, match="read-only"):
        cached.masks(scores, draft)["layers"][0] = False
    with pytest.raises(ValueError, match="read-only"):
        cached.importance(scores, "neurons", draft.rank, 1)[0] = 0
    assert cached.masks(scores, draft)["layers"].sum() == 3
