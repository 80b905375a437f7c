"""Ready-made targets for a given model: each is found by counting its parameters, none is a fixed number.

Width is cut in steps of 64 where the model is wide enough, because matrices of such sizes run fastest.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from core.model.cost import cost_of
from core.model.dims import Config, Dims, dims_of, resized
from core.plan.sizes import hidden_choices
from core.specs import Targets

STEP = 64


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Targets with a name and a reason."""

    name: str
    why: str
    targets: Targets


def presets(config: Config) -> tuple[Preset, ...]:
    """The presets that this model allows: the largest model of each shape that is at most as big as the name says."""
    rows = (
        ("25 % by FFN", "Narrower MLPs; depth and attention stay whole. The gentlest cut for most models.", 0.75, _by_ffn),
        ("25 % by depth", "Fewer layers, each whole. Saves the most time.", 0.75, _by_depth),
        ("25 % balanced", "Layers and FFN shrink in the same proportion.", 0.75, _balanced),
        ("25 % by width", "FFN and embedding channels shrink in the same proportion; all layers stay.", 0.75, _by_width),
        ("50 % balanced", "Half the model: layers and FFN in the same proportion. Needs retraining.", 0.5, _balanced),
    )
    found = ((name, why, _largest(config, part, shapes)) for name, why, part, shapes in rows)
    return tuple(Preset(name=name, why=why, targets=targets) for name, why, targets in found if targets is not None)


def ffn_choices(dims: Dims, step: int = STEP) -> list[int]:
    """FFN sizes in multiples of ``step``, ascending, with the model's own size as the last; all sizes if the model is narrow."""
    step = step if dims.ffn >= 4 * step else 1
    return [*range(step, dims.ffn, step), dims.ffn]


def _largest(config: Config, part: float, shapes: Callable[[Config], Iterator[Targets]]) -> Targets | None:
    """The first of the shapes, from large to small, that has at most ``part`` of the model's parameters."""
    dims = dims_of(config)
    most = part * cost_of(config).parameters
    return next((targets for targets in shapes(config) if cost_of(config, resized(dims, targets)).parameters <= most), None)


def _by_ffn(config: Config) -> Iterator[Targets]:
    yield from (Targets(intermediate_size=size) for size in reversed(ffn_choices(dims_of(config))))


def _by_depth(config: Config) -> Iterator[Targets]:
    yield from (Targets(num_hidden_layers=n) for n in range(dims_of(config).layers, 0, -1))


def _balanced(config: Config) -> Iterator[Targets]:
    dims = dims_of(config)
    for n in range(dims.layers, 0, -1):
        yield Targets(num_hidden_layers=n, intermediate_size=_nearest(ffn_choices(dims), dims.ffn * n / dims.layers))


def _by_width(config: Config) -> Iterator[Targets]:
    dims = dims_of(config)
    for hidden in reversed(hidden_choices(config, dims.heads)):
        yield Targets(hidden_size=hidden, intermediate_size=_nearest(ffn_choices(dims), dims.ffn * hidden / dims.hidden))


def _nearest(choices: list[int], wanted: float) -> int:
    return min(choices, key=lambda size: abs(size - wanted))
