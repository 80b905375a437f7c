"""The teacher: final hidden states of training blocks and the head that turns them into logits; it remembers them if told to."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.distill.cache import StateCache, cache_key
from core.distill.sharding import shard_body
from core.model.checkpoint import load_model
from core.model.head import head_weight, hidden_states
from core.model.source import fingerprint
from core.progress import Progress


class Teacher:
    """A frozen model, asked for its final hidden states; without its body if everything it will be asked is in ``cache``."""

    def __init__(self, model: PreTrainedModel, cache: StateCache | None = None, blocks: Iterable[int] = ()) -> None:
        """Take a loaded model.

        Args:
            model: the teacher.
            cache: where its states are kept and looked up.
            blocks: which blocks it will be asked for.
        """
        self.config = model.config
        self.cache = cache
        self._there_N = cache.there if cache else np.zeros(0, dtype=bool)
        complete = cache is not None and bool(self._there_N[list(blocks)].all())
        self.head_VE = head_weight(model).detach()
        self.model = None if complete else model.eval().requires_grad_(False)

    def states(self, tokens_BT: Tensor, blocks_B: Tensor) -> Tensor:
        """Final hidden states ``[B, T, E]`` of blocks of these tokens and numbers."""
        if self.cache is None:
            return self._ask(tokens_BT)
        blocks = blocks_B.tolist()
        place = {block: i for i, block in enumerate(blocks) if not self._there_N[block]}  # a batch between two epochs may hold one twice
        found = {}
        if place:
            asked_BTE = self._ask(tokens_BT[list(place.values())]).to(getattr(torch, self.cache.number_format))
            found = dict(zip(place, asked_BTE, strict=True))
        for block, states_TE in found.items():
            self.cache.write(block, _to_numpy(states_TE))
            self._there_N[block] = True
        return torch.stack([found[block] if block in found else self._recall(block) for block in blocks])

    @torch.no_grad()
    def _ask(self, tokens_BT: Tensor) -> Tensor:
        assert self.model is not None, "a teacher without a body was asked for a block that it does not remember"
        return hidden_states(self.model, tokens_BT)

    def _recall(self, block: int) -> Tensor:
        assert self.cache is not None
        stored_TE = torch.from_numpy(self.cache.read(block))
        return (stored_TE.view(torch.bfloat16) if self.cache.number_format == "bfloat16" else stored_TE).to(self.head_VE.device)


def load_teacher(
    folder: Path, device: torch.device, number_format: str, blocks_NT: np.ndarray, asked: np.ndarray, computed: str, progress: Progress,
    *, sharded: bool = False,
) -> Teacher:  # fmt: skip
    """Load a teacher that will be asked for the blocks ``asked`` of ``blocks_NT``.

    Args:
        folder: its checkpoint.
        device: where it computes.
        number_format: in which its states are kept: ``off``, ``float32`` or ``bfloat16``.
        blocks_NT: the training blocks.
        asked: which of them.
        computed: the format that it computes in.
        progress: is told what is there already.
        sharded: whether the processes share its body; then all of them ask at the same time, which stored states would break.

    Raises:
        UserError: the disk cannot hold the states.
    """
    model = load_model(folder, torch.device("cpu") if sharded else device)
    if sharded:
        assert number_format == "off", "states of a sharded teacher cannot be stored"
        shard_body(model.requires_grad_(False), device)
    if number_format == "off":
        return Teacher(model)
    shape = (*blocks_NT.shape, head_weight(model).shape[1])
    cache = StateCache.open(cache_key(fingerprint(folder), blocks_NT, number_format, computed), shape, number_format, progress)
    blocks = np.unique(asked)
    cache.require_room(blocks)
    there = int(cache.there[blocks].sum())
    if there:
        progress.note(f"The teacher's states of {there} of {len(blocks)} blocks are stored already.")
    return Teacher(model, cache, blocks)


def _to_numpy(states_TE: Tensor) -> np.ndarray:
    bits = states_TE.cpu().contiguous()
    return np.asarray((bits.view(torch.uint16) if bits.dtype == torch.bfloat16 else bits).numpy())
