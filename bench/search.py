"""Which sizes are better at equal parameters and equal measurements: those of Coppice's search, or of the ten largest under the budget.

The other rule is that of NVIDIA's Model Optimizer (``mcore_minitron``): the full grid, cut by no more than 40 % in width and 20 % in
depth, sorted by parameters, the ten largest under the budget measured, the best of these kept. Its importance is fixed, activations
by (L2, mean) and block importance, and it refuses to cut key-value heads; its own grid is coarser than the one here. Both sides choose by the divergence
from the teacher on the same blocks, from the same stored scores; the search may also try other criteria on them. The verdict is the loss above the teacher's on held-out text that
played no part in either. Of the search's ten measurements the last two are those of its repaired finalists, as a run makes them; NVIDIA's
tool repairs nothing. So the bar holds two products against each other, at equal measurements but not at equal time: a repair takes minutes. What
the choice of sizes does alone is told too: neither side repaired (the search then spends all ten on masks), and both.
"""

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from bench.harness import Bar, Outcome
from core.data.blocks import Blocks, build
from core.evaluate.preview import Previewer
from core.evaluate.store import Figures, kept, tokens_hash
from core.files import content_hash
from core.model.checkpoint import full_config
from core.model.cost import cost_of
from core.model.dims import Config, dims_of
from core.model.source import resolve
from core.plan.plan import Plan, keep_masks, make_plan
from core.progress import Silent
from core.prune.repair.repair import repair_model
from core.runs.searching import compared, fitted
from core.score.agreement import spearman
from core.score.scoring import score
from core.score.store import Scores
from core.search.ledger import rank_of, standing, targets_of
from core.search.search import pool_of, search
from core.search.space import targets_of as sizes_of
from core.search.space import widths_of
from core.specs import DataSpec, RankSpec, RepairSpec, RunSpec, ScoreSpec, SearchSpec, Targets
from core.workspace import room

MEASUREMENTS, FINALISTS = 10, 2
"""Of each rule in all; and those of the search that are spent on repaired finalists."""
MOST_WIDTH, MOST_DEPTH = 0.4, 0.2
"""What NVIDIA's grid removes of an axis at most."""
BUDGETS = (0.8, 0.65)
DATA = DataSpec(seq_len=256, calibration_blocks=16, train_blocks=36, heldout_blocks=6)

REPAIR = RepairSpec(blocks=16)
"""The calibration blocks alone. A run takes 64, which gives more back, and takes four times as long."""
NVIDIA_RANK = RankSpec(batch="l2", sequence="mean", depth="bi")

SEARCH, MASKS, LARGEST = "search", "search by masks alone", "ten largest"
REPAIRED, UNREPAIRED = "repaired", "as cut"
PRODUCT = "search, finalists repaired / ten largest as cut"
COMPARISONS = {
    PRODUCT: (SEARCH, REPAIRED, UNREPAIRED), "neither repaired": (MASKS, UNREPAIRED, UNREPAIRED), "both repaired": (SEARCH, REPAIRED, REPAIRED),
}  # fmt: skip
"""Way of comparing -> the search's rule, what its choice is judged as, what the other's is."""


def measure(*, quick: bool) -> Outcome:
    """Let both rules choose under each budget, and compare what they chose on held-out text."""
    folder, silent, count = resolve("embedded"), Silent(), 4 if quick else MEASUREMENTS
    blocks = build(DATA, folder, silent)
    scores = score(folder, blocks, ScoreSpec(ppl_blocks=1), silent, name="embedded")
    rows, bars, parts = [], [], []
    for keep in BUDGETS[:1] if quick else BUDGETS:
        lab = Lab(folder, blocks, scores, keep)
        found = {SEARCH: by_search(lab, count, FINALISTS), MASKS: by_search(lab, count, 0), LARGEST: by_size(lab, count)}
        rows += [{"budget": keep, "rule": rule, **row} for rule, row in found.items()]
        ratios = [{"budget": keep, "text": text, **ratios_of(found, text)} for text in blocks.heldout]
        bars += [
            Bar(name=f"gap on {one['text']}, {keep:.0%} of the parameters: {PRODUCT}", value=one[PRODUCT], limit="<= 0.8") for one in ratios
        ]
        parts += ratios
    return Outcome(
        settings={"tokens compared on": SearchSpec().blocks * DATA.seq_len, "judged on blocks": {name: len(blocks_NT) for name, blocks_NT in blocks.heldout.items()},
                  "measurements": count, "of these repaired": FINALISTS, "repaired on blocks": REPAIR.blocks, "retraining": "none"},
        bars=bars, rows=rows, more={"What the choice does alone, without bars: gap of the search / gap of the ten largest": parts},
    )  # fmt: skip


def ratios_of(found: dict[str, dict[str, Any]], text: str) -> dict[str, float]:
    """Gap of the search to that of the ten largest on a text, each way."""
    return {way: found[ours][gap(text, done)] / found[LARGEST][gap(text, theirs)] for way, (ours, done, theirs) in COMPARISONS.items()}


