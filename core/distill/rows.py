"""In which order the student sees the training blocks: fixed before the first step, so that a resumed run sees the rest of it."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


def row_order(num_blocks: int, num_rows: int, seed: int) -> np.ndarray:
    """Which block each of ``num_rows`` rows is, ``[num_rows]``: every epoch a permutation of its own, as many as needed."""
    epochs = -(-num_rows // num_blocks)
    permutations = [np.random.default_rng((seed, epoch)).permutation(num_blocks) for epoch in range(epochs)]
    return np.concatenate([*permutations, np.empty(0, dtype=np.int64)])[:num_rows]


class TrainingRows(Dataset[dict[str, Tensor]]):
    """All rows that a run will train on, in order. The blocks stay where they are (a memory map, if they came as one)."""

    def __init__(self, blocks_NT: np.ndarray, num_rows: int, seed: int) -> None:
        self.blocks_NT = blocks_NT
        self.order = row_order(len(blocks_NT), num_rows, seed)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        """One block as ``input_ids`` and ``labels`` ``[T]``, and its number; blocks are packed, so every token counts."""
        block = int(self.order[row])
        tokens_T = torch.from_numpy(self.blocks_NT[block].astype(np.int64))
        return {"input_ids": tokens_T, "labels": tokens_T, "block": torch.tensor(block)}
