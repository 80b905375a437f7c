"""Units that stay or go by a person's word."""

import re
from dataclasses import dataclass
from typing import Any

from core.specs.spec import Spec

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
