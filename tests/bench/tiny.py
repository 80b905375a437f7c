"""A tiny ground to cut on."""

from bench.peers.ground import Ground
from core.data.blocks import Blocks
from tests.tiny import random_blocks, tiny_model


def tiny_ground(blocks: int, seq_len: int) -> Ground:
    """A tiny model with random calibration blocks, each one document."""
    calibration_NT = random_blocks(blocks, seq_len)
    made = Blocks(
        calibration_NT=calibration_NT, calibration_documents_NT=calibration_NT * 0, train_NT=calibration_NT[:0], heldout={}, fingerprint="", meta={},
    )  # fmt: skip
    return Ground(None, tiny_model(), made)
