"""What a person asks for, as frozen dataclasses: the same object behind a form, a command, a run folder and a report.

A spec is plain data. It refuses fields that it does not know, lists all its problems at once, and is stored whole inside
everything that is made from it.
"""

import dataclasses
import functools
import math
import re
from dataclasses import dataclass
from typing import Any, Self, get_args, get_type_hints

from core.errors import UserError
from core.files import canonical_json, content_hash

EMBEDDED_MODEL = "embedded"
"""The model that comes with Coppice: SmolLM2-135M-Instruct."""

EMBEDDED_TEXTS = ("wikipedia", "sotu", "commons", "tales", "manual", "code")
"""The texts that come with Coppice: encyclopaedia articles, State of the Union addresses since 1961, speeches in the House of Commons,
fairy tales, a mathematical program's documentation, and Python source code."""

MIX = "mix"
"""The name of a text that is several embedded ones in turn, in equal parts: a broad one to calibrate and train on."""

MIXED_TEXTS = ("wikipedia", "commons", "tales", "manual", "code")
"""The texts of the mix. ``sotu`` is left out so that a text remains that the mix has never seen."""

AGGREGATIONS = ("mean", "l2", "var")
"""How values are condensed, over a sequence or over the batch (papers: Minitron, section 2.2)."""


SCHEDULES = ("cosine", "linear", "wsd")
"""How the learning rate falls after warm-up."""

STATES = ("output", "input", "embedding", "attention")
"""Kinds of intermediate states: a block's output, its MLP's input, the embedding, and how queries, keys and values relate."""

TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
"""Programs of others that can follow a training."""

SHARDINGS = ("none", "student", "both")
"""What the processes of one training share among them, instead of each holding all of it."""

LOSSES = ("kl", "reverse_kl", "jsd", "skew_kl", "mse", "cosine", "top_k", "sampled")
"""Distances of the student from the teacher on the logits; ``core.distill.losses`` holds their formulas."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Base of all specs: JSON in, JSON out, unknown fields refused."""

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON-able data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build a spec from ``to_dict``'s data.

        Raises:
            UserError: a field is unknown.
        """
        hints = _hints(cls)  # type: ignore[arg-type]
        if unknown := sorted(set(data) - set(hints)):
            raise UserError(f"{cls.__name__} has no field {', '.join(map(repr, unknown))}. Its fields are: {', '.join(hints)}.")
        return cls(**{name: _restore(hints[name], value) for name, value in data.items()})

    def identity(self) -> str:
        """Name the spec by its content: equal specs, equal names."""
        return content_hash(canonical_json(self.to_dict()).encode())

    def problems(self) -> list[str]:
        """List everything that is wrong with the values, a sentence each; empty if nothing is."""
        found = [f"{name}: {problem}" for name, problem in self.own_problems()]
        for child in vars(self).values():
            for part in child if isinstance(child, tuple) else (child,):
                found += part.problems() if isinstance(part, Spec) else []
        return found

    def own_problems(self) -> list[tuple[str, str]]:
        """Pairs of field and problem for this spec alone."""
        return []

    def check(self) -> Self:
        """Return the spec itself.

        Raises:
            UserError: it has problems; the message lists them all.
        """
        if problems := self.problems():
            raise UserError("\n".join(problems))
        return self


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Type hints of a spec's fields; making them out of their text takes longer than all the rest of reading a spec."""
    return get_type_hints(kind)


def _restore(hint: Any, value: Any) -> Any:
    """Turn JSON data back into what the field's type hint says: specs from dicts, tuples from lists."""
    candidates = [hint, *get_args(hint)]
    spec = next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, Spec)), None)
    if spec is not None and isinstance(value, dict):
        return spec.from_dict(value)
    if isinstance(value, list | tuple):
        return tuple(_restore(spec or object, item) for item in value)
    return value


def positive(**values: float | None) -> list[tuple[str, str]]:
    """Complain of every value that is not above zero."""
    return [(name, f"must be above 0, got {value}.") for name, value in values.items() if value is not None and not value > 0]


def one_of(allowed: tuple[str, ...], **values: str) -> list[tuple[str, str]]:
    """Complain of every value that is not in ``allowed``."""
    return [(name, f"must be one of {', '.join(allowed)}; got {value!r}.") for name, value in values.items() if value not in allowed]


