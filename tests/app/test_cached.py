"""What the pages look up: scores are found by what determines them, however they were asked for."""

import dataclasses
from pathlib import Path

import numpy as np

from app import cached
from app.state import Draft
from core.data import blocks
from core.model.dims import dims_of
from core.model.source import fingerprint
from core.score import store
from core.specs import DataSpec, TextSpec
from tests.tiny import save_tiny, tiny_config
from tests.whole.conftest import write_text


def test_scores_are_found_by_the_calibration_tokens_themselves(tmp_path: Path) -> None:
    model, text = save_tiny(tmp_path / "model"), write_text(tmp_path / "text.txt", 40, 0)
    data = DataSpec(text=TextSpec(source=str(text)), elsewhere=(), seq_len=32, calibration_blocks=4, train_blocks=8, heldout_blocks=3)
    draft = Draft(model=str(model), data=data)
    calibration = blocks.build(data, model).meta["sets"]["calibration"]["sha256"]
    key = store.score_key(fingerprint(model), calibration, draft.score)
    arrays = {"heads": np.ones((3, 2, 5, 6)), "count": np.array(4), "distance": np.ones(5), "losses": np.zeros(0)}
    meta = {"created": 0.0, "model_fingerprint": fingerprint(model), "data": data.to_dict(), "score": draft.score.to_dict()}
    store.save(key, arrays, dims_of(tiny_config().to_dict()), meta)
    more_training = dataclasses.replace(draft, data=dataclasses.replace(data, train_blocks=9))
    assert blocks.build(more_training.data, model).meta["sets"]["calibration"]["sha256"] == calibration
    for wanted in (draft, more_training):
        found = cached.find_scores(wanted)
        assert found is not None
        assert found.key == key
    other = dataclasses.replace(draft, data=dataclasses.replace(data, seed=1))
    blocks.build(other.data, model)
    assert cached.find_scores(other) is None
