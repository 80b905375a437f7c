"""What keeping the documents of a block apart does to importance, and costs: every criterion's ranking with it against without."""

import dataclasses
import time
from typing import Any

import torch

from bench.harness import Outcome, interleaved, ratio
from core.data.blocks import build
from core.errors import UserError
from core.model.checkpoint import load_model
from core.model.source import resolve
from core.score.agreement import overlap, spearman
from core.score.batch import Batch
from core.score.confidence import confidence, rows
from core.score.criteria.registry import AXES
from core.score.jobs import Task
from core.score.scoring import score_model
from core.score.shelf import Memory
from core.score.store import Scores
from core.specs import EMBEDDED_MODEL, DataSpec, RankSpec, ScoreSpec

KEPT = 0.75
"""Share of the units whose keeping is compared."""


def measure(*, quick: bool) -> Outcome:
    """Score the embedded model both ways."""
    folder = resolve(EMBEDDED_MODEL)
    model, blocks = load_model(folder), build(DataSpec(), folder)
    spec = ScoreSpec(shards=2, ppl_blocks=1) if quick else ScoreSpec(ppl_blocks=4, gradient_blocks=4)
    count = 2 if quick else len(blocks.calibration_NT)
    tokens, documents = blocks.calibration_NT[:count], blocks.calibration_documents_NT[:count]
    apart = score_model(model, tokens, spec, documents_NT=documents)
    across = score_model(model, tokens, dataclasses.replace(spec, isolate_documents=False), documents_NT=documents)
    batch = next(Task(model, tokens, spec, Memory([]), documents).batches(range(1)))
    return Outcome(
        settings={
            "model": "SmolLM2-135M", "tokens": int(tokens.size), "documents a block": round(float((documents[:, 1:] != documents[:, :-1]).sum(1).mean()) + 1, 1),
            "loss apart": round(apart.meta["teacher_loss"], 3), "loss across": round(across.meta["teacher_loss"], 3),
            "forward apart / across, processor time": round(cost(model, batch, 1 if quick else 5), 3), "threads": torch.get_num_threads(),
        },
        rows=[row(apart, across, axis, name) for axis in AXES for name, found in apart.offered(axis).items() if found.needs != "weights"],
    )  # fmt: skip


def row(apart: Scores, across: Scores, axis: str, name: str) -> dict[str, Any]:
    """How alike a criterion ranks both ways, and beside it how alike it ranks on two parts of the text."""
    rank = RankSpec().by(axis, name)
    first, second = (rows(scores.importance(axis, rank)) for scores in (apart, across))
    try:
        noise: float | str = confidence(apart, axis, rank).stability
    except UserError:
        noise = "–"
    kept = overlap(first, second, round(KEPT * first.shape[1]))
    return {"axis": axis, "criterion": name, "spearman": spearman(first, second), f"both keep of {KEPT:.0%}": kept, "between shards": noise}


def cost(model: Any, batch: Batch, repeats: int) -> float:
    """Time of a forward pass that keeps documents apart, as a share of one that does not."""

    def forward(some: Batch) -> None:
        with torch.no_grad():
            some.states(model)

    seconds = interleaved({"apart": lambda: forward(batch), "across": lambda: forward(Batch(batch.ids_BT))}, repeats, time.process_time)
    return ratio(seconds, "apart", "across")