@dataclass(frozen=True, kw_only=True)
class TextSpec(Spec):
    """Where text comes from."""

    source: str = "wikipedia"
    """An embedded text's name, ``mix`` for several of them in equal parts, the path of a .txt, .md, .jsonl, .json or .parquet file, or a
    datasets id of the hub."""
    config: str | None = None
    """Configuration name of a hub data set; None takes its default."""
    split: str = "train"
    """Split of a hub data set."""
    column: str = "text"
    """Column (JSONL, Parquet, hub) that holds the text."""
    max_documents: int = 2000
    """Read no more documents than this (of each text of a mix); bounds what is streamed from a hub."""

    def own_problems(self) -> list[tuple[str, str]]:
        return positive(max_documents=self.max_documents)


@dataclass(frozen=True, kw_only=True)
class DataSpec(Spec):
    """The three sets of token blocks, none of which overlaps another."""

    text: TextSpec = TextSpec()
    """Calibration, training and in-domain held-out text; its documents are dealt to the three."""
    elsewhere: tuple[TextSpec, ...] = (TextSpec(source="sotu"),)
    """Further held-out texts of other domains, which neither calibration nor training ever sees."""
    seq_len: int = 512
    """Tokens a block."""
    calibration_blocks: int = 16
    """Blocks on which importance is computed."""
    train_blocks: int = 128
    """Blocks to learn from; training that needs more begins again from the first."""
    heldout_blocks: int = 8
    """Blocks of each held-out text."""
    seed: int = 0
    """Decides which documents become calibration, training and held-out text."""

    def own_problems(self) -> list[tuple[str, str]]:
        counts = positive(calibration_blocks=self.calibration_blocks, train_blocks=self.train_blocks, heldout_blocks=self.heldout_blocks)
        return counts + ([("seq_len", f"must be at least 8 tokens, got {self.seq_len}.")] if self.seq_len < 8 else [])


@dataclass(frozen=True, kw_only=True)
class ScoreSpec(Spec):
    """Which importance is computed. Each group of fields is one pass over the text, stored by itself (see ``core.score.passes``)."""

    isolate_documents: bool = True
    """Whether the documents that a block is packed with are kept apart: attention stays inside each, and no loss predicts one's first token from
    another's last."""
    shards: int = 4
    """Parts of the calibration set, scored each by itself and merged exactly: they tell how sure a ranking is, and processes share them."""
    ppl_blocks: int = 4
    """Calibration blocks on which the loss after removing each layer is measured; 0 leaves that out."""
    gradient_blocks: int = 0
    """Calibration blocks on which Taylor and Fisher importance are measured, by gradients; 0 leaves that out."""
    loss_tokens: float = 1.0
    """Share of the tokens on which losses without layers are judged. All is exact; less is faster, and the standard error is stored and told (not of greedy)."""
    covariances: bool = False
    """Whether the units' covariances are measured, for ridge leverage, OBS and the contribution criteria that need them."""
    covariance_tokens: float = 1.0
    """Share of the tokens that covariances are made from. All is exact; less is faster, and the standard error is stored and told."""
    ridge: float = 0.01
    """Ridge of leverage and OBS, as a share of the mean variance of a layer's units."""
    pre_activation: bool = False
    """Whether neurons are measured before their activation too, X W1, as the paper prints it."""
    windows: tuple[int, ...] = ()
    """Lengths of runs of layers whose loss after removal is measured, on ppl_blocks."""
    greedy: int = 0
    """Layers to remove one after the other, each time the one whose loss hurts least, on ppl_blocks; 0 leaves that out."""
    greedy_lazy: bool = False
    """Whether greedy removal tries again only the layers that cost least when last tried: the same order as long as no layer costs less when others are
    gone, and faster; where one does, another and sometimes worse order."""
    batch_size: int = 4
    """Blocks a forward pass. Does not change the scores."""

    def own_problems(self) -> list[tuple[str, str]]:
        names = ("ppl_blocks", "gradient_blocks", "greedy")
        found = [(name, f"must be 0 or more, got {getattr(self, name)}.") for name in names if getattr(self, name) < 0]
        if (self.windows or self.greedy) and not self.ppl_blocks:
            found.append(("ppl_blocks", "must be above 0 for windows and greedy, which measure losses on them."))
        if 0 < self.gradient_blocks < self.shards:
            found.append(("gradient_blocks", f"must be 0 or at least the {self.shards} shards, got {self.gradient_blocks}."))
        shares = ("loss_tokens", "covariance_tokens")
        found += [(name, f"must be above 0 and at most 1, got {share}.") for name in shares if not 0 < (share := getattr(self, name)) <= 1]
        found += [("windows", f"must hold lengths of 1 or more, got {length}.") for length in self.windows if length < 1]
        return found + positive(shards=self.shards, batch_size=self.batch_size, ridge=self.ridge)


