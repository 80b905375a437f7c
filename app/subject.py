"""What the importance page looks at: draft, card and scores together, and what follows from them for an axis."""

from dataclasses import dataclass

import numpy as np

from app import cached
from app.state import Draft
from core.errors import UserError
from core.model.card import Card
from core.model.dims import resized
from core.plan.pins import pin_map
from core.score.confidence import Confidence
from core.score.criteria import Criterion, criteria_of
from core.score.store import Scores


@dataclass(frozen=True)
class Subject:
    """What a view looks at."""

    draft: Draft
    card: Card
    scores: Scores
    masks: dict[str, np.ndarray]
    """Axis -> what the draft keeps, see ``core.plan.plan.keep_masks``; all True if it cannot be carried out."""
    complaint: str
    """Why it cannot; empty if it can."""

    @property
    def removed(self) -> int:
        """Layers that the draft removes."""
        return max(self.card.dims.layers - resized(self.card.dims, self.draft.targets).layers, 0)

    def criterion(self, axis: str) -> Criterion | None:
        """The criterion by which the draft ranks an axis; None if there is none of that name."""
        return criteria_of(axis).get(self.draft.rank.criterion(axis))

    def kept_count(self, axis: str) -> int:
        """Units that the draft keeps, of every layer that stays where layers have units of their own."""
        mask = self.masks[axis]
        return int(mask.sum() if mask.ndim == 1 else mask.sum(axis=1).max())

    def importance(self, axis: str) -> np.ndarray:
        """Importance under the draft's ranking, see ``Scores.importance``.

        Raises:
            UserError: the criterion does not exist, or was not measured.
        """
        return cached.importance(self.scores, axis, self.draft.rank, self.removed)

    def pinned(self, axis: str) -> np.ndarray:
        """What the draft pins, int8 over the uncut model: 1 stays, -1 goes, 0 is free."""
        return pin_map(self.draft.pins, self.card.dims, axis)

    def units(self, axis: str) -> int:
        """Units among which the draft chooses: those of the layers that stay, where layers have units of their own."""
        mask = self.masks[axis]
        return mask.size if mask.ndim == 1 else mask.shape[1] * int(self.masks["layers"].sum())

    def confidence(self, axis: str, name: str | None = None) -> Confidence | None:
        """How sure a ranking is, the draft's or that by another criterion; None where that cannot be told."""
        rank = self.draft.rank if name is None else self.draft.rank.by(axis, name)
        return cached.confidence(self.scores, axis, rank, self.removed)

    def undecided(self, axis: str, name: str | None = None) -> np.ndarray | None:
        """Units that might as well be on the other side of the cut, in rows; none in removed layers. None where that cannot be told."""
        if axis == "heads":
            undecided_RU = self._undecided_heads(name)
        else:
            found = self.confidence(axis, name)
            undecided_RU = None if found is None else found.undecided(self.kept_count(axis))
        if undecided_RU is None:
            return None
        return undecided_RU & self.masks["layers"][:, None] if self.masks[axis].ndim == 2 else undecided_RU

    def _undecided_heads(self, name: str | None) -> np.ndarray | None:
        """Heads are cut by key-value groups."""
        rank, source = self.draft.rank if name is None else self.draft.rank.by("heads", name), self.card.dims
        kept = source if self.complaint else resized(source, self.draft.targets)
        return cached.undecided_heads(self.scores, rank, source.kv_heads, kept.kv_heads, kept.group)

    def ranks(self, axis: str) -> dict[str, np.ndarray]:
        """Ranks ``[rows, units]`` under every criterion that can be answered."""
        return cached.all_ranks(self.scores, axis, self.draft.rank, self.removed)


def subject_of(draft: Draft, card: Card, scores: Scores) -> Subject:
    """Bring draft, scores and what is kept together."""
    try:
        return Subject(draft, card, scores, cached.masks(scores, draft), "")
    except UserError as error:
        dims = card.dims
        shapes = {
            "layers": (dims.layers,), "channels": (dims.hidden,), "heads": (dims.layers, dims.heads), "neurons": (dims.layers, dims.ffn),
        }  # fmt: skip
        return Subject(draft, card, scores, {name: np.ones(shape, bool) for name, shape in shapes.items()}, str(error))
