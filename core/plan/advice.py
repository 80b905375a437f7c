"""Best practices of structured pruning as advice on a given cut: what applies, what it recommends, the number behind it, and the change that follows it.

The ten of Minitron (arXiv 2407.14679, section 1 and its tables), what its successor added (arXiv 2408.11796), and where this project measured
otherwise (docs/study-importance.md). Every rule is a decorated function; a rule that does not apply says nothing.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from core.errors import UserError
from core.model.cost import Cost, cost_of
from core.model.dims import Config, Dims, dims_of, resized
from core.plan.goals import reach
from core.specs import Goal, RankSpec, Targets

MINITRON, PRACTICE, HERE = "Minitron, arXiv 2407.14679", "Minitron in practice, arXiv 2408.11796", "measured here, docs/study-importance.md"

DEEP = 0.25
"""Part of the layers from which on a cut counts as one that "significantly" reduces depth, which the paper leaves open; its own example removes half."""
HALF = 0.5
"""Part of the parameters beyond which a cut is better made in steps; the paper's own steps go from 15 to 8 and from 8 to 4 billion."""
SHORT = 20
"""Steps of a first round of retraining that a laptop takes in minutes. The paper's take 400."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What advice is asked on."""

    config: Config
    targets: Targets
    rank: RankSpec
    steps: int
    """Of retraining."""

    @cached_property
    def before(self) -> Dims:
        """Dimensions of the uncut model."""
        return dims_of(self.config)

    @cached_property
    def after(self) -> Dims:
        """Dimensions after the cut."""
        return resized(self.before, self.targets)

    @cached_property
    def costs(self) -> tuple[Cost, Cost]:
        """Costs before and after."""
        return cost_of(self.config), cost_of(self.config, self.after)

    @property
    def removed(self) -> float:
        """Part of the parameters that goes."""
        before, after = self.costs
        return 1 - after.parameters / before.parameters

    @property
    def depth_removed(self) -> float:
        """Part of the layers that goes."""
        return 1 - self.after.layers / self.before.layers


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What one rule says of a situation."""

    says: str
    """The recommendation, in one sentence."""
    why: str
    """The number behind it."""
    source: str
    targets: Targets | None = None
    """Targets that follow it, if targets are what it is about and there are such."""
    rank: RankSpec | None = None
    """The ranking that follows it, if that is what it is about."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the run to come that follow it, by their names in ``RunSpec``: ``distill.ce_weight``. ``model`` is left to the user."""


Rule = Callable[[Situation], Advice | None]
RULES: dict[str, Rule] = {}
"""Name -> rule, in the order in which advice is shown."""


def rule(function: Rule) -> Rule:
    """Add a rule under its function's name."""
    RULES[function.__name__] = function
    return function


def advice(situation: Situation) -> dict[str, Advice]:
    """All that applies, by the rules' names; nothing where nothing is cut."""
    if situation.after == situation.before:
        return {}
    return {name: found for name, judge in RULES.items() if (found := judge(situation))}


@rule
def width_before_depth(now: Situation) -> Advice | None:
    """Best practice 4."""
    narrower = (now.after.hidden, now.after.ffn) != (now.before.hidden, now.before.ffn)
    if now.depth_removed == 0 or narrower or now.costs[0].parameters > 15e9:
        return None
    return Advice(
        says="Below some 15 billion parameters, make the model narrower rather than shallower, if it will be retrained.",
        why="LM loss after retraining 2.049 (width, 7.7 B) against 2.155 (depth, 9.4 B), table 13. Before retraining it is the other way round.",
        source=MINITRON, targets=_same_size(now, "ffn"),
    )  # fmt: skip


def _same_size(now: Situation, shape: str) -> Targets | None:
    """Targets of another shape with at most as many parameters; None if there are none."""
    try:
        return reach(now.config, Goal(at_most=str(now.costs[1].parameters), shape=shape))
    except UserError:
        return None


@rule
def keep_the_heads(now: Situation) -> Advice | None:
    """The insight on which axes to cut in the practice paper."""
    if now.after.heads == now.before.heads:
        return None
    kept = dataclasses.replace(now.targets, num_attention_heads=None, num_key_value_heads=None)
    return Advice(
        says="Keep the attention heads, and cut FFN neurons and embedding channels instead.",
        why="NVIDIA's 4B and 8B models keep all heads. Here, of a 20 % cut before retraining: 3.58 nats for heads and neurons, 1.20 for neurons alone.",
        source=f"{PRACTICE}; {HERE}", targets=kept if kept != Targets() else _same_size(now, "ffn"),
    )  # fmt: skip


@rule
def loss_for_depth(now: Situation) -> Advice | None:
    """Best practice 2, depth."""
    if now.depth_removed == 0 or now.rank.depth != "bi":
        return None
    return Advice(
        says="Choose layers by the loss without them rather than by block importance.",
        why="LM loss after retraining 2.155 against 2.177, table 13; the practice paper leaves block importance out as the weaker one.",
        source=f"{MINITRON}; {PRACTICE}", rank=dataclasses.replace(now.rank, depth="ppl"),
    )  # fmt: skip


