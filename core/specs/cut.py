"""What is left of a model: its sizes, the limit that they follow from, the members of a family, and the repair."""

import dataclasses
from dataclasses import dataclass

from core.errors import UserError
from core.specs.spec import Spec, one_of, positive


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


REPAIRS = ("none", "closed", "scaled", "thorough")


@dataclass(frozen=True, kw_only=True)
class RepairSpec(Spec):
    """How surviving weights make good what a cut took, by forward passes over the calibration blocks."""

    method: str = "closed"
    """``none`` leaves surviving weights as they are, ``closed`` fits them by least squares layer by layer, ``scaled`` then learns a scale for every unit from the uncut model's predictions, ``thorough`` lets every layer learn a little before that."""
    blocks: int = 64
    """Blocks that are fitted on: the calibration blocks, then as many of the training blocks as it takes. Few tokens are the limit of a fit."""
    ridge: float | None = None
    """Pull towards the original weights, as a share of the inputs' mean square; None chooses it on calibration blocks that are not fitted."""
    steps: int = 60
    """Optimiser steps a layer of ``thorough``."""
    learning_rate: float = 5e-4
    """Peak rate of ``thorough``."""
    passes: int = 2
    """How often ``scaled`` and ``thorough`` go over the blocks to learn scales; 0 leaves scales out."""
    scale_rate: float = 1e-2
    """Peak rate of the scales."""
    batch_size: int = 4
    """Blocks a forward pass, and a step of ``thorough``."""

    @property
    def scales(self) -> bool:
        """Whether scales are learnt at the end."""
        return self.method in ("scaled", "thorough") and self.passes > 0

    def own_problems(self) -> list[tuple[str, str]]:
        found = one_of(REPAIRS, method=self.method)
        found += [("passes", f"must be 0 or more, got {self.passes}.")] if self.passes < 0 else []
        sizes = {"blocks": self.blocks, "steps": self.steps, "batch_size": self.batch_size}
        return found + positive(ridge=self.ridge, learning_rate=self.learning_rate, scale_rate=self.scale_rate, **sizes)


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
