"""What every cut of a scored model would keep, for pages that ask for a hundred cuts at once: sorted once, summed up once."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from core.model.dims import Dims
from core.plan.pins import pin_maps, steered
from core.plan.plan import Importance, top_heads
from core.specs import Pins, RankSpec


@dataclass(frozen=True, kw_only=True)
class View:
    """What one cut keeps; see ``core.plan.plan.keep_masks``."""

    layers_L: np.ndarray
    heads_LH: np.ndarray
    share: dict[str, float]
    """Axis -> part of the summed importance that stays."""


class Outlook:
    """All cuts under one ranking. The same as a plan of each, but no unit is chosen that only a sum is asked of."""

    def __init__(self, scores: Importance, rank: RankSpec, pins: Pins) -> None:
        self.scores, self.rank, self.source = scores, rank, scores.dims
        self.pinned = pin_maps(pins, scores.dims)

    def view(self, dims: Dims) -> View:
        """What a cut to ``dims`` keeps; they must be possible, see ``core.plan.plan.plan_problems``.

        Raises:
            UserError: the ranking's criterion was not measured.
        """
        layers, total_L = self._layers(self.source.layers - dims.layers)
        kept = np.sort(layers[: dims.layers])
        heads, _ = top_heads(self.ranked_heads[kept], self.source, dims, self.pinned["kv_heads"][kept])
        layers_L, heads_LH = np.zeros(self.source.layers, bool), np.zeros((self.source.layers, self.source.heads), bool)
        layers_L[kept], heads_LH[kept[:, None], heads] = True, True
        worth_LH = self._worth("heads")
        sums = {
            "layers": (total_L[kept].sum(), total_L.sum()), "heads": (worth_LH[heads_LH].sum(), worth_LH.sum()),
            "neurons": (self.neuron_sums[kept, dims.ffn - 1].sum(), self.neuron_sums[:, -1].sum()),
            "channels": (self.channel_sums[dims.hidden - 1], self.channel_sums[-1]),
        }  # fmt: skip
        return View(
            layers_L=layers_L, heads_LH=heads_LH, share={axis: float(part / all_) if all_ else 1.0 for axis, (part, all_) in sums.items()}
        )

    def _layers(self, removed: int) -> tuple[np.ndarray, np.ndarray]:
        """Layers from the best to the worst, and what each is worth."""
        bare = dataclasses.replace(self.rank, protect_first=0, protect_last=0)
        order = steered(self.scores.importance("layers", self.rank, removed), self.pinned["layers"])
        return np.argsort(-order, kind="stable"), np.clip(self.scores.importance("layers", bare, removed), 0, None)

    @cached_property
    def ranked_heads(self) -> np.ndarray:
        """``[L, H]``: what heads are chosen by."""
        return steered(self.scores.importance("heads", self.rank), self.pinned["heads"])

    @cached_property
    def neuron_sums(self) -> np.ndarray:
        """``[L, F]``: what the best so many neurons of a layer are worth together."""
        return self._summed("neurons")

    @cached_property
    def channel_sums(self) -> np.ndarray:
        """``[D]``: the same of channels."""
        return self._summed("channels")

    def _worth(self, axis: str) -> np.ndarray:
        return np.clip(self.scores.importance(axis, self.rank), 0, None)

    def _summed(self, axis: str) -> np.ndarray:
        """At each place: what the best so many units are worth together."""
        order = np.argsort(-steered(self.scores.importance(axis, self.rank), self.pinned[axis]), axis=-1, kind="stable")
        return np.take_along_axis(self._worth(axis), order, axis=-1).cumsum(axis=-1, dtype=np.float64)
