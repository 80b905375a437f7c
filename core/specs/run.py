"""A run: what is to be done, and all specs that decide it."""

from dataclasses import dataclass

from core.specs.cut import Goal, RepairSpec, Targets, stage_problems
from core.specs.data import DataSpec
from core.specs.distill import DistillSpec
from core.specs.pins import Pins
from core.specs.score import RankSpec, ScoreSpec
from core.specs.spec import Spec, one_of, positive

EMBEDDED_MODEL = "embedded"
"""The model that comes with Coppice: SmolLM2-135M-Instruct."""


@dataclass(frozen=True, kw_only=True)
class EvalSpec(Spec):
    """What is measured on the teacher, the pruned and the distilled model."""

    prompts: tuple[str, ...] = (
        "The capital of France is",
        "Photosynthesis is the process by which",
        "Once upon a time, in a small village,",
    )
    """Continued by every model, greedily."""
    max_new_tokens: int = 40
    """Tokens a continuation."""
    batch_size: int = 4
    """Blocks a forward pass."""

    def own_problems(self) -> list[tuple[str, str]]:
        return positive(max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)


@dataclass(frozen=True, kw_only=True)
class SearchSpec(Spec):
    """Which sizes are looked for, and how much may be spent on it."""

    keep: float = 0.8
    """The budget: parameters that a candidate may have at most, as a share of the model's."""
    within: float = 0.05
    """How far below the budget a candidate may stay, as a share of it. The paper takes 0.05."""
    evaluations: int = 24
    """Candidates that are measured by masks; the others are only estimated."""
    rankings: int = 6
    """Of these, how many try other criteria on the best sizes, at most half; 0 keeps to the ranking that was given."""
    blocks: int = 4
    """Blocks, the last of the training set, on which candidates are compared; the held-out text stays unseen until the end."""
    finalists: int = 3
    """The best candidates, which are repaired, compared again, and measured on the held-out text."""
    retrain_steps: int = 0
    """Distillation steps of the finalists before half of them go; twice as many each time, until one is left. 0 leaves retraining out."""
    minutes: float | None = None
    """Time after which no further candidate is begun and the best so far is kept; none by default."""
    seed: int = 0
    """Decides which candidates are measured for the sake of learning."""
    workers: int = 1
    """Processes that measure, repair and retrain candidates side by side. More than one needs Ray: on this machine, or on the cluster that RAY_ADDRESS names."""

    @property
    def ranked(self) -> int:
        """Measurements that go to other rankings."""
        return min(self.rankings, self.evaluations // 2)

    @property
    def sized(self) -> int:
        """Measurements that go to sizes."""
        return self.evaluations - self.ranked

    def own_problems(self) -> list[tuple[str, str]]:
        shares = {"keep": self.keep, "within": self.within}
        found = [(name, f"must be between 0 and 1, got {value}.") for name, value in shares.items() if not 0 < value < 1]
        counts = {"retrain_steps": self.retrain_steps, "rankings": self.rankings}
        found += [(name, f"must be 0 or more, got {value}.") for name, value in counts.items() if value < 0]
        return found + positive(
            evaluations=self.evaluations, blocks=self.blocks, finalists=self.finalists, minutes=self.minutes, workers=self.workers
        )


LINEAGES = ("previous", "first")
SCORING_KINDS = ("score", "preview", "search", "prune", "distill", "family")
RUN_KINDS = ("probe", "score", "preview", "search", "prune", "distill", "family", "evaluate", "generate")


@dataclass(frozen=True, kw_only=True)
class RunSpec(Spec):
    """One run: what is to be done, to which model, with which text."""

    kind: str = "distill"
    """``probe`` (time the model on this machine); ``score``; ``preview`` (score, plan, and measure the plan as masks, without cutting); ``search`` (find the best sizes under a budget);
    ``prune`` (score, plan, cut, measure); ``distill`` (all that, then regrow and measure again); ``family`` (a chain of these);
    ``evaluate`` (measure ``model`` against ``teacher``); ``generate`` (continue prompts with ``model`` and ``against``)."""
    name: str = ""
    """A title for people; empty lets Coppice make one."""
    model: str = EMBEDDED_MODEL
    """``embedded``, a local folder, or a hub id."""
    teacher: str = ""
    """The model to learn from and to be measured against; empty takes the one that is cut. It must share its tokenizer."""
    stages: tuple[str, ...] = ()
    """Sizes of each member of a family, largest first: ``num_hidden_layers=24,intermediate_size=1152``. Each is cut from the one before."""
    lineage: str = "previous"
    """Who teaches the members of a family: ``previous`` (the member it was cut from), or ``first`` (the uncut model)."""
    against: tuple[str, ...] = ()
    """Further models: the teacher that ``evaluate`` compares with, or what else ``generate`` asks."""
    data: DataSpec = DataSpec()
    score: ScoreSpec = ScoreSpec()
    rank: RankSpec = RankSpec()
    targets: Targets = Targets()
    goal: Goal = Goal()
    repair: RepairSpec = RepairSpec()
    pins: Pins = Pins()
    search: SearchSpec = SearchSpec()
    distill: DistillSpec = DistillSpec()
    evaluate: EvalSpec = EvalSpec()
    device: str = "auto"
    """``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:N``."""
    output: str | None = None
    """A folder that also receives the finished model; it must not exist yet, or be empty."""

    def own_problems(self) -> list[tuple[str, str]]:
        found = one_of(RUN_KINDS, kind=self.kind)
        if not self.model.strip():
            found.append(("model", "is empty; name a folder, a hub id, or 'embedded'."))
        found += one_of(LINEAGES, lineage=self.lineage)
        if self.kind == "family" and not self.stages:
            found.append(("stages", "is empty; name at least one, such as intermediate_size=1152."))
        found += [("stages", problem) for stage in self.stages for problem in stage_problems(stage)]
        if self.kind == "search":
            found += self._search_problems()
        if self.kind in ("family", "search") and self.distill.sharding != "none":
            found.append(("sharding", f"needs several processes, and a {self.kind} is made by one; take none."))
        if self.kind in SCORING_KINDS and self.data.calibration_blocks < self.score.shards:
            blocks, shards = self.data.calibration_blocks, self.score.shards
            found.append(
                ("shards", f"cannot be {shards} with {blocks} calibration blocks; lower it to at most {blocks}, or take more blocks.")
            )
        return found

    def _search_problems(self) -> list[tuple[str, str]]:
        """Complaints of what a search compares on and learns from, which share the training blocks."""
        blocks, there = self.search.blocks, self.data.train_blocks
        if blocks > there:
            return [
                ("search.blocks", f"cannot be {blocks} of {there} training blocks; lower it to at most {there}, or take more train_blocks.")
            ]
        if self.search.retrain_steps and blocks == there:
            return [
                ("search.blocks", f"takes all {there} training blocks, so none is left to retrain on; lower it, or take more train_blocks.")
            ]
        return []
