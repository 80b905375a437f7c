"""The search's bench compares what it says: NVIDIA's grid as its tool allows it, equal measurements, and repairs that are made once."""

from pathlib import Path

import numpy as np
import pytest

from bench import search
from bench.search import LARGEST, MASKS, PRODUCT, SEARCH, Lab, by_search, by_size, gap, nvidia_grid, ratios_of
from core.data.blocks import Blocks
from core.model.checkpoint import load_model
from core.model.cost import cost_of
from core.model.dims import dims_of, resized
from core.score.scoring import score_model
from core.specs import ScoreSpec
from tests.tiny import random_blocks, save_tiny, tiny_config

CONFIG = tiny_config(hidden_size=96, intermediate_size=200, num_hidden_layers=10).to_dict()


def test_the_grid_is_nvidia_s_under_the_budget_largest_first() -> None:
    source, found = dims_of(CONFIG), nvidia_grid(CONFIG, 0.8)
    assert len(found) > 10
    assert [parameters for parameters, _ in found] == sorted((parameters for parameters, _ in found), reverse=True)
    for parameters, targets in found:
        dims = resized(source, targets)
        assert parameters == cost_of(CONFIG, dims).parameters <= 0.8 * cost_of(CONFIG).parameters
        assert dims.kv_heads == source.kv_heads, "the tool refuses to cut them"
        assert min(dims.hidden / source.hidden, dims.ffn / source.ffn, dims.heads / source.heads) >= 0.6
        assert dims.layers >= 0.8 * source.layers


def test_both_rules_measure_equally_often_and_what_was_repaired_is_not_made_again(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny(tmp_path / "model", hidden_size=96, intermediate_size=200, num_hidden_layers=10)
    scores = score_model(load_model(folder), random_blocks(4, 16), ScoreSpec(ppl_blocks=1, shards=2))
    made: list[str] = []
    repair = search.repair_model
    monkeypatch.setattr(search, "repair_model", lambda model, plan, *rest: (made.append(plan.identity), repair(model, plan, *rest))[1])
    calibration_NT = random_blocks(4, 16)
    blocks = Blocks(
        calibration_NT=calibration_NT, calibration_documents_NT=calibration_NT * 0, train_NT=random_blocks(12, 16, seed=2),
        heldout={"here": random_blocks(2, 16, seed=7)}, fingerprint="", meta={},
    )  # fmt: skip
    found = {}
    for turn in range(2):
        lab = Lab(folder, blocks, scores, 0.8)
        found[turn] = {SEARCH: by_search(lab, 6, 2), MASKS: by_search(lab, 6, 0), LARGEST: by_size(lab, 6)}
    assert found[0] == found[1]
    assert len(made) == len(set(made)) <= 4, "two finalists, and what the two others chose"
    ratios = ratios_of(found[0], "here")
    assert ratios[PRODUCT] == found[0][SEARCH][gap("here", "repaired")] / found[0][LARGEST][gap("here", "as cut")]
    assert ratios["neither repaired"] == found[0][MASKS][gap("here", "as cut")] / found[0][LARGEST][gap("here", "as cut")]
    assert all(np.isfinite(value) for value in ratios.values())
