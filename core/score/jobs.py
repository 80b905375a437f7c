"""How every pass is computed: the units it is made of, about what they cost, and the function that measures one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from core.errors import UserError
from core.model.dims import Dims, dims_of
from core.score.batch import Batch, Reader, read
from core.score.covariances import CovarianceAccumulator, covariance_scores
from core.score.depth import Damage, Remover, greedy_removal
from core.score.gradients import gradient_sums
from core.score.passes import PASSES
from core.score.shelf import Arrays, Shelf
from core.score.weights import weight_norms
from core.score.width import SITES, WidthAccumulator
from core.specs import ScoreSpec

Tick = Callable[..., None]
"""Called after each forward pass's worth of work, with figures worth telling; it is where a stop is heard."""


@dataclass(frozen=True)
class Task:
    """A model, the text to score it on, and how."""

    model: PreTrainedModel
    blocks_NT: np.ndarray
    spec: ScoreSpec
    shelf: Shelf
    documents_NT: np.ndarray | None = None
    """Which document each token belongs to (``core.data.pack.Packed``); None if every block is one."""

    @property
    def config(self) -> dict[str, Any]:
        """The model's config."""
        return self.model.config.to_dict()

    @property
    def dims(self) -> Dims:
        """The model's dimensions."""
        return dims_of(self.config)

    def shard(self, number: int, limit: int | None = None) -> range:
        """Places of the blocks of one shard; ``limit`` bounds the blocks that are dealt out."""
        return range(len(self.blocks_NT))[:limit][number :: self.spec.shards]

    def judged(self) -> range:
        """Places of the blocks on which losses are measured."""
        return range(len(self.blocks_NT))[: self.spec.ppl_blocks]

    def batches(self, places: range) -> Iterator[Batch]:
        """The blocks at these places on the model's device, a few at a time."""
        for start in range(0, len(places), self.spec.batch_size):
            some = places[start : start + self.spec.batch_size]
            isolated = self.documents_NT if self.spec.isolate_documents else None
            yield Batch(self._tensor(self.blocks_NT, some), None if isolated is None else self._tensor(isolated, some))

    def _tensor(self, rows_NT: np.ndarray, places: range) -> torch.Tensor:
        return torch.from_numpy(np.asarray(rows_NT[places.start : places.stop : places.step], dtype=np.int64)).to(self.model.device)


@dataclass(frozen=True, kw_only=True)
class Job:
    """How a pass is computed."""

    units: Callable[[Task], int]
    """Number of independent parts."""
    ticks: Callable[[Task], int]
    """Forward passes of one unit, about; for the progress bar."""
    compute: Callable[[Task, int, Tick], Arrays]
    stacked: bool = True
    """Whether the units' results are stacked along a first axis; else there is one unit, whose result is the pass's."""

    def measure(self, task: Task, unit: int, tick: Tick) -> Arrays:
        """Compute one unit.

        Raises:
            UserError: it holds NaN or infinity, which would make a ranking that looks like one; the message names the array and the place.
        """
        return checked(self.compute(task, unit, tick))

    def join(self, parts: list[Arrays]) -> Arrays:
        """The pass's result from its units'."""
        return {name: np.stack([part[name] for part in parts]) for name in parts[0]} if self.stacked else parts[0]


def checked(arrays: Arrays) -> Arrays:
    """Return what was found.

    Raises:
        UserError: it holds NaN or infinity; the message names the array and the place.
    """
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise UserError(
                f"{name} is not finite at {place} of {values.shape}, so nothing can be ranked by it. Load the model in float32, or check its weights."
            )
    return arrays


SEEN = {"activations": SITES, "pre_activations": ("gates",)}
"""Passes that take statistics of activations, a shard a unit -> the sites that they look at."""


def _read_shard(task: Task, name: str, shard: int, reader: Reader, tick: Tick, forwards: int = 1) -> None:
    """Run the model over a shard once, for a pass' reader and for what the pass brings along.

    Args:
        forwards: what a block of it costs, about.
    """
    along = {other: WidthAccumulator(task.config, SEEN[other]) for other in PASSES[name].brings if task.shelf.lacks(other, shard)}
    for batch in task.batches(task.shard(shard)):
        read(task.model, batch, [reader, *along.values()])
        tick(forwards * len(batch.ids_BT))
    for other, accumulator in along.items():
        task.shelf.put(other, shard, checked(accumulator.arrays()))


def _weights(task: Task, _: int, tick: Tick) -> Arrays:
    return weight_norms(task.model, task.config)


