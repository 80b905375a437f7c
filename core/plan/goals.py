"""From a goal ("at most 100 M parameters") to the sizes that meet it: the largest model of a shape that stays within, by exact counting.

A shape says which dimensions shrink together. Of its sizes, each with the widest FFN (the finest of the axes) that the limit allows, the one is taken
whose dimensions shrink most evenly. No limit is passed. All is exact but time, which is estimated: reading a prompt takes as long as its
arithmetic, writing a token as long as it takes to read weights and cache; what a cut really gains is measured by the run that makes it.
"""

import bisect
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from core.errors import UserError
from core.model.cost import Cost, cost_of
from core.model.dims import CONFIG_KEYS, Config, Dims, dims_of, family_of, resized
from core.plan.sizes import hidden_choices, problems
from core.specs import Goal, Targets

COUNT, BYTES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}, {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}
TIMES: dict[str, float] = {"x": 1.0}
"""Unit of a speed: times as fast as the whole model."""


@dataclass(frozen=True)
class Measure:
    """What a goal limits."""

    title: str
    units: Mapping[str, float]
    """Unit, in lower case, that a limit may be given in -> how much it is."""
    of: Callable[[Cost, Goal], float]

    @property
    def of_time(self) -> bool:
        """Whether it is a time, which is estimated, and limited by how many times as fast the model shall be."""
        return self.units is TIMES

    def said(self, value: float, whole: float) -> str:
        """A value in words, given that of the whole model."""
        return f"{whole / value:.3g}x {self.title}" if self.of_time else f"{value:.4g} {self.title}"


MEASURES = {
    "parameters": Measure("parameters", COUNT, lambda cost, goal: cost.parameters),
    "non_embedding": Measure("parameters without embeddings", COUNT, lambda cost, goal: cost.non_embedding_parameters),
    "weights": Measure("bytes of weights", BYTES, lambda cost, goal: cost.weight_bytes(goal.dtype)),
    "memory": Measure(
        "bytes of weights and key-value cache", BYTES,
        lambda cost, goal: cost.weight_bytes(goal.dtype) + cost.kv_bytes_per_token * goal.context * goal.batch,
    ),
    "flops": Measure("FLOPs a token", COUNT, lambda cost, goal: cost.flops_per_token(goal.context)),
    # The tokens of a prompt see half of it on average.
    "reading": Measure("as fast at reading a prompt (estimated)", TIMES, lambda cost, goal: cost.flops_per_token(goal.context // 2)),
    "writing": Measure(
        "as fast at writing a token (estimated)", TIMES, lambda cost, goal: cost.bytes_read(goal.dtype, goal.context, goal.batch)
    ),
}  # fmt: skip
"""What can be limited; see ``Goal.measure``."""

SHAPES: dict[str, tuple[str, ...]] = {
    "ffn": ("ffn",), "depth": ("layers",), "width": ("hidden", "ffn"), "balanced": ("layers", "ffn"), "attention": ("kv_heads", "ffn"),
    "all": ("layers", "kv_heads", "hidden", "ffn"),
}  # fmt: skip
"""Name of a shape -> the dimensions that shrink, each in proportion; see ``Goal.shape``."""


def limit_of(config: Config, goal: Goal) -> float:
    """The goal's limit as a number: ``"107.6M"``, ``"200 MB"``, ``"80%"`` of what the whole model has, or the time that is left of it by ``"1.3x"``.

    Raises:
        UserError: it cannot be read.
    """
    measure = MEASURES[goal.measure]
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-zA-Z%]*)\s*", goal.at_most)
    whole = value_of(config, dims_of(config), goal)
    units = {**measure.units, "%": whole / 100}
    if measure.of_time and found is not None and not found[2]:
        found = None  # a bare number could mean either
    if found is None or found[2].lower() not in units or not float(found[1]):
        raise UserError(f"at_most: {goal.at_most!r} is not understood. {_readable(measure, units)}")
    number, unit = float(found[1]), found[2].lower()
    return whole / number if unit == "x" else number * units[unit]


def _readable(measure: Measure, units: Mapping[str, float]) -> str:
    """What a limit may look like."""
    if measure.of_time:
        return (
            f"Say how many times {measure.title}, such as 1.3x, or the part of the time that it may take, such as 77%; these are the units."
        )
    known = ", ".join(unit.upper() if measure.units is BYTES else unit for unit in units if unit)
    return f"Give a number above 0 of {measure.title}, with one of these units: {known}."


def value_of(config: Config, dims: Dims, goal: Goal) -> float:
    """What the goal measures, of a model of these dimensions."""
    return MEASURES[goal.measure].of(cost_of(config, dims), goal)


def reach(config: Config, goal: Goal, fixed: Targets | None = None) -> Targets:
    """The largest sizes of the goal's shape within its limit.

    Args:
        fixed: sizes that are chosen already; the goal leaves them alone.

    Raises:
        UserError: no sizes of the shape are small enough, or those that are fixed are too large already. The message names the smallest, and what keeps it from being smaller.
    """
    fixed, limit = fixed or Targets(), limit_of(config, goal)
    if all(getattr(fixed, CONFIG_KEYS[name]) is not None for name in SHAPES[goal.shape]) and (
        value_of(config, resized(dims_of(config), fixed), goal) <= limit
    ):
        return fixed
    every = list(sizes(config, goal, fixed))
    if not every:
        told = problems(config, fixed) or [
            f"No sizes of shape {goal.shape} can be loaded again beside those that are fixed by hand. Free one of these."
        ]
        raise UserError("\n".join(told))
    # The FFN is found anew for each of the other sizes, so these are looked at once.
    others = dict.fromkeys(dataclasses.replace(targets, intermediate_size=fixed.intermediate_size) for targets in every)
    within = [found for targets in others if (found := _filled(config, goal, targets, limit)) is not None]
    if not within:
        raise UserError(_too_small(config, goal, limit, every[-1], fixed))
    return min(within, key=lambda found: _imbalance(config, goal, found))