@dataclass(frozen=True, kw_only=True)
class RankSpec(Spec):
    """How stored scores become a ranking. Costs no model call. ``python -m core criteria`` lists the criteria."""

    heads: str = "activation"
    """Criterion for attention heads."""
    neurons: str = "activation"
    """Criterion for FFN neurons."""
    channels: str = "activation"
    """Criterion for embedding channels."""
    depth: str = "bi"
    """Criterion for layers."""
    batch: str = "l2"
    """Aggregation over the calibration blocks, of criteria that aggregate activations."""
    sequence: str = "mean"
    """Aggregation over the tokens of a block, of criteria that aggregate activations."""
    protect_first: int = 0
    """Layers at the start that are never removed."""
    protect_last: int = 0
    """Layers at the end that are never removed."""
    rounds: int = 1
    """Rounds of scoring and cutting; 1 scores once. The paper found no gain from more."""
    head_residual: bool = False
    """Whether kept query heads take in the difference to removed ones, as Minitron prints it. It harms wherever it was measured: docs/benchmarks.md."""

    def criterion(self, axis: str) -> str:
        """Name of the criterion of an axis: ``layers``, ``heads``, ``neurons`` or ``channels``."""
        return str(getattr(self, _criterion_field(axis)))

    def by(self, axis: str, criterion: str) -> "RankSpec":
        """The same ranking with another criterion of an axis."""
        return dataclasses.replace(self, **{_criterion_field(axis): criterion})  # type: ignore[arg-type]

    def own_problems(self) -> list[tuple[str, str]]:
        names = ("protect_first", "protect_last")
        negative = [(name, f"must be 0 or more, got {getattr(self, name)}.") for name in names if getattr(self, name) < 0]
        return one_of(AGGREGATIONS, batch=self.batch, sequence=self.sequence) + negative + positive(rounds=self.rounds)


def _criterion_field(axis: str) -> str:
    """Field of ``RankSpec`` that holds an axis' criterion."""
    return "depth" if axis == "layers" else axis


@dataclass(frozen=True, kw_only=True)
class Targets(Spec):
    """The dimensions to cut to, under their Hugging Face names; None keeps the model's own."""

    num_hidden_layers: int | None = None
    """Layers to keep."""
    hidden_size: int | None = None
    """Embedding channels to keep, the width of the residual stream."""
    intermediate_size: int | None = None
    """FFN neurons to keep in every layer."""
    num_attention_heads: int | None = None
    """Query heads to keep in every layer; a multiple of the key-value heads."""
    num_key_value_heads: int | None = None
    """Key-value heads to keep in every layer; they take their query heads along unless those are named too."""

    def own_problems(self) -> list[tuple[str, str]]:
        return positive(**self.to_dict())


GOAL_MEASURES = ("parameters", "non_embedding", "weights", "memory", "flops", "reading", "writing")
GOAL_SHAPES = ("ffn", "depth", "width", "balanced", "attention", "all")
WEIGHT_DTYPES = ("float32", "bfloat16", "float16", "int8", "int4")


