"""Documents that share a block: what is measured of each is what it would be alone; and padding is nobody's."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from core.score.batch import PADDING, Batch
from core.score.criteria.registry import AXES
from core.score.passes import PASSES
from core.score.scoring import score_model
from core.score.store import Scores, pass_key
from core.specs import RankSpec, ScoreSpec
from tests.score.stored import bits
from tests.score.world import EVERYTHING, KINDS, exact_model
from tests.tiny import random_blocks, random_documents, tiny_model

DOCUMENTS = np.array([[3, 3, 3, 3, 4, 4, 4, 5, 5, 6, 6, 6], [6, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8], [9] * 12])
ALL = dataclasses.replace(EVERYTHING, shards=2, gradient_blocks=4, ppl_blocks=3, batch_size=3)


def importances(scores: Scores, **rank: Any) -> dict[str, np.ndarray]:
    """Everything that scores can answer."""
    return {f"{axis} {name}": scores.importance(axis, RankSpec(**rank).by(axis, name), 2) for axis in AXES for name in scores.offered(axis)}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], but: tuple[str, ...] = ()) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        if name.split()[1] not in but:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_document_in_a_block_is_read_as_if_it_were_alone(kind: str, attention: str) -> None:
    model, blocks = exact_model(kind), random_blocks(3, 12)
    model.set_attn_implementation(attention)
    with torch.no_grad():
        together = Batch(torch.from_numpy(blocks).long(), torch.from_numpy(DOCUMENTS)).states(model)
        for block, documents, states in zip(blocks, DOCUMENTS, together, strict=True):
            for number in set(documents.tolist()):
                alone = Batch(torch.from_numpy(block[None, documents == number]).long()).states(model)
                torch.testing.assert_close(
                    states[documents == number], alone[0], rtol=1e-5, atol=1e-6
                )  # eager attention has a float32 softmax


def test_positions_start_again_and_no_loss_looks_over_the_edge() -> None:
    documents = DOCUMENTS.copy()
    documents[1, 9:] = PADDING
    batch = Batch(torch.zeros(3, 12, dtype=torch.long), torch.from_numpy(documents))
    assert batch.positions is not None
    assert batch.positions.tolist() == [
        [0, 1, 2, 3, 0, 1, 2, 0, 1, 0, 1, 2], [0, 1, 0, 1, 2, 3, 4, 5, 6, 0, 1, 2], list(range(12)),
    ]  # fmt: skip
    assert batch.predicts.int().tolist() == [[1, 1, 1, 0, 1, 1, 0, 1, 0, 1, 1], [1, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0], [1] * 11]
    assert batch.tokens == 33
    assert batch.counting(torch.ones(3, 12, 2)).shape == (33, 2)
    plain = Batch(torch.zeros(3, 12, dtype=torch.long))
    assert plain.positions is plain.counts is None
    assert plain.predicts.all()
    assert plain.tokens == 36


@pytest.mark.parametrize("kind", ["llama", "qwen2 with layers of two kinds"])
def test_two_documents_in_a_block_score_as_the_two_apart(kind: str) -> None:
    model, halves = exact_model(kind), random_blocks(8, 10)
    spec = dataclasses.replace(ALL, shards=1, ppl_blocks=8, gradient_blocks=8)
    numbers = np.tile(np.repeat([0, 1], 10), (4, 1))
    packed = score_model(model, halves.reshape(4, 20), spec, documents_NT=numbers)
    apart = score_model(model, halves, spec)
    per_block = ("taylor", "fisher")  # of a block's own loss, whatever its documents
    assert_equal(importances(packed, batch="l2", sequence="l2"), importances(apart, batch="l2", sequence="l2"), per_block)
    assert_equal(importances(packed, batch="mean", sequence="mean"), importances(apart, batch="mean", sequence="mean"), per_block)
    mixed = score_model(model, halves.reshape(4, 20), spec)
    for name in ("wanda", "flap", "contribution", "taylor"):
        assert not np.allclose(importances(mixed)[f"neurons {name}"], importances(apart)[f"neurons {name}"], rtol=1e-2), name


def test_documents_that_are_not_kept_apart_are_as_if_nothing_were_known_of_them() -> None:
    model, blocks = tiny_model(), random_blocks(4, 12)
    known = score_model(model, blocks, dataclasses.replace(ALL, isolate_documents=False), documents_NT=random_documents(blocks.shape))
    unknown, whole = score_model(model, blocks, ALL), score_model(model, blocks, ALL, documents_NT=np.zeros_like(blocks))
    assert bits(known) == bits(unknown) == bits(whole)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3", "smollm3", "qwen2 with layers of two kinds"])
def test_padding_never_counts_in_any_pass(kind: str) -> None:
    model, blocks = exact_model(kind), random_blocks(4, 14)
    expected = importances(score_model(model, blocks, ALL))
    for rubbish in (0, 96):
        padded, documents = np.full((4, 19), rubbish, np.int32), np.full((4, 19), PADDING, np.int32)
        for row, start in enumerate((0, 5, 2, 0)):  # on the right, on the left, on both sides
            padded[row, start : start + 14], documents[row, start : start + 14] = blocks[row], row
        assert_equal(importances(score_model(model, padded, ALL, documents_NT=documents)), expected)


def test_stored_passes_over_text_are_not_read_for_the_other_way_of_reading_it() -> None:
    for item in PASSES.values():
        keys = {pass_key("model", "text", item, ScoreSpec(isolate_documents=isolated)) for isolated in (True, False)}
        assert len(keys) == (1 if item.name == "weights" else 2)