def _activations(name: str) -> Callable[[Task, int, Tick], Arrays]:
    def compute(task: Task, shard: int, tick: Tick) -> Arrays:
        accumulator = WidthAccumulator(task.config, SEEN[name])
        _read_shard(task, name, shard, accumulator, tick)
        return accumulator.arrays()

    return compute


def _gradients(task: Task, shard: int, tick: Tick) -> Arrays:
    def batches() -> Iterator[Batch]:
        for batch in task.batches(task.shard(shard, task.spec.gradient_blocks)):
            yield batch
            tick(3 * len(batch.ids_BT))

    return gradient_sums(task.model, task.config, batches())


def _covariances(task: Task, _: int, tick: Tick) -> Arrays:
    accumulator = CovarianceAccumulator(task.model, task.config, task.spec.covariance_tokens)
    for shard in range(task.spec.shards):
        _read_shard(task, "covariances", shard, accumulator, tick, forwards=2)
    return covariance_scores(accumulator, task.model, task.spec.ridge)


def _removal(task: Task, block: int, tick: Tick) -> Arrays:
    remover = _remover(task, block)
    damages = [remover.whole]
    for layer in range(task.dims.layers):
        damages.append(remover.without(layer))
        tick(layer=layer, loss=damages[-1].loss)
    losses, kl = np.array([damage.loss for damage in damages]), np.array([damage.kl for damage in damages[1:]])
    found = {"losses": losses, "kl": kl, "angles": remover.angles().numpy()}
    return found | _errors(task, "loss_errors", damages[1:]) | _errors(task, "kl_errors", damages[1:])


def _errors(task: Task, name: str, damages: list[Damage]) -> Arrays:
    """The standard errors of losses that were judged on some tokens; nothing where they were judged on all."""
    attribute = name.partition(".")[0].removesuffix("s")
    return {name: np.array([getattr(damage, attribute) for damage in damages])} if task.spec.loss_tokens < 1 else {}


def _windows(task: Task, block: int, tick: Tick) -> Arrays:
    remover, found = _remover(task, block), {"lengths": np.array(task.spec.windows)}
    for length in task.spec.windows:
        damages = [remover.whole]
        for start in range(task.dims.layers - length + 1):
            damages.append(remover.without(start, length))
            tick(length=length, layer=start, loss=damages[-1].loss)
        found[f"losses.{length}"] = np.array([damage.loss for damage in damages])
        found |= _errors(task, f"loss_errors.{length}", damages[1:])
    return found


def _greedy(task: Task, _: int, tick: Tick) -> Arrays:
    removers = [_remover(task, block) for block in range(len(task.judged()))]
    start = sum(remover.whole.loss for remover in removers) / len(removers)
    removed = []
    told = lambda layer, loss: tick(len(removers), layer=layer, loss=loss)  # noqa: E731
    for layer, loss in greedy_removal(removers, told, lazy=task.spec.greedy_lazy):
        removed.append((layer, loss))
        if len(removed) == task.spec.greedy:
            break
    return {"order": np.array([layer for layer, _ in removed]), "losses": np.array([start, *(loss for _, loss in removed)])}


def _remover(task: Task, block: int) -> Remover:
    return Remover(task.model, task.config, next(task.batches(task.judged()[block : block + 1])), task.spec.loss_tokens)


def _one(_: Task) -> int:
    return 1


def _shards(task: Task) -> int:
    return task.spec.shards


def _judged(task: Task) -> int:
    return len(task.judged())


def _blocks_a_shard(task: Task) -> int:
    return -(-len(task.blocks_NT) // task.spec.shards)


JOBS = {
    "weights": Job(units=_one, ticks=lambda task: 1, compute=_weights, stacked=False),
    "covariances": Job(units=_one, ticks=lambda task: 2 * len(task.blocks_NT), compute=_covariances, stacked=False),
    "activations": Job(units=_shards, ticks=_blocks_a_shard, compute=_activations("activations")),
    "pre_activations": Job(units=_shards, ticks=_blocks_a_shard, compute=_activations("pre_activations")),
    "gradients": Job(units=_shards, ticks=lambda task: 3 * len(task.shard(0, task.spec.gradient_blocks)), compute=_gradients),
    "removal": Job(units=_judged, ticks=lambda task: task.dims.layers, compute=_removal),
    "windows": Job(units=_judged, ticks=lambda task: sum(max(task.dims.layers - n + 1, 0) for n in task.spec.windows), compute=_windows),
    "greedy": Job(
        units=_one,
        ticks=lambda task: len(task.judged()) * sum(task.dims.layers - i for i in range(min(task.spec.greedy, task.dims.layers - 1))),
        compute=_greedy,
        stacked=False,
    ),
}
"""Pass -> how it is computed."""
