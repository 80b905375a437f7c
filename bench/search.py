"""Which sizes are better at equal parameters and equal measurements: those of Coppice's search, or of the ten largest under the budget.

The other rule is that of NVIDIA's Model Optimizer (``mcore_minitron``): the full grid, cut by no more than 40 % in width and 20 % in
depth, sorted by parameters, the ten largest under the budget measured, the best of these kept. Both sides choose by the divergence
from the teacher on the same blocks and plan with the same scores; the verdict is the loss above the teacher's on held-out text that
played no part in either. Of the search's ten measurements the last two are those of its repaired finalists, as a run makes them; NVIDIA's
tool repairs nothing. What the choice of sizes does alone is told too: both choices without repair, and both repaired.
"""

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from bench.harness import Bar, Outcome
from core.data.blocks import Blocks, build
from core.evaluate.preview import Previewer
from core.evaluate.store import kept, tokens_hash
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
from core.search.ledger import standing, targets_of
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
DATA = DataSpec(calibration_blocks=16, train_blocks=52, heldout_blocks=6)


def measure(*, quick: bool) -> Outcome:
    """Let both rules choose under each budget, and compare what they chose on held-out text."""
    folder, silent = resolve("embedded"), Silent()
    blocks = build(DATA, folder, silent)
    scores = score(folder, blocks, ScoreSpec(ppl_blocks=1), silent, name="embedded")
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for keep in BUDGETS[:1] if quick else BUDGETS:
        lab = Lab(folder, blocks, scores, keep)
        count = 4 if quick else MEASUREMENTS
        found = {"search": by_search(lab, count), "ten largest": by_size(lab, count)}
        rows += [{"budget": keep, "rule": rule, **row} for rule, row in found.items()]
        for text in blocks.heldout:
            ours, theirs = found["search"][f"gap on {text}, repaired, nats"], found["ten largest"][f"gap on {text}, nats"]
            bars.append(Bar(name=f"gap on {text}, {keep:.0%} of the parameters: search / ten largest", value=ours / theirs, limit="<= 0.8"))
    return Outcome(
        settings={"tokens compared on": SearchSpec().blocks * DATA.seq_len, "judged on blocks": {name: len(blocks_NT) for name, blocks_NT in blocks.heldout.items()},
                  "measurements": 4 if quick else MEASUREMENTS, "repaired on blocks": RepairSpec().blocks, "retraining": "none"},
        bars=bars, rows=rows,
    )  # fmt: skip


class Lab:
    """One budget: what both rules plan with, choose by and are judged on."""

    def __init__(self, folder: Path, blocks: Blocks, scores: Scores, keep: float) -> None:
        self.folder, self.blocks, self.scores, self.keep = folder, blocks, scores, keep
        self.run = RunSpec(kind="search", data=DATA, search=SearchSpec(keep=keep))
        self.comparer, self.judge = (Previewer(folder, texts) for texts in ({"compared": compared(blocks, self.run)}, blocks.heldout))

    def plan(self, targets: Targets) -> Plan:
        """The plan of these sizes."""
        return make_plan(self.scores, full_config(self.folder), targets, RankSpec())

    def kl(self, targets: Targets) -> float:
        """Divergence from the teacher by which both rules choose, by masks."""
        return float(self.comparer.plan(self.plan(targets))["compared"]["kl_nats"])

    @cache  # noqa: B019 - one lab a budget
    def repaired(self, targets: Targets) -> PreTrainedModel:
        """The cut and repaired model."""
        return repair_model(self.comparer.model, self.plan(targets), fitted(self.blocks, self.run), self.run.repair)[0]

    def repaired_kl(self, targets: Targets) -> float:
        """``kl`` of the repaired model."""
        return float(self.comparer.of(self.repaired(targets), self._name(targets))["compared"]["kl_nats"])

    def verdict(self, targets: Targets, kl: float, pool: int) -> dict[str, Any]:
        """The loss of a choice above the teacher's on every held-out text."""
        plan, teacher = self.plan(targets), self.judge.teacher()
        bare, repaired = self.judge.plan(plan), self.judge.of(self.repaired(targets), self._name(targets))
        gaps = {f"gap on {name}, nats": bare[name]["loss_nats"] - teacher[name]["loss_nats"] for name in teacher}
        gaps |= {f"gap on {name}, repaired, nats": repaired[name]["loss_nats"] - teacher[name]["loss_nats"] for name in teacher}
        cut = ", ".join(f"{name} {size}" for name, size in targets.to_dict().items() if size is not None)
        parameters = cost_of(full_config(self.folder), plan.dims).parameters
        return {"of": pool, "chosen": cut, "parameters": parameters, "KL when chosen, nats": kl, **gaps}

    def _name(self, targets: Targets) -> str:
        blocks_NT = fitted(self.blocks, self.run)
        return content_hash(
            {"repair": self.run.repair.to_dict(), "text": tokens_hash(blocks_NT), "kept": kept(keep_masks(self.plan(targets)))}
        )


def by_search(lab: Lab, measurements: int) -> dict[str, Any]:
    """What the search chooses."""
    spec = dataclasses.replace(lab.run.search, evaluations=measurements - FINALISTS)
    pool = pool_of(lab.scores, full_config(lab.folder), spec, RankSpec())
    place = room("bench") / f"search-{lab.keep}-{measurements}"
    (place / "candidates.json").unlink(missing_ok=True)
    rows = search(pool, spec, lambda plans: (lab.comparer.plan(plan)["compared"] for plan in plans), place, Silent())
    rho = spearman(*(np.array([[row[name] for row in rows]]) for name in ("estimate", "kl_nats")))
    finalists = [targets_of(row) for row in sorted(rows, key=standing)[:FINALISTS]]
    best = min(finalists, key=lab.repaired_kl)
    return lab.verdict(best, lab.repaired_kl(best), len(pool.candidates)) | {"estimate's rho": rho}


def by_size(lab: Lab, measurements: int) -> dict[str, Any]:
    """What NVIDIA's rule chooses."""
    grid = nvidia_grid(full_config(lab.folder), lab.keep)
    best = min((targets for _, targets in grid[:measurements]), key=lab.kl)
    return lab.verdict(best, lab.kl(best), len(grid)) | {"estimate's rho": None}


def nvidia_grid(config: Config, keep: float) -> list[tuple[int, Targets]]:
    """All sizes of NVIDIA's grid under the budget with their parameters, largest first."""
    source, most = dims_of(config), keep * cost_of(config).parameters
    found = []
    for widths in widths_of(config):
        dims = widths.dims
        if min(dims.hidden / source.hidden, dims.heads / source.heads, dims.kv_heads / source.kv_heads) < 1 - MOST_WIDTH:
            continue
        for layers in range(int(np.ceil((1 - MOST_DEPTH) * source.layers)), source.layers + 1):
            found += [
                (parameters, sizes_of(source, dataclasses.replace(dims, layers=layers, ffn=ffn)))
                for ffn in widths.ffns
                if ffn >= (1 - MOST_WIDTH) * source.ffn and (parameters := widths.parameters(layers, ffn)) <= most
            ]
    return sorted(found, key=lambda pair: (-pair[0], str(pair[1])))
