"""A plan: which units of a model are kept. Made from stored scores by sorting; costs no model call.

Ranks are taken inside each layer for heads and neurons, network-wide for embedding channels and layers. With grouped-query
attention the kept heads stay rectangular: every kept key-value head keeps the same number of its own query heads.
"""

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from core.errors import UserError
from core.files import content_hash, read_arrays, replacing
from core.model.dims import Config, Dims, dims_of, resized
from core.plan import pins as pinning
from core.plan.pins import pin_maps, steered
from core.plan.sizes import problems
from core.specs import NO_PINS, Pins, RankSpec, Targets


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is kept of one model. All indices are the uncut model's, ascending."""

    targets: Targets
    rank: RankSpec
    source: Dims
    """Dimensions of the uncut model."""
    layers: np.ndarray
    """``[L']``"""
    kv_heads: np.ndarray
    """``[L', K']``, a row for each kept layer."""
    heads: np.ndarray
    """``[L', H']``"""
    neurons: np.ndarray
    """``[L', F']``"""
    channels: np.ndarray
    """``[D']``, one set for the whole network."""
    pins: Pins = NO_PINS
    """What was pinned by hand."""
    partners: np.ndarray | None = None
    """``[L', H']``, see ``partners_of``; None without the head residual."""

    @cached_property
    def dims(self) -> Dims:
        """Dimensions after the cut."""
        return resized(self.source, self.targets)

    @property
    def identity(self) -> str:
        """A name made from what is kept, whatever led there."""
        return content_hash({name: values.tolist() for name, values in self._arrays().items()})

    def _arrays(self) -> dict[str, Any]:
        return {name: values for name in (*INDICES, "partners") if (values := getattr(self, name)) is not None}

    def save(self, path: Path) -> None:
        """Write the plan as one ``.npz`` file."""
        meta = {name: getattr(self, name).to_dict() for name in ("targets", "rank", "pins")} | {"source": dataclasses.asdict(self.source)}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, meta=np.array(json.dumps(meta)), **self._arrays())

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read a plan.

        Raises:
            UserError: there is none, or the file is damaged.
        """
        arrays = read_arrays(path, "Make the plan again.")
        meta = json.loads(str(arrays.pop("meta")))
        return cls(
            targets=Targets.from_dict(meta["targets"]), rank=RankSpec.from_dict(meta["rank"]), pins=Pins.from_dict(meta.get("pins", {})),
            source=Dims(**meta["source"]), **arrays,
        )  # fmt: skip


INDICES = ("layers", "kv_heads", "heads", "neurons", "channels")


class Importance(Protocol):
    """What a plan is made from; ``core.score.store.Scores`` is one."""

    @property
    def dims(self) -> Dims:
        """Dimensions of the scored model."""

    def importance(self, axis: str, rank: RankSpec, removed: int = 1) -> np.ndarray:
        """Importance of an axis' units; see ``Scores.importance``."""


def make_plan(scores: Importance, config: Config, targets: Targets, rank: RankSpec, pins: Pins = NO_PINS) -> Plan:
    """Keep the most important units of a scored model, as many as ``targets`` say, and of these what ``pins`` say in any case.

    Raises:
        UserError: targets or pins cannot be met, the message says which and what is nearest; or ``rank`` asks for what was not measured.
    """
    check_plan(config, targets, rank, pins)
    source = dims_of(config)
    if source != scores.dims:
        raise UserError("The scores belong to a model of other dimensions. Score this model first.")
    return keep_best(scores, source, targets, rank, pins)


def check_plan(config: Config, targets: Targets, rank: RankSpec, pins: Pins = NO_PINS) -> None:
    """Refuse what no scores could make possible.

    Raises:
        UserError: see ``plan_problems``.
    """
    if found := plan_problems(config, targets, rank, pins):
        raise UserError("\n".join(found))


def plan_problems(config: Config, targets: Targets, rank: RankSpec, pins: Pins = NO_PINS) -> list[str]:
    """List why no scores could make such a plan possible, a sentence each: sizes, protected layers, pins."""
    if found := targets.problems() + rank.problems() + problems(config, targets):
        return found
    source, dims = dims_of(config), resized(dims_of(config), targets)
    if rank.head_residual and rank.rounds > 1:
        return [f"The head residual (rank.head_residual) needs a cut in one round, got rank.rounds {rank.rounds}. Leave one of them out."]
    if rank.protect_first + rank.protect_last > dims.layers:
        return [
            f"{rank.protect_first} layers at the start and {rank.protect_last} at the end are protected, more than the {dims.layers} that stay. "
            f"Protect fewer, or keep more layers."
        ]
    return pinning.problems(pins, source, dims, rank)


