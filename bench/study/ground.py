"""What the study stands on: the embedded model, its importance, and what a cut costs, every figure kept as soon as it is known.

Damage is the rise of the loss, in nats a token, of the model masked to a plan, token by token against the uncut model. The
losses of each block under each plan are one JSON entry in the workspace's ``study``, under the hash of all that determines
them; so an interrupted study goes on where it was, and tables that share a cut share its figures.
"""

import dataclasses
import json
import math
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.study.rankings import AllEqual
from bench.study.settings import DOMAINS, Settings
from core.data.blocks import Blocks, build
from core.evaluate.measure import evaluating
from core.files import content_hash, read_json, write_json
from core.model.checkpoint import load_model
from core.model.cost import cost_of
from core.model.dims import dims_of, resized
from core.model.head import head_weight, hidden_states, token_losses
from core.model.source import fingerprint, resolve
from core.plan.plan import Importance, Plan, make_plan
from core.progress import Silent
from core.prune.mask import masked
from core.prune.rounds import plan_in_rounds
from core.score.scoring import score
from core.score.store import VERSION as SCORE_VERSION
from core.score.store import Scores
from core.specs import EMBEDDED_MODEL, RankSpec, ScoreSpec, Targets
from core.workspace import room

VERSION = 1
"""Raised when the way of measuring changes, which makes everything be measured anew."""

MIXED = "half and half"
"""Calibration blocks of both texts in turn."""


@dataclass(frozen=True)
class Damage:
    """What a cut costs: nats above the uncut model, of every block's tokens ``[N, T]`` of each held-out text."""

    tokens: dict[str, np.ndarray]

    def of(self, domain: str) -> float:
        """Mean on one text."""
        return float(self.tokens[domain].mean())

    @property
    def mean(self) -> float:
        """Mean of both texts."""
        return float(np.mean([self.of(domain) for domain in self.tokens]))

    @property
    def error(self) -> float:
        """Standard error of the mean of both texts."""
        return _error(list(self.tokens.values()))

    def minus(self, other: "Damage") -> tuple[float, float]:
        """How much more than ``other`` on the blocks that both have, mean of both texts, and the standard error of that."""
        apart = [
            mine[: len(theirs)] - theirs[: len(mine)] for mine, theirs in zip(self.tokens.values(), other.tokens.values(), strict=True)
        ]
        return float(np.mean([values.mean() for values in apart])), _error(apart)


def _error(apart: list[np.ndarray]) -> float:
    """Standard error of the mean of some texts' means, from block to block: tokens of one block have too much in common."""
    if min(map(len, apart)) < 2:
        return math.inf
    return math.hypot(*(float(values.mean(1).std(ddof=1)) / math.sqrt(len(values)) for values in apart)) / len(apart)