def sizes(config: Config, goal: Goal, fixed: Targets) -> Iterator[Targets]:
    """All sizes of the goal's shape that can be loaded again, from large to small; each dimension is as near to its share as it may be.

    Raises:
        UserError: everything that the shape would change is fixed.
    """
    source = dims_of(config)
    moving = [name for name in SHAPES[goal.shape] if getattr(fixed, CONFIG_KEYS[name]) is None]
    if not moving:
        raise UserError(
            f"shape: {goal.shape} changes only what is fixed by hand ({_listed(SHAPES[goal.shape])}). Free one of these, or take another shape."
        )
    choices = {name: choices_of(config, name, resized(source, fixed), goal.multiple) for name in moving}
    shares = sorted({size / getattr(source, name) for name in moving for size in choices[name]}, reverse=True)
    before = None
    for share in shares:
        found = {CONFIG_KEYS[name]: _nearest(choices[name], share * getattr(source, name)) for name in moving}
        targets = dataclasses.replace(fixed, **found)
        if targets != before and not problems(config, targets):
            yield targets
        before = targets


def choices_of(config: Config, name: str, dims: Dims, multiple: int) -> list[int]:
    """Sizes that a dimension may have, ascending, the model's own last: multiples that run fast where the model is wide enough for them."""
    source = dims_of(config)
    own: int = getattr(source, name)
    step = snap(config, name, multiple)
    allowed = hidden_choices(config, dims.heads) if name == "hidden" else list(range(1, own + 1))
    return [*(size for size in allowed if size % step == 0 and size < own), own]


def snap(config: Config, name: str, multiple: int) -> int:
    """The step in which a dimension is cut: ``multiple`` for FFN and hidden size, halved until four steps fit; 1 for what is counted."""
    step = multiple if name in ("ffn", "hidden") else 1
    own: int = getattr(dims_of(config), name)
    if name == "hidden" and family_of(config).hidden_multiple_of_heads and step > 1:
        step = min(step, 8)  # what the heads demand comes on top of it
    while step > 1 and own < 4 * step:
        step //= 2
    return max(step, 1)


def _filled(config: Config, goal: Goal, targets: Targets, limit: float) -> Targets | None:
    """The same sizes with the widest FFN that the limit allows, if the FFN is free; None if they are above it with the narrowest."""
    source = dims_of(config)
    free = "ffn" in SHAPES[goal.shape] and targets.intermediate_size is None
    options = (
        [dataclasses.replace(targets, intermediate_size=size) for size in choices_of(config, "ffn", source, goal.multiple)]
        if free
        else [targets]
    )
    fitting = bisect.bisect_right(options, limit, key=lambda found: value_of(config, resized(source, found), goal))
    return options[fitting - 1] if fitting else None


def _imbalance(config: Config, goal: Goal, targets: Targets) -> tuple[float, float]:
    """How unequally the dimensions of the shape shrink, as the spread of their shares' logarithms; of equals the larger model is less."""
    source, dims = dims_of(config), resized(dims_of(config), targets)
    shares = [math.log(getattr(dims, name) / getattr(source, name)) for name in SHAPES[goal.shape]]
    return max(shares) - min(shares), -value_of(config, dims, goal)


def _too_small(config: Config, goal: Goal, limit: float, smallest: Targets, fixed: Targets) -> str:
    """Why a limit cannot be met, and the nearest that can."""
    measure, source = MEASURES[goal.measure], dims_of(config)
    whole, least = (value_of(config, dims, goal) for dims in (source, resized(source, smallest)))
    named = [name for name in ("hidden", "layers", "ffn", "kv_heads", "heads") if getattr(fixed, CONFIG_KEYS[name]) is not None]
    stays = [name for name in ("hidden", "layers", "ffn", "kv_heads") if name not in SHAPES[goal.shape] and name not in named]
    reasons = [f"{_listed(stays)} stay as they are"] * bool(stays) + [
        f"{_listed(named)} {'is' if len(named) == 1 else 'are'} fixed by hand"
    ] * bool(named)
    why = " and ".join(reasons) or "even the smallest sizes are that large"
    sizes_told = ", ".join(f"{key}={size}" for key, size in smallest.to_dict().items() if size is not None)
    return (
        f"at_most: {measure.said(limit, whole)} cannot be reached by shape {goal.shape}, because {why}; the nearest is "
        f"{measure.said(least, whole)}, with {sizes_told}. {'Ask for less' if measure.of_time else 'Raise the limit'}, or take a shape that changes more: {', '.join(SHAPES)}."
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(CONFIG_KEYS[name] for name in names)


def _nearest(choices: list[int], wanted: float) -> int:
    """The largest choice that is not above ``wanted``; the smallest if none is."""
    return max((size for size in choices if size <= wanted + 1e-9), default=choices[0])