@dataclass(frozen=True, kw_only=True)
class Goal(Spec):
    """A size to stay within, from which the targets are found (``core.plan.goals``)."""

    at_most: str = ""
    """A limit, such as 107.6M, 200MB or 80% of the whole model, or 1.3x as fast; targets that are named stay, the others are found. Empty sets no goal."""
    measure: str = "parameters"
    """What is limited: parameters, non_embedding (parameters), weights (bytes), memory (weights and key-value cache), flops (a token), or the estimated
    time of reading a prompt or of writing a token. A run that cuts measures both."""
    shape: str = "ffn"
    """What shrinks, each in proportion: ffn, depth, width (hidden, FFN), balanced (layers, FFN), attention (key-value heads, FFN), or all."""
    multiple: int = 64
    """FFN and hidden sizes are multiples of this, or of the largest part of it that the model is wide enough for; 1 takes any size."""
    dtype: str = "bfloat16"
    """Number format of the weights that are counted in bytes."""
    context: int = 4096
    """Tokens in the key-value cache, and before the token whose FLOPs are counted; of a prompt that is read, its length."""
    batch: int = 1
    """Sequences in the key-value cache."""

    def own_problems(self) -> list[tuple[str, str]]:
        found = (
            one_of(GOAL_MEASURES, measure=self.measure) + one_of(GOAL_SHAPES, shape=self.shape) + one_of(WEIGHT_DTYPES, dtype=self.dtype)
        )
        return found + positive(multiple=self.multiple, context=self.context, batch=self.batch)


REPAIRS = ("none", "closed", "thorough")


@dataclass(frozen=True, kw_only=True)
class RepairSpec(Spec):
    """How surviving weights make good what a cut took, by forward passes over the calibration blocks."""

    method: str = "closed"
    """``none`` leaves surviving weights as they are, ``closed`` fits them by least squares layer by layer, ``thorough`` then lets every layer learn a little."""
    blocks: int = 64
    """Blocks that are fitted on: the calibration blocks, then as many of the training blocks as it takes. Few tokens are the limit of a fit."""
    ridge: float | None = None
    """Pull towards the original weights, as a share of the inputs' mean square; None chooses it on calibration blocks that are not fitted."""
    steps: int = 60
    """Optimiser steps a layer of ``thorough``."""
    learning_rate: float = 5e-4
    """Peak rate of ``thorough``."""
    batch_size: int = 4
    """Blocks a forward pass, and a step of ``thorough``."""

    def own_problems(self) -> list[tuple[str, str]]:
        found = one_of(REPAIRS, method=self.method)
        return found + positive(
            blocks=self.blocks, ridge=self.ridge, steps=self.steps, learning_rate=self.learning_rate, batch_size=self.batch_size
        )


def stage_targets(stage: str) -> Targets:
    """Read the targets of a family's member, ``num_hidden_layers=24,intermediate_size=1152``.

    Raises:
        UserError: it cannot be read.
    """
    if problems := stage_problems(stage):
        raise UserError("\n".join(problems))
    return Targets(**{name: int(size) for name, size in _pairs(stage)})


def stage_problems(stage: str) -> list[str]:
    """What is wrong with the text of a stage; empty if nothing is."""
    known = [field.name for field in dataclasses.fields(Targets)]
    names = [name for name, _ in _pairs(stage)]
    wrong = [f"{name}={size}" for name, size in _pairs(stage) if name not in known or not size.isdecimal() or int(size) < 1]
    if wrong or len(set(names)) < len(names) or not names:
        return [f"{stage!r} is not understood: give each of {', '.join(known)} at most once, as name=size, with commas between."]
    return []


def _pairs(stage: str) -> list[tuple[str, str]]:
    """``"a=1,b=2"`` -> ``[("a", "1"), ("b", "2")]``."""
    parts = (part.partition("=") for part in stage.split(",") if part.strip())
    return [(name.strip(), size.strip()) for name, _, size in parts]


