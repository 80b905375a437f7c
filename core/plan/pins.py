"""Pins: units that a person keeps or cuts by hand, whatever their importance. The targets still say how many stay.

Whatever stays or goes with a pinned unit is pinned with it: the layer of a unit that stays, the key-value head of a query head that
stays, and a key-value head of which too few query heads are left.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from core.errors import UserError
from core.model.dims import Dims
from core.specs import Pins, RankSpec

NOUNS = {"layers": "layer", "kv_heads": "key-value head", "heads": "head", "neurons": "neuron", "channels": "channel"}
"""Axis that can be pinned -> what one of its units is called."""
VERBS = {"keep": 1, "prune": -1}
"""What a pin says -> how maps of pins write it; 0 is a unit that nobody pinned."""
LAST = -1e300
"""Importance of what is pinned to go: below every score, above what is gone already."""


def shapes(dims: Dims) -> dict[str, tuple[int, ...]]:
    """Axis -> shape of its units."""
    L = dims.layers
    return {"layers": (L,), "kv_heads": (L, dims.kv_heads), "heads": (L, dims.heads), "neurons": (L, dims.ffn), "channels": (dims.hidden,)}


def pin_map(pins: Pins, dims: Dims, axis: str) -> np.ndarray:
    """Pins of an axis over the uncut model, int8: 1 stays, -1 goes, 0 is free; units that the model does not have are passed over."""
    found = np.zeros(shapes(dims)[axis], np.int8)
    for verb, sign in VERBS.items():
        found[_mask(pins, dims, verb, axis)] = sign
    return found


def pin_maps(pins: Pins, dims: Dims) -> dict[str, np.ndarray]:
    """``pin_map`` of every axis, with the layers that stay for the sake of a unit in them."""
    found = {axis: pin_map(pins, dims, axis) for axis in NOUNS}
    for axis in ("kv_heads", "heads", "neurons"):
        found["layers"][(found[axis] > 0).any(axis=1)] = 1
    return found


def with_pins(pins: Pins, dims: Dims, axis: str, units: Iterable[Sequence[int]], verb: str | None) -> Pins:
    """Pin units, or free them again.

    Args:
        units: their places in the axis' map, ``(layer, number)`` or ``(number,)``.
        verb: ``keep``, ``prune``, or None to free them.
    """
    pinned = pin_map(pins, dims, axis)
    pinned[tuple(np.array(list(units), int).reshape(-1, pinned.ndim).T)] = VERBS.get(verb or "", 0)
    return dataclasses.replace(pins, **{f"{name}_{axis}": written(pinned == sign) for name, sign in VERBS.items()})


def units_of(text: str, dims: Dims, axis: str) -> list[tuple[int, ...]]:
    """The units that a text names in the form of ``Pins``, parted by commas or blanks, as places in the axis' map.

    Raises:
        UserError: a part of it names no unit of the model.
    """
    pins = Pins(**{f"keep_{axis}": tuple(re.split(r"[,\s]+", text.strip(", \t\n")))})
    if found := pins.problems() or list(_outside(pins, dims)):
        raise UserError(found[0].partition(": ")[2].capitalize())
    return [tuple(place) for place in np.argwhere(pin_map(pins, dims, axis)).tolist()]


def written(mask: np.ndarray) -> tuple[str, ...]:
    """The units of a mask in the form of ``Pins``, as few ranges as possible."""
    rows = [("", mask)] if mask.ndim == 1 else [(f"{layer}.", mask[layer]) for layer in np.flatnonzero(mask.any(axis=1))]
    return tuple(prefix + (f"{first}-{last}" if last > first else str(first)) for prefix, row in rows for first, last in _ranges(row))


def _ranges(mask: np.ndarray) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return ((int(first), int(end) - 1) for first, end in edges.reshape(-1, 2))


def _mask(pins: Pins, dims: Dims, verb: str, axis: str) -> np.ndarray:
    mask = np.zeros(shapes(dims)[axis], bool)
    for layer, first, last in pins.units(f"{verb}_{axis}"):
        rows = () if layer is None else (slice(layer, layer + 1),)
        mask[(*rows, slice(first, last + 1))] = True
    return mask


def steered(scores: np.ndarray, pinned: np.ndarray) -> np.ndarray:
    """Scores under which what is pinned to stay comes first and what is pinned to go last; unchanged where nothing is pinned."""
    if not pinned.any():
        return scores
    free = np.where((pinned < 0) & (scores > -np.inf), LAST, scores.astype(np.float64))
    return np.where(pinned > 0, np.inf, free)


def problems(pins: Pins, source: Dims, dims: Dims, rank: RankSpec) -> list[str]:
    """List every pin that ``source`` has no unit for, that contradicts another, or that the sizes ``dims`` do not allow, a sentence each."""
    if found := pins.problems() + list(_outside(pins, source)):
        return found
    keep = {axis: _mask(pins, source, "keep", axis) for axis in NOUNS}
    prune = {axis: _mask(pins, source, "prune", axis) for axis in NOUNS}
    if found := list(_contradictions(keep, prune)):
        return found
    found = list(_layer_problems(keep, prune, source, dims, rank)) + list(_head_problems(keep, prune, source, dims))
    stay_L = ~prune["layers"]
    found += _count_problems("neurons", keep["neurons"] & stay_L[:, None], prune["neurons"] & stay_L[:, None], dims.ffn)
    return found + list(_count_problems("channels", keep["channels"], prune["channels"], dims.hidden))


def _outside(pins: Pins, dims: Dims) -> Iterator[str]:
    """Pins of units that the model does not have."""
    for axis, shape in shapes(dims).items():
        for verb in VERBS:
            items = zip(getattr(pins, f"{verb}_{axis}"), pins.units(f"{verb}_{axis}"), strict=True)
            if wrong := [item for item, (layer, _, last) in items if last >= shape[-1] or (layer or 0) >= dims.layers]:
                where = f" of layers 0 to {dims.layers - 1}" if len(shape) == 2 else ""
                yield f"{verb}_{axis}: the model has no {', '.join(wrong)}; its {NOUNS[axis]}s{where} count from 0 to {shape[-1] - 1}."


def _contradictions(keep: Mapping[str, np.ndarray], prune: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Units that shall both stay and go, by their own pins or by those of the layer or key-value head that they are in."""
    group = keep["heads"].shape[1] // keep["kv_heads"].shape[1]
    for axis, noun in NOUNS.items():
        if (both := keep[axis] & prune[axis]).any():
            yield f"These {noun}s are pinned both to stay and to go: {_few(both)}. Clear one of the pins."
    for axis in ("kv_heads", "heads", "neurons"):
        if (inside := keep[axis] & prune["layers"][:, None]).any():
            yield f"These {NOUNS[axis]}s are pinned to stay, but their layer to go: {_few(inside)}. Clear one of the pins."
    if (inside := keep["heads"] & prune["kv_heads"].repeat(group, axis=1)).any():
        yield f"These heads are pinned to stay, but their key-value head to go: {_few(inside)}. Clear one of the pins."


