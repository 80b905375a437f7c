"""What a criterion must beat: its own reverse, and chance."""

from dataclasses import dataclass

import numpy as np

from core.model.dims import Dims
from core.plan.plan import Importance
from core.score.criteria.registry import AXES
from core.specs import RankSpec


@dataclass(frozen=True)
class Reversed:
    """The least important first."""

    scores: Importance

    @property
    def dims(self) -> Dims:
        """Dimensions of the scored model."""
        return self.scores.dims

    def importance(self, axis: str, rank: RankSpec, removed: int = 1) -> np.ndarray:
        """The criterion's values, negated."""
        return -self.scores.importance(axis, rank, removed)


@dataclass(frozen=True)
class Random:
    """Any order, the same for the same seed and axis."""

    dims: Dims
    seed: int

    def importance(self, axis: str, rank: RankSpec, removed: int = 1) -> np.ndarray:
        """Uniform random numbers."""
        sizes = {"layers": self.dims.layers, "channels": self.dims.hidden}
        per_layer = {"heads": self.dims.heads, "neurons": self.dims.ffn}
        shape = (sizes[axis],) if axis in sizes else (self.dims.layers, per_layer[axis])
        return np.random.default_rng([self.seed, AXES.index(axis)]).random(shape)


@dataclass(frozen=True)
class AllEqual:
    """Nobody over anybody."""

    dims: Dims

    def importance(self, axis: str, rank: RankSpec, removed: int = 1) -> np.ndarray:
        """Ones."""
        return np.ones_like(Random(self.dims, 0).importance(axis, rank))