def keep_best(scores: Importance, source: Dims, targets: Targets, rank: RankSpec, pins: Pins = NO_PINS) -> Plan:
    """``make_plan`` without its questions: sizes between two rounds of cutting need not be ones that can be loaded."""
    dims, pinned = resized(source, targets), pin_maps(pins, source)

    def worth(axis: str, removed: int = 1) -> np.ndarray:
        return steered(scores.importance(axis, rank, removed), pinned[axis])

    layers = top(worth("layers", source.layers - dims.layers), dims.layers)
    heads, kv_heads = top_heads(worth("heads")[layers], source, dims, pinned["kv_heads"][layers])
    partners = partners_of(worth("heads")[layers], heads, source, dims) if rank.head_residual else None
    return Plan(
        targets=targets, rank=rank, pins=pins, source=source, layers=layers, heads=heads, kv_heads=kv_heads, partners=partners,
        neurons=top(worth("neurons")[layers], dims.ffn), channels=top(worth("channels"), dims.hidden),
    )  # fmt: skip


def top(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` highest along the last axis, ascending; of equals the first wins. Parts, and sorts nothing."""
    least = scores.shape[-1] - count
    bound = np.partition(scores, least, axis=-1)[..., least : least + 1]
    above, equal = scores > bound, scores == bound
    places = count - above.sum(axis=-1, keepdims=True)
    kept = above | (equal & (equal.cumsum(axis=-1) <= places))
    return np.nonzero(kept)[-1].reshape(*scores.shape[:-1], count)


def top_heads(scores_LH: np.ndarray, source: Dims, dims: Dims, pinned_LK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kept query heads ``[L, H']`` and key-value heads ``[L, K']``: the best of each group, then the groups whose best sum highest."""
    grouped_LKG = scores_LH.reshape(len(scores_LH), source.kv_heads, source.group)
    best_LKG = top(grouped_LKG, dims.group)
    strength_LK = np.take_along_axis(grouped_LKG, best_LKG, axis=-1).sum(-1)
    kv_LK = top(steered(strength_LK, pinned_LK), dims.kv_heads)
    kept_LKG = np.take_along_axis(best_LKG, kv_LK[..., None], axis=1) + kv_LK[..., None] * source.group
    return kept_LKG.reshape(len(scores_LH), dims.heads), kv_LK


def partners_of(scores_LH: np.ndarray, heads_LK: np.ndarray, source: Dims, dims: Dims) -> np.ndarray:
    """The removed head whose difference each kept query head takes in, ``[L', H']``; -1 where there is none (Minitron, 2407.14679, section 2.2).

    Of G ranked heads of which K stay, the one ranked i takes in ``head_i - head_j`` with j = 2K - i + 1, for i from 2K - G + 1 to K (the
    paper prints K - (G - K), for which there is no j). G and K count the heads of a kept group, or of a layer where every head is its own group.
    """
    pool, kept = (source.heads, dims.heads) if source.group == 1 else (source.group, dims.group)
    partners_LK = np.full(heads_LK.shape, -1)
    for layer, heads in enumerate(heads_LK):
        for start in sorted({int(head) // pool * pool for head in heads}):
            own = [int(head) for head in heads if start <= head < start + pool]
            ranked = sorted(range(start, start + pool), key=lambda head: (head not in own, -scores_LH[layer, head], head))
            for i in range(max(2 * kept - pool, 0), kept):
                partners_LK[layer, heads.tolist().index(ranked[i])] = ranked[2 * kept - i - 1]
    return partners_LK


def keep_masks(plan: Plan) -> dict[str, np.ndarray]:
    """The plan as booleans over the uncut model, for pictures: layers ``[L]``, heads ``[L, H]``, neurons ``[L, F]``, channels ``[D]``.

    Units of a removed layer count as removed.
    """
    source = plan.source
    masks = {"layers": np.zeros(source.layers, bool), "channels": np.zeros(source.hidden, bool)}
    masks |= {"heads": np.zeros((source.layers, source.heads), bool), "neurons": np.zeros((source.layers, source.ffn), bool)}
    masks["layers"][plan.layers] = True
    masks["channels"][plan.channels] = True
    for name in ("heads", "neurons"):
        masks[name][plan.layers[:, None], getattr(plan, name)] = True
    return masks