@rule
def contiguous_depth(now: Situation) -> Advice | None:
    """The practice paper's depth recipe."""
    if now.before.layers - now.after.layers < 2 or now.rank.depth in ("window", "angle"):
        return None
    return Advice(
        says="For tasks, remove one run of neighbouring layers, even if the loss prefers single ones.",
        why="Half the layers of Llama 3.1 8B: Winogrande 0.595 as one run, 0.5 (chance) chosen one by one, at a better loss.",
        source=PRACTICE, rank=dataclasses.replace(now.rank, depth="angle"),
    )  # fmt: skip


@rule
def aggregate_l2_mean(now: Situation) -> Advice | None:
    """Best practice 2, width."""
    by_activation = {"activation"} & {now.rank.heads, now.rank.neurons, now.rank.channels}
    narrower = (now.after.hidden, now.after.ffn, now.after.heads) != (now.before.hidden, now.before.ffn, now.before.heads)
    if not by_activation or not narrower or (now.rank.batch, now.rank.sequence) == ("l2", "mean"):
        return None
    return Advice(
        says="Aggregate activations by their mean over tokens and the L2 norm over blocks.",
        why="Loss 7.18 before retraining, against 7.21 to 10.55 of the other eight, table 11. On the embedded model it is place four of nine, within the error.",
        source=f"{MINITRON}; {HERE}", rank=dataclasses.replace(now.rank, batch="l2", sequence="mean"),
    )  # fmt: skip


@rule
def single_shot(now: Situation) -> Advice | None:
    """Best practice 3."""
    if now.rank.rounds == 1:
        return None
    return Advice(
        says="Score once: more rounds gain nothing once the model is retrained.",
        why="Loss 1.92 after retraining for one, two and four rounds, table 12. Before retraining rounds helped here where heads go too, and harmed where they stay.",
        source=f"{MINITRON}; {HERE}", rank=dataclasses.replace(now.rank, rounds=1),
    )  # fmt: skip


@rule
def largest_first(now: Situation) -> Advice | None:
    """Best practice 1."""
    if now.removed <= HALF:
        return None
    return Advice(
        says="Of a family of sizes train the largest only; cut and distil the others from it, one after the other.",
        why="A 4B cut from the 15B reaches MMLU 37.81 with 100 B tokens; trained from scratch 24.36 with 150 B and 26.24 with 400 B, table 14.",
        source=MINITRON, settings={"kind": "family"},
    )  # fmt: skip


@rule
def start_from_the_closest(now: Situation) -> Advice | None:
    """Best practice 8."""
    if now.removed <= HALF:
        return None
    return Advice(
        says="Start from the model that is closest to the target in size: beyond half of the parameters, from a smaller one of the family.",
        why="A 4B made from the 8B reaches MMLU 42.45, made from the 15B directly 37.81, with equal tokens, table 14.",
        source=MINITRON, settings={"model": ""},
    )  # fmt: skip


@rule
def states_for_depth(now: Situation) -> Advice | None:
    """Best practice 6."""
    if now.depth_removed < DEEP or now.steps == 0:
        return None
    return Advice(
        says="When much depth goes, learn from intermediate states and the embedding output beside the logits.",
        why="Half the layers removed: LM loss 2.141 with them, 2.155 with logits only, table 17.",
        source=MINITRON, settings={"distill.intermediate": ("output", "embedding")},
    )  # fmt: skip


@rule
def distil_only(now: Situation) -> Advice | None:
    """Best practice 5."""
    if now.steps == 0:
        return None
    return Advice(
        says="Retrain on the teacher's predictions by forward KL, without the true tokens' cross-entropy.",
        why="LM loss 2.107, with cross-entropy 2.117, with reverse KL and cross-entropy 2.140, table 15.",
        source=MINITRON, settings={"distill.loss": "kl", "distill.kl_weight": 1.0, "distill.ce_weight": 0.0},
    )  # fmt: skip


@rule
def logits_alone(now: Situation) -> Advice | None:
    """Best practice 7."""
    if now.depth_removed >= DEEP or now.steps == 0:
        return None
    return Advice(
        says="When little or no depth goes, learn from the logits alone, not from intermediate states.",
        why="Width cut: MMLU 58.3 with logits only, 58.0 with states, table 18.",
        source=MINITRON, settings={"distill.intermediate": ()},
    )  # fmt: skip


@rule
def judge_after_retraining(now: Situation) -> Advice | None:
    """Best practice 9."""
    if now.steps == 0:
        return None
    return Advice(
        says="Compare candidates only after a short retraining.",
        why="Their order changes for some 300 steps of 1,152 blocks before it holds, figure 9; width overtakes depth within 200, figure 6.",
        source=MINITRON, settings={"search.retrain_steps": SHORT},
    )  # fmt: skip


@rule
def last_stage_checkpoint(now: Situation) -> Advice | None:
    """Best practice 10, which concerns the model and cannot be read from its config."""
    return Advice(
        says="Of a model trained in several phases, prune the checkpoint of the last one.",
        why="MMLU 61.9 after retraining on the last phase's data only (94 B tokens), 54.7 on both phases' (113 B), table 20.",
        source=MINITRON, settings={"model": ""},
    )  # fmt: skip
