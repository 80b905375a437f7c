"""Sizes of a family's members: evenly spaced between a model and its smallest member, and whether each can be cut from the one before.

Minitron makes its 4B from its 8B and that from the 15B (arXiv 2407.14679, best practices 1 and 8): a model closer in size is the
better start.
"""

from collections.abc import Sequence

from core.model.dims import CONFIG_KEYS, Config, Dims, dims_of, resized, resized_config
from core.plan.presets import ffn_choices
from core.plan.sizes import hidden_choices, problems
from core.specs import Targets, stage_targets


def between(config: Config, targets: Targets, members: int) -> list[str]:
    """Stages from a model down to ``targets``, each smaller than the one before by about the same part in every dimension that is cut.

    Args:
        members: how many; fewer come out where the sizes lie too close for so many.

    Returns:
        Each as ``--stage`` takes it; the last is ``targets``.
    """
    own = dims_of(config)
    steps = [_sized(config, own, resized(own, targets), part / members) for part in range(1, members)] + [resized(own, targets)]
    kept = [after for before, after in zip([own, *steps], steps, strict=False) if after != before]
    return [_written(before, after) for before, after in zip([own, *kept], kept, strict=False)]


def stage_problems_of(config: Config, stages: Sequence[str]) -> list[str]:
    """What is wrong with the sizes of a family's members, each seen from the one before; empty if nothing is."""
    found: list[str] = []
    for number, stage in enumerate(stages, start=1):
        targets, before = stage_targets(stage), dims_of(config)
        if wrong := problems(config, targets):
            return [*found, *(f"Member {number}: {problem}" for problem in wrong)]
        after = resized(before, targets)
        if after == before:
            found.append(f"Member {number}: {stage} cuts nothing from the model before it. Name smaller sizes, or leave it out.")
        config = resized_config(config, after, list(range(after.layers)))
    return found


def members_of(config: Config, stages: Sequence[str]) -> list[Dims]:
    """Dimensions of every member, in order."""
    found: list[Dims] = []
    for stage in stages:
        found.append(resized(found[-1] if found else dims_of(config), stage_targets(stage)))
    return found


def targets_of(config: Config, stages: Sequence[str]) -> Targets:
    """The last member's sizes, seen from the uncut model."""
    last = members_of(config, stages)[-1]
    return Targets(num_hidden_layers=last.layers, hidden_size=last.hidden, intermediate_size=last.ffn, num_attention_heads=last.heads,
                   num_key_value_heads=last.kv_heads)  # fmt: skip


def _sized(config: Config, own: Dims, last: Dims, part: float) -> Dims:
    """Sizes at a part of the way, as factors: the allowed ones that are nearest."""

    def size(name: str, choices: Sequence[int] | None = None) -> int:
        first, end = getattr(own, name), getattr(last, name)
        wanted, inside = first * (end / first) ** part, [n for n in choices or range(end, first + 1) if end <= n <= first]
        return min([*inside, end, first], key=lambda n: abs(n - wanted))

    kv_heads = size("kv_heads")
    heads = kv_heads * round(own.group * (last.group / own.group) ** part)
    sizes = {"num_hidden_layers": size("layers"), "intermediate_size": size("ffn", ffn_choices(own)), "num_key_value_heads": kv_heads,
             "num_attention_heads": heads, "hidden_size": size("hidden", hidden_choices(config, heads))}  # fmt: skip
    return resized(own, Targets(**sizes))


def _written(before: Dims, after: Dims) -> str:
    """What changes from one member to the next, as ``--stage`` takes it."""
    changed = {key: getattr(after, name) for name, key in CONFIG_KEYS.items() if getattr(after, name) != getattr(before, name)}
    return ",".join(f"{key}={size}" for key, size in changed.items())
