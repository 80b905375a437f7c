"""All sizes under a budget of parameters that are worth a look: the grid of Minitron's search (arXiv 2407.14679, section 3 and table 9).

Of sizes that differ in the FFN alone only the largest that fits is taken, and none that another has in every dimension: keeping
more costs no quality to speak of, so those that are left are the ones between which there is something to decide.
"""

import bisect
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.errors import UserError
from core.model.cost import cost_of
from core.model.dims import CONFIG_KEYS, Config, Dims, dims_of
from core.plan.plan import plan_problems
from core.plan.presets import ffn_choices
from core.plan.sizes import head_choices, hidden_choices
from core.specs import NO_PINS, Pins, RankSpec, SearchSpec, Targets

MOST_WIDTHS = 16
"""Hidden sizes that are tried at most, evenly spread."""
FAST = 8
"""Hidden sizes are multiples of this where the heads allow any such, because matrices of such sizes run fastest."""
VARIED = ("layers", "hidden", "ffn", "heads", "kv_heads")
"""Dimensions that a candidate may have smaller than the model."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One choice of sizes, and what it costs."""

    dims: Dims
    targets: Targets
    parameters: int
    flops: int
    """Forward FLOPs a token, attention over earlier tokens left out."""


def candidates(config: Config, spec: SearchSpec) -> list[Candidate]:
    """All candidates of a model, largest first.

    Raises:
        UserError: the budget is below the smallest model, leaves nothing to cut, or no size falls between its two ends.
    """
    whole = cost_of(config).parameters
    most, least = int(spec.keep * whole), int(spec.keep * (1 - spec.within) * whole)
    sizes = list(widths_of(config))
    smallest = min(size.parameters(1, size.ffns[0]) for size in sizes)
    if most < smallest:
        raise UserError(
            f"keep: {spec.keep:g} of {whole:,} parameters is {most:,}, and the smallest model that this grid holds has {smallest:,}. "
            f"Keep at least {smallest / whole:.3f}."
        )
    found = [candidate for size in sizes for candidate in size.largest(most, least)]
    if not found:
        raise UserError(
            f"within: no sizes on the grid have between {least:,} and {most:,} parameters. Allow more than {spec.within:g} below the budget."
        )
    return sorted(_undominated(found), key=lambda one: (-one.parameters, tuple(dataclasses.astuple(one.dims))))


def possible(config: Config, spec: SearchSpec, rank: RankSpec, pins: Pins = NO_PINS) -> list[Candidate]:
    """The candidates that can keep all that is protected and pinned, largest first. Needs no scores.

    Raises:
        UserError: see ``candidates``; or none can, and the message says what hinders the one that comes nearest.
    """
    complaints = {candidate: plan_problems(config, candidate.targets, rank, pins) for candidate in candidates(config, spec)}
    if found := [candidate for candidate, told in complaints.items() if not told]:
        return found
    nearest = min(complaints, key=lambda candidate: len(complaints[candidate]))
    told = "\n".join(complaints[nearest])
    if all(other == complaints[nearest] for other in complaints.values()):  # it is not the sizes that are in the way
        raise UserError(told)
    sizes = ", ".join(f"{key}={size}" for key, size in nearest.targets.to_dict().items() if size is not None)
    raise UserError(
        f"None of the {len(complaints)} sizes within keep {spec.keep:g} can hold all that is pinned and protected; of {sizes}: {told} "
        f"Or raise keep."
    )


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Hidden size and heads, for which parameters and FLOPs are exactly ``outer + layers * (fixed + ffn * each)``."""

    source: Dims
    dims: Dims
    ffns: list[int]
    outer_2: np.ndarray
    """Parameters and FLOPs outside the layers."""
    fixed_2: np.ndarray
    """Those of a layer without its neurons."""
    each_2: np.ndarray
    """Those of one neuron of a layer."""

    def parameters(self, layers: int, ffn: int) -> int:
        """Exact count."""
        return int(self.outer_2[0] + layers * (self.fixed_2[0] + ffn * self.each_2[0]))

    def largest(self, most: int, least: int) -> Iterator[Candidate]:
        """For every depth the widest FFN with at most ``most`` parameters, if it has ``least``."""
        for layers in range(1, self.source.layers + 1):
            room = (most - int(self.outer_2[0])) // layers - int(self.fixed_2[0])
            fitting = bisect.bisect_right(self.ffns, room // int(self.each_2[0]))
            if fitting and self.parameters(layers, self.ffns[fitting - 1]) >= least:
                ffn = self.ffns[fitting - 1]
                parameters, flops = self.outer_2 + layers * (self.fixed_2 + ffn * self.each_2)
                dims = dataclasses.replace(self.dims, layers=layers, ffn=ffn)
                yield Candidate(dims=dims, targets=targets_of(self.source, dims), parameters=int(parameters), flops=int(flops))


def widths_of(config: Config) -> Iterator[Widths]:
    """Every combination of heads and hidden size."""
    source = dims_of(config)
    for kv_heads in range(1, source.kv_heads + 1):
        for heads in head_choices(source, kv_heads):
            for hidden in _widths(config, heads):
                dims = dataclasses.replace(source, kv_heads=kv_heads, heads=heads, hidden=hidden)
                one, wider, deeper = (_counts(config, dims, layers, ffn) for layers, ffn in ((1, 1), (1, 2), (2, 1)))
                each_2, layer_2 = wider - one, deeper - one
                yield Widths(
                    source=source, dims=dims, ffns=ffn_choices(source), outer_2=one - layer_2, fixed_2=layer_2 - each_2, each_2=each_2
                )


def _counts(config: Config, dims: Dims, layers: int, ffn: int) -> np.ndarray:
    """Parameters and FLOPs, int64 ``[2]``."""
    cost = cost_of(config, dataclasses.replace(dims, layers=layers, ffn=ffn))
    return np.array([cost.parameters, cost.flops_per_token()], dtype=np.int64)


def _widths(config: Config, heads: int) -> list[int]:
    """Hidden sizes to try with so many heads: fast ones where there are any, and no more than ``MOST_WIDTHS``, the largest among them."""
    *smaller, own = sorted({*hidden_choices(config, heads), dims_of(config).hidden})
    smaller = [size for size in smaller if size % FAST == 0] or smaller
    sizes = [own, *reversed(smaller)] if own in hidden_choices(config, heads) else smaller[::-1]
    return sizes[:: -(-len(sizes) // MOST_WIDTHS)]


def targets_of(source: Dims, dims: Dims) -> Targets:
    """The targets that lead to these dimensions; the model's own sizes are none."""
    changed = {CONFIG_KEYS[name]: getattr(dims, name) for name in VARIED if getattr(dims, name) != getattr(source, name)}
    if "num_key_value_heads" in changed:
        changed["num_attention_heads"] = dims.heads
    return Targets(**changed)


def _undominated(found: list[Candidate]) -> list[Candidate]:
    """Those than which no other is at least as large in every dimension."""
    sizes_NV = np.array([[getattr(one.dims, name) for name in VARIED] for one in found])
    kept = []
    for i, size_V in enumerate(sizes_NV):
        above_N = (sizes_NV >= size_V).all(1) & (sizes_NV > size_V).any(1)
        if not above_N.any():
            kept.append(found[i])
    return kept
