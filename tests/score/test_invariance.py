"""What no criterion of any axis may depend on: how blocks are batched, in which order they come, how they are dealt to shards."""

import dataclasses
import functools

import numpy as np
import pytest

from core.model.families import FAMILIES
from core.score.criteria import CRITERIA
from core.score.scoring import score_model
from core.score.store import Scores
from core.specs import AGGREGATIONS, RankSpec
from tests.score.world import EVERYTHING, KINDS, exact_model
from tests.tiny import random_blocks, random_documents

BLOCKS = random_blocks(6, 19)
DOCUMENTS = random_documents(BLOCKS.shape)
WHOLE = dataclasses.replace(EVERYTHING, shards=3, ppl_blocks=6, gradient_blocks=6)
"""Every pass looks at all blocks, so that their order may be changed."""


@functools.cache
def asked() -> list[tuple[str, str, RankSpec]]:
    """Every criterion under all that it makes a difference of."""
    pairs = [(batch, sequence) for batch in AGGREGATIONS for sequence in AGGREGATIONS]
    return [
        (axis, name, RankSpec(batch=batch, sequence=sequence).by(axis, name))
        for (axis, name), found in CRITERIA.items()
        for batch, sequence in (pairs if found.aggregated else pairs[:1])
    ]


@functools.cache
def plain(kind: str) -> Scores:
    """What everything else is compared with."""
    return score_model(exact_model(kind), BLOCKS, WHOLE, documents_NT=DOCUMENTS)


def test_every_family_is_held_to_the_formulas() -> None:
    assert {model_type for model_type, _ in KINDS.values()} == set(FAMILIES)


@pytest.mark.parametrize("change", ["batches of one", "batches of all", "another order", "one shard", "as many shards as blocks"])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_no_criterion_depends_on_how_the_blocks_come(kind: str, change: str) -> None:
    order, spec = np.arange(6), WHOLE
    if change == "another order":
        order = np.array([4, 2, 5, 0, 3, 1])
    else:
        name, value = {"batches of one": ("batch_size", 1), "batches of all": ("batch_size", 6), "one shard": ("shards", 1)}.get(
            change, ("shards", 6)
        )
        spec = dataclasses.replace(WHOLE, **{name: value})
    other = score_model(exact_model(kind), BLOCKS[order], spec, documents_NT=DOCUMENTS[order])
    for axis, criterion, rank in asked():
        told = f"{axis} {criterion} {rank.batch} {rank.sequence}"
        expected, found = (scores.importance(axis, rank, 2) for scores in (plain(kind), other))
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=told)
