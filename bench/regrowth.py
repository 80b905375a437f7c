"""Cut models and what they learn: each figure is measured once and kept in the workspace's ``bench``, under the hash of all that determines it.

So a measurement that was interrupted goes on where it was, and benches that ask for the same training share it. Cuts are plain
(no repair), as in the paper, so that what comes back comes from learning alone.
"""

import dataclasses
import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bench.study.ground import Told
from core.data.blocks import build
from core.distill.trainer import distill
from core.evaluate.measure import Reference, measure, reference
from core.files import content_hash, read_json, replacing, write_json
from core.model.checkpoint import full_config, load_model, load_tokenizer
from core.model.cost import cost_of
from core.model.source import fingerprint, resolve
from core.plan.plan import Plan, make_plan
from core.progress import Silent
from core.prune.export import prune_checkpoint
from core.prune.rounds import plan_in_rounds
from core.score.scoring import score
from core.score.store import VERSION as SCORE_VERSION
from core.specs import EMBEDDED_MODEL, DataSpec, DistillSpec, RankSpec, ScoreSpec, Targets
from core.workspace import room

VERSION = 1
"""Raised when the way of measuring changes, which makes everything be measured anew."""

WIDTH = Targets(hidden_size=504, intermediate_size=1128)
"""Channels and neurons, the demo's cut by a hair: 26.2 % of all parameters go."""

DEPTH = Targets(num_hidden_layers=20)
"""Layers alone: 26.3 % go, so that both have as many parameters to a thousandth."""

DATA = DataSpec(seq_len=256, train_blocks=128, heldout_blocks=8)
SHORT = DistillSpec(steps=24, evaluate_every=1000, checkpoint_every=1000, sample_prompts=0, teacher_cache="float32", intermediate=())
"""Some six thousand tokens, with each block seen once. The stored teacher is exactly the teacher, and all trainings on the same blocks share it."""

PLAIN, BY_LOSS = ScoreSpec(ppl_blocks=2), RankSpec(depth="ppl")
"""Width by activation, layers by the loss without them: the paper's own criteria."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A smaller model before it learns."""

    targets: Targets
    rank: RankSpec = BY_LOSS
    of: "Training | None" = None
    """The training whose result is cut; None cuts the uncut model."""
    at_random: bool = False
    """Whether only the shape is taken, with the weights that training from scratch begins with."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A start and how it learns from the uncut model."""

    start: Start
    spec: DistillSpec = SHORT


class Lab:
    """A teacher, its blocks, and every figure that was measured on them."""

    def __init__(self, data: DataSpec = DATA, model: str = EMBEDDED_MODEL) -> None:
        self.data, self.teacher = data, resolve(model)
        self.blocks, self.weights = build(data, self.teacher), fingerprint(self.teacher)
        self.asked: dict[str, dict[str, Any]] = {}
        """The figures that were asked for so far, by their hash."""

    def known(self, what: Start | Training) -> bool:
        """Whether its figures are there."""
        return self._record(what).exists()

    def figures(self, what: Start | Training) -> dict[str, Any]:
        """``parameters``, ``cpu_s`` and, under ``heldout``, the measures of each text (``core.evaluate.measure``)."""
        path = self._record(what)
        if not path.exists():
            began = time.process_time()
            folder = self.model(what)
            row = {
                "what": dataclasses.asdict(what),
                "parameters": cost_of(full_config(folder)).parameters,
                "heldout": self._measure(folder),
            }
            write_json(path, row | {"cpu_s": time.process_time() - began})
            if isinstance(what, Training):
                shutil.rmtree(folder)  # half a gigabyte that nobody will ask for again
        self.asked[path.stem] = dict(read_json(path))
        return self.asked[path.stem]

    def losses(self, what: Start | Training) -> dict[str, float]:
        """Loss on each held-out text, nats a token."""
        return {text: values["loss_nats"] for text, values in self.figures(what)["heldout"].items()}

    def whole(self) -> dict[str, float]:
        """The uncut model's."""
        return self.losses(Start(targets=Targets()))

    def model(self, what: Start | Training) -> Path:
        """Its checkpoint, made if it is not there. A trained one is kept until its figures are asked for."""
        folder = room("bench") / f"{self._name(what)}-model"
        if not folder.exists():
            (self._train if isinstance(what, Training) else self._cut)(what, folder)  # type: ignore[arg-type]
        return folder

    def _cut(self, start: Start, folder: Path) -> None:
        source = self.model(start.of) if start.of else self.teacher
        cut = folder.with_name(folder.name + "-shape") if start.at_random else folder
        prune_checkpoint(source, self._plan(source, start), cut, {}, Silent())
        if start.at_random:
            torch.manual_seed(0)
            with replacing(folder) as new:
                AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(cut, local_files_only=True)).save_pretrained(new)
            shutil.rmtree(cut)

    def _plan(self, source: Path, start: Start) -> Plan:
        config = full_config(source)
        if start.rank.rounds == 1:
            return make_plan(score(source, self.blocks, PLAIN, Told("scores"), "cpu"), config, start.targets, start.rank)
        spec, text = dataclasses.replace(PLAIN, ppl_blocks=0), self.blocks
        return plan_in_rounds(
            load_model(source), config, text.calibration_NT, spec, start.targets, dataclasses.replace(start.rank, depth="bi"),
            Told("rounds"), documents_NT=text.calibration_documents_NT,
        )  # fmt: skip

    def _train(self, training: Training, folder: Path) -> None:
        start = self.model(training.start)
        plan = None
        if training.spec.intermediate and training.start.of is None:
            plan = self._plan(self.teacher, training.start)
        checkpoints = folder.with_name(folder.name + "-checkpoints")
        distill(
            start, self.teacher, self.blocks.train_NT, training.spec, folder, progress=Told(told(training)), plan=plan, device="cpu",
            checkpoints=checkpoints,
        )  # fmt: skip
        shutil.rmtree(checkpoints, ignore_errors=True)

    @cached_property
    def _references(self) -> dict[str, Reference]:
        """What the uncut model says about each held-out text."""
        teacher = load_model(self.teacher)
        return {text: reference(teacher, blocks_NT) for text, blocks_NT in self.blocks.heldout.items()}

    def _measure(self, folder: Path) -> dict[str, Any]:
        model, tokenizer = load_model(folder), load_tokenizer(self.teacher)
        return {
            text: measure(model, blocks_NT, tokenizer, teacher=self._references[text]) for text, blocks_NT in self.blocks.heldout.items()
        }

    def _record(self, what: Start | Training) -> Path:
        return room("bench") / f"{self._name(what)}.json"

    def _name(self, what: Start | Training) -> str:
        about = {"version": VERSION, "formulas": SCORE_VERSION, "model": self.weights, "data": self.blocks.fingerprint}
        return content_hash(about | {"what": without_sharding(dataclasses.asdict(what)), "scores": PLAIN.to_dict()})


def without_sharding(asked: Any) -> Any:
    """What is asked for, less a setting that is younger than the trainings that are kept, and on which nothing that is learnt depends."""
    return {key: without_sharding(value) for key, value in asked.items() if key != "sharding"} if isinstance(asked, dict) else asked


def told(training: Training) -> str:
    """A training in a few words."""
    spec, start = training.spec, training.start
    named = [f"{key} {size}" for key, size in start.targets.to_dict().items() if size is not None]
    learnt = [spec.loss] * bool(spec.kl_weight) + ["cross-entropy"] * bool(spec.ce_weight) + list(spec.intermediate)
    return f"{'random, ' * start.at_random}{', '.join(named)}: {' + '.join(learnt)}, {spec.steps} steps, seed {spec.seed}"