class Lab:
    """One budget: what both rules plan with, choose by and are judged on."""

    def __init__(self, folder: Path, blocks: Blocks, scores: Scores, keep: float) -> None:
        self.folder, self.blocks, self.scores, self.keep = folder, blocks, scores, keep
        self.run = RunSpec(kind="search", data=DATA, search=SearchSpec(keep=keep), repair=REPAIR)
        self.comparer, self.judge = (Previewer(folder, texts) for texts in ({"compared": compared(blocks, self.run)}, blocks.heldout))

    def plan(self, targets: Targets, rank: RankSpec = NVIDIA_RANK) -> Plan:
        """The plan of these sizes."""
        return make_plan(self.scores, full_config(self.folder), targets, rank)

    def kl(self, plan: Plan) -> float:
        """Divergence from the teacher by which both rules choose, by masks."""
        return float(self.comparer.plan(plan)["compared"]["kl_nats"])

    def repaired_kl(self, plan: Plan) -> float:
        """``kl`` of the repaired model."""
        return float(self.repaired(plan, self.comparer)["compared"]["kl_nats"])

    def repaired(self, plan: Plan, by: Previewer) -> dict[str, Figures]:
        """What ``by`` finds of the cut and repaired model, which is made only if that is not stored."""
        text = tokens_hash(fitted(self.blocks, self.run))
        name = content_hash({"repair": self.run.repair.to_dict(), "text": text, "kept": kept(keep_masks(plan))})
        return by.stored(name) or by.of(self._model(plan), name)

    def _model(self, plan: Plan) -> PreTrainedModel:
        if plan.identity not in self._models:
            fitted_on = fitted(self.blocks, self.run)
            self._models[plan.identity] = repair_model(self.comparer.model, plan, fitted_on, self.run.repair)[0]
        return self._models[plan.identity]

    @cached_property
    def _models(self) -> dict[str, PreTrainedModel]:
        return {}

    def verdict(self, plan: Plan, kl: float, pool: int) -> dict[str, Any]:
        """The loss of a choice above the teacher's on every held-out text, as cut and repaired."""
        teacher = self.judge.teacher()
        ways = {UNREPAIRED: self.judge.plan(plan), REPAIRED: self.repaired(plan, self.judge)}
        gaps = {
            gap(name, way): figures[name]["loss_nats"] - teacher[name]["loss_nats"] for way, figures in ways.items() for name in teacher
        }
        cut = ", ".join(f"{name} {size}" for name, size in plan.targets.to_dict().items() if size is not None)
        parameters = cost_of(full_config(self.folder), plan.dims).parameters
        ranked = f"{plan.rank.depth}, ({plan.rank.batch}, {plan.rank.sequence})"
        return {"of": pool, "chosen": cut, "ranked by": ranked, "parameters": parameters, "KL when chosen, nats": kl, **gaps}


def gap(text: str, way: str) -> str:
    """The column of a gap."""
    return f"gap on {text}, {way}, nats"


def by_search(lab: Lab, measurements: int, repaired: int) -> dict[str, Any]:
    """What the search chooses, if the last so many of its measurements are those of repaired finalists."""
    spec = dataclasses.replace(lab.run.search, evaluations=measurements - repaired)
    pool = pool_of(lab.scores, full_config(lab.folder), spec, NVIDIA_RANK)
    place = room("bench") / f"search-{lab.keep}-{spec.evaluations}"
    (place / "candidates.json").unlink(missing_ok=True)
    rows = search(pool, spec, lambda plans: (lab.comparer.plan(plan)["compared"] for plan in plans), place, Silent())
    rho = spearman(*(np.array([[row[name] for row in rows]]) for name in ("estimate", "kl_nats")))
    best = sorted(rows, key=standing)[: max(repaired, 1)]
    plans = [lab.plan(targets_of(row), rank_of(row, NVIDIA_RANK)) for row in best]
    chosen = min(plans, key=lab.repaired_kl) if repaired else plans[0]
    kl = lab.repaired_kl(chosen) if repaired else lab.kl(chosen)
    return lab.verdict(chosen, kl, len(pool.candidates)) | {"estimate's rho": rho}


def by_size(lab: Lab, measurements: int) -> dict[str, Any]:
    """What NVIDIA's rule chooses."""
    grid = nvidia_grid(full_config(lab.folder), lab.keep)
    best = min((lab.plan(targets) for _, targets in grid[:measurements]), key=lab.kl)
    return lab.verdict(best, lab.kl(best), len(grid)) | {"estimate's rho": None}


def nvidia_grid(config: Config, keep: float) -> list[tuple[int, Targets]]:
    """All sizes of NVIDIA's grid under the budget with their parameters, largest first."""
    source, most = dims_of(config), keep * cost_of(config).parameters
    found = []
    for widths in widths_of(config):
        dims = widths.dims
        if dims.kv_heads < source.kv_heads or min(dims.hidden / source.hidden, dims.heads / source.heads) < 1 - MOST_WIDTH:
            continue
        for layers in range(int(np.ceil((1 - MOST_DEPTH) * source.layers)), source.layers + 1):
            found += [
                (parameters, sizes_of(source, dataclasses.replace(dims, layers=layers, ffn=ffn)))
                for ffn in widths.ffns
                if ffn >= (1 - MOST_WIDTH) * source.ffn and (parameters := widths.parameters(layers, ffn)) <= most
            ]
    return sorted(found, key=lambda pair: (-pair[0], str(pair[1])))
