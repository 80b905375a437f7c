"""Token blocks on their way through a model: which tokens belong together, which count, and what a loss predicts.

Packed blocks hold several documents. Transformers keeps them apart if the positions start again with each and no mask is passed
(``masking_utils.find_packed_sequence_indices``): attention then stays inside a document, in every layer of whatever kind, for any
number of blocks. Padding is a document too, one that does not count; so it needs no mask either, on whichever side it stands.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.model.head import body

PADDING = -1
"""Number of the document that padding belongs to."""


@dataclass(frozen=True)
class Batch:
    """Some token blocks."""

    ids_BT: Tensor
    documents_BT: Tensor | None = None
    """Number of the document of each token, ``PADDING`` where it does not count; neighbours of the same number belong together. None if every block is
    one document, or shall be read as one."""

    def states(self, model: PreTrainedModel) -> Tensor:
        """Final hidden states ``[B, T, D]`` of the model's body, final norm applied; what hooks see on the way is what is wanted mostly."""
        return body(model)(self.ids_BT, position_ids=self.positions, use_cache=False).last_hidden_state

    @cached_property
    def positions(self) -> Tensor | None:
        """``[B, T]``, place of each token in its document, from 0; None for the usual ones."""
        if self.documents_BT is None:
            return None
        places_T = torch.arange(self.ids_BT.shape[1], device=self.ids_BT.device)
        starts_BT = torch.where(self.follows, 0, places_T[1:]).cummax(1).values
        return places_T - torch.nn.functional.pad(starts_BT, (1, 0))

    @cached_property
    def follows(self) -> Tensor:
        """``[B, T - 1]``, True where a token and the next are of the same document."""
        if self.documents_BT is None:
            return torch.ones_like(self.ids_BT[:, 1:], dtype=torch.bool)
        return self.documents_BT[:, 1:] == self.documents_BT[:, :-1]

    @cached_property
    def counts(self) -> Tensor | None:
        """``[B, T]``, False for padding; None if there is none."""
        if self.documents_BT is None or bool((self.documents_BT != PADDING).all()):
            return None
        return self.documents_BT != PADDING

    @cached_property
    def predicts(self) -> Tensor:
        """``[B, T - 1]``, True for tokens whose next one a loss looks at: one that counts, of the same document."""
        return self.follows if self.counts is None else self.follows & self.counts[:, 1:]

    @property
    def tokens(self) -> int:
        """Tokens that count."""
        return self.ids_BT.numel() if self.counts is None else int(self.counts.sum())

    def drawn(self, share: float) -> Tensor:
        """``[B, T]``, True for a random part of every block's tokens that count: the same for the same block, whatever it is batched with."""
        counts_BT = torch.ones_like(self.ids_BT, dtype=torch.bool) if self.counts is None else self.counts
        found_BT = torch.zeros_like(counts_BT)
        for ids_T, counts_T, found_T in zip(self.ids_BT, counts_BT, found_BT, strict=True):
            places_N = counts_T.nonzero().flatten()
            found_T[places_N[drawn(len(places_N), share, seed=int(ids_T.sum())).to(places_N.device)]] = True
        return found_BT

    def counting(self, values_BTC: Tensor) -> Tensor:
        """Those of the tokens that count, ``[N, C]``."""
        return values_BTC.flatten(0, 1) if self.counts is None else values_BTC[self.counts]


class Reader(Protocol):
    """Whoever takes in what runs through a model."""

    def hooks(self, model: PreTrainedModel, batch: Batch) -> AbstractContextManager[None]:
        """Take in what runs through the model, which is to be ``batch``, while the block lasts."""

    def ran(self, batch: Batch) -> None:
        """Called once the whole batch has run through."""


def read(model: PreTrainedModel, batch: Batch, readers: Iterable[Reader]) -> None:
    """Run a model's body over a batch once, with all readers hung in.

    Raises:
        UserError: an activation is not finite.
    """
    readers = list(readers)
    with ExitStack() as hung, torch.no_grad():
        for reader in readers:
            hung.enter_context(reader.hooks(model, batch))
        batch.states(model)
    for reader in readers:
        reader.ran(batch)


def drawn(count: int, share: float, seed: int) -> Tensor:
    """Places of a random part of ``count`` tokens, at least two, in ascending order: the same for the same seed, all of them for a share of 1."""
    some = min(count, max(2, round(share * count)))
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:some].sort().values
