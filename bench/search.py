"""Which sizes are better at equal parameters and equal measurements: those of Coppice's search, or of the ten largest under the budget.

The other rule is that of NVIDIA's Model Optimizer (``mcore_minitron``): the full grid, cut by no more than 40 % in width and 20 % in
depth, sorted by parameters, the ten largest under the budget measured, the best of these kept. Both sides choose by the divergence
from the teacher on the same blocks and plan with the same scores; the verdict is the loss above the teacher's on held-out text that
played no part in either.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import Bar, Outcome
from core.data.blocks import Blocks, build
from core.evaluate.preview import Previewer
from core.model.checkpoint import full_config
from core.model.cost import cost_of
from core.model.dims import Config, dims_of
from core.model.source import resolve
from core.plan.plan import make_plan
from core.progress import Silent
from core.score.agreement import spearman
from core.score.scoring import score
from core.score.store import Scores
from core.search.search import pool_of, search
from core.search.space import targets_of, widths_of
from core.specs import DataSpec, RankSpec, ScoreSpec, SearchSpec, Targets
from core.workspace import room

MEASUREMENTS = 10
MOST_WIDTH, MOST_DEPTH = 0.4, 0.2
"""What NVIDIA's grid removes of an axis at most."""
BUDGETS = (0.8, 0.65)
DATA = DataSpec(seq_len=128, calibration_blocks=8, train_blocks=16, heldout_blocks=4)


def measure(*, quick: bool) -> Outcome:
    """Let both rules choose under each budget, and compare what they chose on held-out text."""
    folder, silent = resolve("embedded"), Silent()
    blocks = build(DATA, folder, silent)
    scores = score(folder, blocks, ScoreSpec(ppl_blocks=1), silent, name="embedded")
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for keep in BUDGETS[:1] if quick else BUDGETS:
        ours, theirs = (rule(folder, blocks, scores, keep, 4 if quick else MEASUREMENTS) for rule in (by_search, by_size))
        rows += [{"budget": keep, "rule": name, **row} for name, row in (("search", ours), ("ten largest", theirs))]
        gap = next(name for name in ours if name.startswith("gap"))
        bars.append(Bar(name=f"{gap}, {keep:.0%} of the parameters: search / ten largest", value=ours[gap] / theirs[gap], limit="<= 0.8"))
    return Outcome(
        settings={"tokens compared on": SearchSpec().blocks * DATA.seq_len, "judged on blocks": {name: len(blocks_NT) for name, blocks_NT in unseen(blocks).items()},
                  "measurements": 4 if quick else MEASUREMENTS, "repair": "none", "retraining": "none"},
        bars=bars, rows=rows,
    )  # fmt: skip


def by_search(folder: Path, blocks: Blocks, scores: Scores, keep: float, measurements: int) -> dict[str, Any]:
    """What the search chooses."""
    spec = SearchSpec(keep=keep, evaluations=measurements)
    pool = pool_of(scores, full_config(folder), spec, RankSpec())
    previewer = comparison(folder, blocks)
    place = room("bench") / f"search-{keep}-{measurements}"
    (place / "candidates.json").unlink(missing_ok=True)
    rows = search(pool, spec, lambda plans: (previewer.plan(plan)["compared"] for plan in plans), place, Silent())
    best = min(rows, key=lambda row: row["kl_nats"])
    rho = spearman(*(np.array([[row[name] for row in rows]]) for name in ("estimate", "kl_nats")))
    return verdict(folder, blocks, scores, Targets.from_dict(best["targets"]), best["kl_nats"], len(pool.candidates)) | {
        "estimate's rho": rho
    }


def by_size(folder: Path, blocks: Blocks, scores: Scores, keep: float, measurements: int) -> dict[str, Any]:
    """What NVIDIA's rule chooses."""
    config = full_config(folder)
    grid = nvidia_grid(config, keep)
    previewer, found = comparison(folder, blocks), []
    for _, targets in grid[:measurements]:
        found.append((previewer.plan(make_plan(scores, config, targets, RankSpec()))["compared"]["kl_nats"], targets))
    kl, targets = min(found, key=lambda pair: pair[0])
    return verdict(folder, blocks, scores, targets, kl, len(grid)) | {"estimate's rho": None}


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
                (parameters, targets_of(source, dataclasses.replace(dims, layers=layers, ffn=ffn)))
                for ffn in widths.ffns
                if ffn >= (1 - MOST_WIDTH) * source.ffn and (parameters := widths.parameters(layers, ffn)) <= most
            ]
    return sorted(found, key=lambda pair: (-pair[0], str(pair[1])))


def comparison(folder: Path, blocks: Blocks) -> Previewer:
    """Measures plans on the blocks by which both rules choose."""
    return Previewer(folder, {"compared": blocks.train_NT[-SearchSpec().blocks :]})


def unseen(blocks: Blocks) -> dict[str, np.ndarray]:
    """Text for the verdict: the held-out blocks, and of their own domain also the training blocks, for nothing is trained here."""
    home, *_ = blocks.heldout
    return {**blocks.heldout, home: np.concatenate([blocks.heldout[home], blocks.train_NT[: -SearchSpec().blocks]])}


def verdict(folder: Path, blocks: Blocks, scores: Scores, targets: Targets, kl: float, pool: int) -> dict[str, Any]:
    """The loss of a choice above the teacher's on every held-out text."""
    previewer, config = Previewer(folder, unseen(blocks)), full_config(folder)
    plan = make_plan(scores, config, targets, RankSpec())
    ours, teacher = previewer.plan(plan), previewer.teacher()
    gaps = {f"gap on {name}, nats": ours[name]["loss_nats"] - teacher[name]["loss_nats"] for name in ours}
    cut = ", ".join(f"{name} {size}" for name, size in targets.to_dict().items() if size is not None)
    return {"of": pool, "chosen": cut, "parameters": cost_of(config, plan.dims).parameters, "KL when chosen, nats": kl, **gaps}
