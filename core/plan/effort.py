"""What retraining costs on hardware that is not here: operations counted exactly, hours estimated from them.

A step of distillation runs the teacher forward and the student forward and backward; a backward pass costs twice its forward
(Kaplan et al., arXiv 2001.08361, section 2.1). Hours follow from a device's peak and the part of it that training reaches.
"""

from dataclasses import dataclass

from core.model.cost import Cost, cost_of
from core.model.dims import Config, dims_of, resized
from core.plan.presets import presets

H100_FLOPS = 989e12
"""Peak of one NVIDIA H100 SXM in dense bfloat16, operations a second, as NVIDIA states it."""

UTILISATION = 0.4
"""Part of the peak that well-set-up training of dense decoders reaches; reports range from 0.3 to 0.5."""

TRAINING_BYTES = 4 + 4 + 4 + 4
"""Bytes a student's parameter in float32 training: weight, gradient, and Adam's two moments."""

PUBLISHED: dict[str, Config] = {
    "Llama 3.2 1B": {
        "model_type": "llama", "num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True,
    },
    "Llama 3.1 8B": {
        "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
    },
    "Llama 3.1 70B": {
        "model_type": "llama", "num_hidden_layers": 80, "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64,
        "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Teachers of three sizes, with the dimensions of their published config.json."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """One retraining: exact operations and bytes, estimated hours."""

    teacher: Cost
    student: Cost
    tokens: float
    flops: float
    device_hours: float
    """Estimated, on ``H100_FLOPS`` at ``UTILISATION``."""
    memory_bytes: int
    """Weights of the teacher in 16 bit, and the student's weights, gradients and moments in float32; activations come on top."""


def effort(teacher: Cost, student: Cost, tokens: float, context: int) -> Effort:
    """What distilling ``tokens`` tokens in blocks of ``context`` costs; a token sees half the block before it on average."""
    flops = tokens * (teacher.flops_per_token(context // 2) + 3 * student.flops_per_token(context // 2))
    return Effort(
        teacher=teacher, student=student, tokens=tokens, flops=flops, device_hours=flops / (H100_FLOPS * UTILISATION) / 3600,
        memory_bytes=teacher.weight_bytes("bfloat16") + TRAINING_BYTES * student.parameters,
    )  # fmt: skip


def half(config: Config) -> Cost:
    """Cost of the balanced cut to half of a model."""
    targets = next(preset.targets for preset in presets(config) if preset.name == "50 % balanced")
    return cost_of(config, resized(dims_of(config), targets))