def _few(mask: np.ndarray) -> str:
    """The units of a mask, the first of them if there are many."""
    items = written(mask)
    return ", ".join(items[:6]) + (f" and {len(items) - 6} more" if len(items) > 6 else "")


def _layer_problems(
    keep: Mapping[str, np.ndarray], prune: Mapping[str, np.ndarray], source: Dims, dims: Dims, rank: RankSpec
) -> Iterator[str]:
    """Too many layers pinned to stay or to go, or one to go that is protected."""
    protected_L = np.zeros(source.layers, bool)
    protected_L[: rank.protect_first] = protected_L[max(source.layers - rank.protect_last, 0) :] = True
    if (both := protected_L & prune["layers"]).any():
        yield f"These layers are pinned to go, but protected at an end of the model: {_few(both)}. Clear the pins, or protect fewer."
        return
    inside_L = np.logical_or.reduce([keep[axis].any(axis=1) for axis in ("kv_heads", "heads", "neurons")])
    stay_L, why = keep["layers"] | inside_L | protected_L, []
    why += ["some for the units pinned in them"] if (inside_L & ~keep["layers"]).any() else []
    why += ["some because they are protected"] if (protected_L & ~keep["layers"] & ~inside_L).any() else []
    if stay_L.sum() > dims.layers and (keep["layers"] | inside_L).any():
        said = f" ({', '.join(why)})" if why else ""
        yield f"{stay_L.sum()} layers are pinned to stay{said}, but the target keeps {dims.layers}: {_few(stay_L)}. Clear some, or keep more layers."
    if prune["layers"].sum() > source.layers - dims.layers:
        yield (
            f"{prune['layers'].sum()} layers are pinned to go, but the target removes {source.layers - dims.layers}: {_few(prune['layers'])}. "
            f"Clear some, or keep at most {source.layers - prune['layers'].sum()} layers."
        )


def _head_problems(keep: Mapping[str, np.ndarray], prune: Mapping[str, np.ndarray], source: Dims, dims: Dims) -> Iterator[str]:
    """Layers, of those that may stay, whose heads cannot be chosen as pinned."""
    here_L, shape = ~prune["layers"], (source.layers, source.kv_heads, source.group)
    kept_LK, left_LK = keep["heads"].reshape(shape).sum(-1), (~prune["heads"]).reshape(shape).sum(-1)
    stay_LK, short_LK = (keep["kv_heads"] | (kept_LK > 0)) & here_L[:, None], (left_LK < dims.group) & here_L[:, None]
    many_LK = (kept_LK > dims.group) & here_L[:, None]
    group = "" if source.group == 1 else f" {dims.group} of {source.group} query heads of each key-value head stay"
    if many_LK.any():
        yield f"Heads: {group}, but more are pinned to stay in {_few(many_LK)} (layer.key-value head). Clear some, or keep more heads."
    if (torn_LK := stay_LK & short_LK & ~many_LK).any():
        yield (
            f"Heads: {group}, but so many are pinned to go that {_few(torn_LK)} (layer.key-value head), pinned to stay, cannot. Clear some pins."
            if source.group > 1
            else f"Heads: {_few(torn_LK)} cannot both stay and go. Clear one of the pins."
        )
    noun = "heads" if source.group == 1 else "kv_heads"
    yield from _count_problems(noun, stay_LK & ~many_LK, (prune["kv_heads"] | short_LK) & here_L[:, None], dims.kv_heads)


def _count_problems(axis: str, keep: np.ndarray, prune: np.ndarray, left: int) -> Iterator[str]:
    """More pins than the number that stays or goes, ``[U]`` or in any layer ``[L, U]``."""
    units, noun = keep.shape[-1], NOUNS[axis]
    for mask, most, said, more in ((keep, left, "stay", "keep more"), (prune, units - left, "go", "keep fewer")):
        many = np.atleast_1d(mask.sum(-1))
        if (over := many > most).any():
            where = f" in layer{'s' if over.sum() > 1 else ''} {_few(over)}" if mask.ndim == 2 else ""
            yield (
                f"Up to {many.max()} {noun}s are pinned to {said}{where}, but {most} of {units} {said}. Clear some, or {more} {noun}s."
                if mask.ndim == 2
                else f"{many[0]} {noun}s are pinned to {said}, but {most} of {units} {said}. Clear some, or {more} {noun}s."
            )