UNITS = re.compile(r"(?:(\d{1,9})\.)?(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
"""How units are written: a number, ``12``, or layer and number, ``3.0``; and ranges of numbers, ``4.100-163``. All count from 0."""


@dataclass(frozen=True, kw_only=True)
class Pins(Spec):
    """Units that stay or go whatever their importance. The targets still say how many stay."""

    keep_layers: tuple[str, ...] = ()
    """Layers that stay whatever their importance: 12, or 0-3. A layer with a pinned unit that stays, stays too."""
    prune_layers: tuple[str, ...] = ()
    """Layers that go whatever their importance."""
    keep_kv_heads: tuple[str, ...] = ()
    """Key-value heads that stay, as layer and number: 3.0, or 3.0-1."""
    prune_kv_heads: tuple[str, ...] = ()
    """Key-value heads that go, with all their query heads."""
    keep_heads: tuple[str, ...] = ()
    """Query heads that stay, as layer and number: 3.0, or 3.0-5. Their key-value head stays with them."""
    prune_heads: tuple[str, ...] = ()
    """Query heads that go; where every query head of a group stays, the whole group goes."""
    keep_neurons: tuple[str, ...] = ()
    """FFN neurons that stay, as layer and number: 4.17, or 4.100-163."""
    prune_neurons: tuple[str, ...] = ()
    """FFN neurons that go."""
    keep_channels: tuple[str, ...] = ()
    """Embedding channels that stay, in the whole network: 7, or 7-63."""
    prune_channels: tuple[str, ...] = ()
    """Embedding channels that go."""

    def own_problems(self) -> list[tuple[str, str]]:
        found = []
        for name, items in vars(self).items():
            in_layer = not name.endswith(("_layers", "_channels"))
            said = "layer and number, such as 3.0 or 3.0-5" if in_layer else "numbers, such as 12 or 0-3"
            found += [(name, f"must hold {said}; got {item!r}.") for item in items if not _is_unit(item, in_layer)]
        return found

    def units(self, name: str) -> list[tuple[int | None, int, int]]:
        """What a field names: layer (None for layers and channels), first and last number, for each of its items."""
        found = [UNITS.fullmatch(item) for item in getattr(self, name)]
        parts = [match.groups() for match in found if match]
        return [(None if layer is None else int(layer), int(first), int(last or first)) for layer, first, last in parts]


NO_PINS = Pins()


def _is_unit(item: Any, in_layer: bool) -> bool:
    match = UNITS.fullmatch(item) if isinstance(item, str) else None
    return match is not None and (match[1] is not None) == in_layer and int(match[3] or match[2]) >= int(match[2])


@dataclass(frozen=True, kw_only=True)
class DistillSpec(Spec):
    """Retraining with the uncut model as the teacher."""

    steps: int = 60
    """Optimiser steps; 0 leaves the pruned model as it is."""
    batch_blocks: int = 1
    """Blocks a step and device."""
    accumulation: int = 1
    """Forward passes whose gradients are added up before a step."""
    learning_rate: float = 4e-4
    """Peak of the schedule."""
    schedule: str = "cosine"
    """How the rate falls to a tenth of its peak: ``cosine``, ``linear``, or ``wsd`` (level, then linear in the last fifth)."""
    warmup_frac: float = 0.1
    """Part of the steps that the rate takes to rise from 0."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    temperature: float = 1.0
    """Softens both distributions; the loss is multiplied by its square, so that gradients keep their scale."""
    loss: str = "kl"
    """Distance from the teacher on the logits: ``kl``, ``reverse_kl``, ``jsd``, ``skew_kl``, ``mse``, ``cosine``, ``top_k`` or ``sampled``. The paper found
    ``kl`` best."""
    beta: float = 0.5
    """Of ``jsd``: the teacher's share of the mixture that both are compared with, between 0 and 1."""
    skew: float = 0.1
    """Of ``skew_kl``: the teacher's share of what it is compared with, between 0 and 1."""
    top_k: int = 100
    """Of ``top_k``: the teacher's likeliest tokens that are told apart; all others count as one."""
    samples: int = 50
    """Of ``sampled``: tokens drawn from the teacher at each position."""
    kl_weight: float = 1.0
    """Weight of the distance from the teacher on the logits."""
    ce_weight: float = 0.0
    """Weight of the true next token's cross-entropy, nats a token. The paper found 0 best."""
    intermediate: tuple[str, ...] = ("auto",)
    """Intermediate states to learn from too: ``output`` (of a block), ``input`` (of its MLP), ``embedding``, ``attention`` (relations); ``auto`` takes what
    the paper advises: none when little depth went, output and embedding when much did, and none where the other settings leave no room for them."""
    layer_map: tuple[str, ...] = ()
    """Layers whose states are compared, ``student:teacher`` from 0, such as 13:29; ``plan`` takes every kept layer; by default one pair near the end."""
    state_distance: str = "cosine"
    """Distance of intermediate states: ``cosine``, which the paper found best, or ``mse``, relative to the teacher's length."""
    intermediate_weight: float = 1.0
    """Weight of the intermediate states, after they were scaled to weigh as much as the logits."""
    teacher_cache: str = "off"
    """Keep the teacher's final hidden states of the training blocks on disk, as ``float32`` (exact) or ``bfloat16`` (half the size), and never compute them
    twice; ``off`` computes them each time."""
    correction_steps: int = 0
    """Steps that adapt the teacher to the training text first; for text unlike what it was made from."""
    correction_rate: float = 2e-5
    """Peak learning rate of those steps."""
    keep_best: bool = False
    """Take the weights of the lowest held-out loss (first text), not the last ones."""
    patience: int = 0
    """Measurements without a lower held-out loss after which training ends, with the best weights; 0 never ends early."""
    gradient_checkpointing: bool = False
    """Compute activations a second time instead of keeping them: less memory, about a third more work."""
    sharding: str = "none"
    """What several processes share instead of each holding all of it (FSDP2): ``none`` (DDP), ``student`` (weights, gradients and Adam moments), or ``both``
    (the teacher's body too). Needs a launcher (docs/scale.md); changes nothing of what is learnt."""
    report_to: tuple[str, ...] = ()
    """Trackers that follow the training too: ``tensorboard``, ``wandb``, ``mlflow``, ``trackio``; each needs its package."""
    sample_prompts: int = 1
    """Prompts that the student continues at each measurement, to be read while it learns."""
    checkpoint_every: int = 20
    """Steps between checkpoints from which the run can resume."""
    evaluate_every: int = 20
    """Steps between measurements on held-out text."""
    dtype: str = "auto"
    """``auto`` takes bfloat16 autocast where the device is made for it, else float32."""
    seed: int = 0
    """Decides the order of the blocks."""

    def own_problems(self) -> list[tuple[str, str]]:
        found = positive(batch_blocks=self.batch_blocks, accumulation=self.accumulation, learning_rate=self.learning_rate, temperature=self.temperature,
                         max_grad_norm=self.max_grad_norm, checkpoint_every=self.checkpoint_every, evaluate_every=self.evaluate_every,
                         top_k=self.top_k, samples=self.samples, correction_rate=self.correction_rate)  # fmt: skip
        found += [
            (name, f"must lie between 0 and 1, got {value}.") for name in ("beta", "skew") if not 0 < (value := getattr(self, name)) < 1
        ]
        weights = (
            "steps",
            "weight_decay",
            "kl_weight",
            "ce_weight",
            "intermediate_weight",
            "correction_steps",
            "patience",
            "sample_prompts",
        )
        found += [(name, f"must be 0 or more, got {value}.") for name in weights if (value := getattr(self, name)) < 0]
        if self.learning_rate > 0.1 or not math.isfinite(self.learning_rate):
            found.append(("learning_rate", f"{self.learning_rate} would destroy the model; take 1e-5 to 1e-2."))
        if not 0 <= self.warmup_frac <= 1:
            found.append(("warmup_frac", f"must be between 0 and 1, got {self.warmup_frac}."))
        if self.steps and self.kl_weight == 0 == self.ce_weight:
            found.append(("kl_weight", "and ce_weight are both 0, so nothing would be learnt; raise one."))
        if set(self.intermediate) - {"auto"} and not (self.kl_weight and self.intermediate_weight):
            found.append(("intermediate", "is scaled to the logits' loss, so kl_weight and intermediate_weight must be above 0."))
        if self.teacher_cache != "off" and set(self.intermediate) - {"auto"}:
            found.append(("teacher_cache", "keeps final states only, and intermediate needs others; take one of the two."))
        if self.teacher_cache != "off" and self.sharding == "both":
            found.append(
                (
                    "sharding",
                    "both shares the teacher's body, which must be asked by all processes at once; with teacher_cache take student.",
                )
            )
        for name, allowed in (("intermediate", (*STATES, "auto")), ("report_to", TRACKERS)):
            found += [problem for value in getattr(self, name) for problem in one_of(allowed, **{name: value})]
        return found + one_of(("auto", "float32", "bfloat16"), dtype=self.dtype) + self._choices()

    def _choices(self) -> list[tuple[str, str]]:
        """Complaints of the words among the settings."""
        chosen = {
            "loss": LOSSES,
            "schedule": SCHEDULES,
            "state_distance": ("cosine", "mse"),
            "teacher_cache": ("off", "float32", "bfloat16"),
            "sharding": SHARDINGS,
        }
        return [problem for name, allowed in chosen.items() for problem in one_of(allowed, **{name: getattr(self, name)})]


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
