"""The steps of a search: measure the candidates that look best, then make models of the finalists and choose."""

from collections.abc import Sequence

import numpy as np

from core.data.blocks import Blocks
from core.evaluate.preview import Previewer
from core.model.checkpoint import full_config
from core.model.cost import cost_of
from core.model.dims import dims_of, resized
from core.model.source import resolve
from core.plan.plan import Plan, make_plan
from core.progress import Coarse, Progress
from core.runs.findings import blocks_of, size_of, update_results
from core.runs.folder import Run
from core.score.scoring import score
from core.search import finals, ledger, search
from core.search.checkpoints import Checkpoints
from core.search.fleet import doing, measured
from core.search.ledger import Row
from core.search.lesson import Lessons, same_for_all
from core.search.retrain import PHASE as RETRAINING
from core.search.retrain import Halving
from core.specs import RunSpec

SHOWN_ESTIMATES = 200
"""Candidates of a search, the best estimates first, that are kept for its pictures."""


def search_step(run: Run, progress: Progress) -> None:
    """Measure the candidates that the estimate thinks best, and learn from them."""
    spec, coarse = run.spec, Coarse(progress, search.PHASE)
    folder, blocks = resolve(spec.model, progress), blocks_of(run, progress)
    scores = score(folder, blocks, spec.score, progress, spec.device, name=spec.model)
    pool = search.pool_of(scores, full_config(folder), spec.search, spec.rank, spec.pins)
    progress.note(f"{len(pool.candidates)} sizes are under the budget.")
    previewer = Previewer(folder, {"compared": compared(blocks, spec)}, device=spec.device, progress=coarse)
    teacher = previewer.teacher()["compared"]
    with doing(previewer, spec.search.workers) as each:
        rows = search.search(
            pool, spec.search, lambda plans: (found["compared"] for found in measured(plans, previewer, each)), run.path, coarse, teacher
        )
    update_results(run, pool=search.estimates_of(pool, rows)[:SHOWN_ESTIMATES], scores=scores.key)


def finals_step(run: Run, progress: Progress) -> None:
    """Repair the best of them, retrain them if that is asked for, measure them on the held-out text, and choose."""
    spec, coarse, book = run.spec, Coarse(progress, finals.PHASE, RETRAINING), ledger.read(run.path)
    folder, blocks = resolve(spec.model, progress), blocks_of(run, progress)
    finalists = sorted(book["rows"], key=ledger.standing)[: spec.search.finalists]
    plans, made = (
        _plans(run, blocks, finalists, progress),
        Checkpoints(place=run.path / "candidates", blocks_NT=fitted(blocks, spec), spec=spec.repair),
    )
    comparer, heldout = (
        Previewer(folder, texts, device=spec.device, progress=coarse) for texts in ({"compared": compared(blocks, spec)}, blocks.heldout)
    )

    def save() -> None:
        ledger.write(run.path, **book)

    with doing(comparer, min(spec.search.workers, len(finalists))) as each:
        if spec.repair.method != "none":
            finals.repair(finalists, plans, made, comparer, heldout, save, coarse, each)
        if spec.search.retrain_steps:
            learning = same_for_all(spec.distill, spec.search.retrain_steps)
            lessons = Lessons(train_NT=blocks.train_NT[: -spec.search.blocks], spec=learning, checkpoints=made)
            Halving(lessons, each, coarse).run(finalists, plans, save)
    made.clear()
    finals.hold_out(finalists, plans, heldout, save, coarse)
    _conclude(run, finalists, heldout)


def compared(blocks: Blocks, spec: RunSpec) -> np.ndarray:
    """The blocks by which candidates are compared: the last of the training set. Nothing else of a search reads them."""
    return blocks.train_NT[-spec.search.blocks :]


def fitted(blocks: Blocks, spec: RunSpec) -> np.ndarray:
    """The blocks that finalists are repaired on."""
    return np.concatenate([blocks.calibration_NT, blocks.train_NT[: -spec.search.blocks]])[: spec.repair.blocks]


def _plans(run: Run, blocks: Blocks, finalists: Sequence[Row], progress: Progress) -> dict[int, Plan]:
    """The finalists' plans, by their numbers."""
    spec, folder = run.spec, resolve(run.spec.model, progress)
    scores, config = score(folder, blocks, spec.score, progress, spec.device, name=spec.model), full_config(folder)
    return {
        row["number"]: make_plan(scores, config, ledger.targets_of(row), ledger.rank_of(row, spec.rank), spec.pins) for row in finalists
    }


def _conclude(run: Run, finalists: Sequence[Row], heldout: Previewer) -> None:
    """Choose the best, and write down what it comes to beside the uncut model."""
    best = ledger.best(finalists)
    assert best is not None
    cost = cost_of(heldout.config, resized(dims_of(heldout.config), ledger.targets_of(best)))
    teacher = size_of(cost_of(heldout.config)) | {"heldout": heldout.teacher()}
    update_results(
        run, best=best["number"], teacher=teacher, draft=size_of(cost) | {"heldout": best["heldout"], "repaired": "repaired" in best}
    )