class Ground:
    """The embedded model and everything that is asked of it."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.folder = settings, resolve(EMBEDDED_MODEL)
        self.model = load_model(self.folder)
        self.config = self.model.config.to_dict()
        self.dims, self.weights = dims_of(self.config), fingerprint(self.folder)
        self.texts = {domain: build(settings.data(domain), self.folder) for domain in DOMAINS}
        self.texts[MIXED] = _mixed(self.texts)
        self.costs: dict[str, float] = {}
        """Processor seconds behind each figure that was asked for so far, also where they were spent in an earlier run."""
        self.judged: dict[tuple[str, int], Damage] = {}
        """The damages that were asked for, by the plan's identity and the number of blocks."""

    @property
    def room(self) -> Path:
        """Where figures are kept."""
        return room("study")

    @cached_property
    def scores(self) -> Scores:
        """Every criterion of width, and the plain ones of depth, calibrated on the first text."""
        return self.scores_on(DOMAINS[0], self.settings.every_width)

    @cached_property
    def depth_scores(self) -> Scores:
        """The same with every criterion of depth."""
        return self.scores_on(DOMAINS[0], self.settings.everything)

    def scores_on(self, text: str, spec: ScoreSpec) -> Scores:
        """Importance calibrated on one text, stored as any other."""
        key = content_hash({"study": VERSION, "cost": text, "spec": spec.to_dict(), "about": self._about(text)})
        path = self.room / f"scores-{key}.json"
        began = time.process_time()
        scores = score(self.folder, self.texts[text], spec, Told(f"scores on {text}"), "cpu", EMBEDDED_MODEL)
        if not path.exists():
            write_json(path, {"cpu_s": time.process_time() - began})
        self.costs[path.name] = read_json(path)["cpu_s"]
        return scores

    def plan(self, targets: Targets, rank: RankSpec | None = None, scores: Importance | None = None) -> Plan:
        """What is kept, by a criterion's importance or by any other."""
        return make_plan(scores or self.scores, self.config, targets, rank or RankSpec())

    def plan_in_rounds(self, targets: Targets, rank: RankSpec) -> Plan:
        """What is kept after several rounds; the plan is kept too. One round asks the stored scores."""
        if rank.rounds == 1:
            return self.plan(targets, rank)
        spec = self.settings.activations
        name = content_hash(
            {
                "study": VERSION,
                "targets": targets.to_dict(),
                "rank": rank.to_dict(),
                "spec": spec.to_dict(),
                "about": self._about(DOMAINS[0]),
            }
        )
        path, cost = self.room / f"plan-{name}.npz", self.room / f"plan-{name}.json"
        if not path.exists():
            began = time.process_time()
            text, told = self.texts[DOMAINS[0]], Told(f"{rank.rounds} rounds")
            plan_in_rounds(
                self.model, self.config, text.calibration_NT, spec, targets, rank, told, documents_NT=text.calibration_documents_NT
            ).save(path)
            write_json(cost, {"cpu_s": time.process_time() - began})
        self.costs[cost.name] = read_json(cost)["cpu_s"]
        return Plan.load(path)

    def _about(self, text: str) -> dict[str, Any]:
        """What else determines a score: weights, tokens, formulas."""
        return {"model": self.weights, "text": self.texts[text].meta["sets"]["calibration"]["fingerprint"], "formulas": SCORE_VERSION}

    def share(self, targets: Targets) -> float:
        """Part of all parameters that a cut removes, exactly."""
        return 1 - cost_of(self.config, resized(self.dims, targets)).parameters / cost_of(self.config).parameters

    def heldout(self, domain: str, blocks: int) -> np.ndarray:
        """Held-out blocks of a text, dealt apart from its calibration blocks."""
        return self.texts[domain].heldout[domain][:blocks]

    def damage(self, plan: Plan, blocks: int | None = None) -> Damage:
        """What a cut costs, on so many blocks of each text; by default on ``heldout_blocks``."""
        count = blocks or self.settings.heldout_blocks
        tokens = {}
        for domain in DOMAINS:
            cut, whole = (self.losses(each, domain, count) for each in (plan, self.uncut))
            tokens[domain] = cut - whole
        self.judged[plan.identity, count] = Damage(tokens)
        return self.judged[plan.identity, count]

    @cached_property
    def uncut(self) -> Plan:
        """The plan that keeps all."""
        return self.plan(Targets(), scores=AllEqual(self.dims))

    def losses(self, plan: Plan, domain: str, count: int) -> np.ndarray:
        """Losses of the predicted tokens of a text's first ``count`` blocks under a plan, ``[N, T]``, nats."""
        path = self.room / f"losses-{content_hash({'study': VERSION, 'model': self.weights, 'plan': plan.identity})}.json"
        found = _read(path)
        losses = []
        for block_T in self.heldout(domain, count):
            name = content_hash(block_T.tobytes())
            if name not in found:
                found[name] = self._measure(plan, block_T)
                write_json(path, found)
            self.costs[path.name + name] = found[name]["cpu_s"]
            losses.append(found[name]["losses"])
        return np.array(losses)

    def _measure(self, plan: Plan, block_T: np.ndarray) -> dict[str, Any]:
        """Losses of one block's tokens, ten-thousandths of a nat, and what they cost."""
        began, ids_BT = time.process_time(), torch.from_numpy(block_T.astype(np.int64))[None]
        with evaluating(self.model), masked(self.model, self.config, plan):
            hidden_BTD = hidden_states(self.model, ids_BT)[:, :-1]
            losses_T = token_losses(hidden_BTD, head_weight(self.model), ids_BT[:, 1:])[0]
        return {"losses": [round(loss, 4) for loss in losses_T.tolist()], "cpu_s": time.process_time() - began}


def _mixed(texts: dict[str, Blocks]) -> Blocks:
    """The first text's blocks with every second calibration block from the other."""
    first, second = (texts[domain] for domain in DOMAINS)
    mixed_NT = np.array(first.calibration_NT)
    count = len(mixed_NT) // 2
    mixed_NT[0::2], mixed_NT[1::2] = first.calibration_NT[:count], second.calibration_NT[:count]
    documents_NT = np.array(first.calibration_documents_NT)
    documents_NT[0::2], documents_NT[1::2] = first.calibration_documents_NT[:count], second.calibration_documents_NT[:count]
    meta = json.loads(json.dumps(first.meta))
    meta["sets"]["calibration"]["fingerprint"] = content_hash(mixed_NT.tobytes() + documents_NT.tobytes())
    meta["spec"]["text"]["source"] = "+".join(DOMAINS)
    return dataclasses.replace(first, calibration_NT=mixed_NT, calibration_documents_NT=documents_NT, meta=meta)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


class Told(Silent):
    """Progress as lines on the error output, one every few seconds."""

    def __init__(self, what: str) -> None:
        self.what, self._last = what, time.monotonic()

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        """Say how far the work is."""
        if time.monotonic() - self._last > 10:
            self._last = time.monotonic()
            print(f"  {self.what}: {done} of {total}", file=sys.stderr, flush=True)
