"""What a run measures on its models, and where it writes it: ``results.json`` and ``generations.json``.

The teacher's side of every held-out text is computed once and kept beside the run until it is done.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from core.data.blocks import Blocks, build
from core.evaluate.generate import continue_prompts
from core.evaluate.measure import Reference, final_states, measure
from core.evaluate.speed import DECODED_TOKENS, tokens_per_second
from core.files import content_hash, replacing, require_free, write_json
from core.model.checkpoint import load_model, load_tokenizer
from core.model.cost import Cost, cost_of
from core.model.device import pick
from core.model.head import head_weight
from core.model.source import resolve
from core.progress import Progress
from core.runs.folder import Run

SPEED_REPEATS = 3
"""Interleaved repetitions behind each median of speed."""

GLANCE_BLOCKS = 2
"""Held-out blocks of each text that are looked at during training; the full number is measured before and after."""


SAMPLE_TOKENS = 24
"""Tokens of a continuation during training: a second or so on a laptop."""


def glance(run: Run, blocks: Blocks, progress: Progress) -> Callable[[nn.Module], dict[str, Any]]:
    """What is measured while the training goes on: loss and KL on a few held-out blocks of each text."""
    reference = references(run, None, progress, GLANCE_BLOCKS)
    tokenizer = load_tokenizer(run.path / "pruned")

    def look(student: Any) -> dict[str, Any]:
        found = {
            name: measure(student, blocks_NT[:GLANCE_BLOCKS], tokenizer, teacher=reference[name])
            for name, blocks_NT in blocks.heldout.items()
        }
        return {name: {"loss": values["loss_nats"], "kl": values["kl_nats"]} for name, values in found.items()}

    return look


def speaking(run: Run) -> Callable[[nn.Module], list[dict[str, str]]] | None:
    """Lets the student continue the first of the run's prompts while it learns, shortly; None if that is not wanted."""
    prompts = run.spec.evaluate.prompts[: run.spec.distill.sample_prompts]
    if not prompts:
        return None
    tokenizer, length = load_tokenizer(resolve(run.spec.model)), min(SAMPLE_TOKENS, run.spec.evaluate.max_new_tokens)

    def speak(student: Any) -> list[dict[str, str]]:
        answers = continue_prompts(student, tokenizer, prompts, length)
        return [{"prompt": prompt, "text": text} for prompt, text in zip(prompts, answers, strict=True)]

    return speak


def blocks_of(run: Run, progress: Progress) -> Blocks:
    """The run's token blocks."""
    return build(run.spec.data, resolve(run.spec.model, progress), progress)


def teacher_of(run: Run, progress: Progress) -> Path:
    """The folder of the model that the run learns from and is measured against: the one that is cut, unless another is named."""
    return resolve(run.spec.teacher or run.spec.model, progress)


def load(run: Run, role: str, progress: Progress) -> PreTrainedModel:
    """One of the run's models: ``teacher``, ``pruned`` or ``model``."""
    folder = teacher_of(run, progress) if role == "teacher" else run.path / role
    return load_model(folder, pick(run.spec.device))


def references(run: Run, teacher: PreTrainedModel | None, progress: Progress, limit: int | None = None) -> dict[str, Reference]:
    """What the teacher says on every held-out text: its final hidden states, kept beside the run so that its body runs once.

    Args:
        teacher: the loaded teacher, if it is at hand; it is loaded for its head otherwise, and let go of.
        limit: how many blocks of each text are wanted; None for all.
    """
    blocks, teacher = blocks_of(run, progress), teacher or load(run, "teacher", progress)
    head_VD = head_weight(teacher).detach().clone()
    found = {}
    for domain, blocks_NT in blocks.heldout.items():
        path = run.path / "states" / f"{content_hash(domain)}.npy"
        if not path.exists():
            require_free(path, blocks_NT.size * head_VD.shape[1] * 4)
            states_NTD = final_states(teacher, blocks_NT, batch_size=run.spec.evaluate.batch_size, progress=progress)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, states_NTD.numpy())
        found[domain] = Reference(states_NTD=torch.from_numpy(np.load(path)[:limit]), head_VD=head_VD)
    return found


def measure_all(run: Run, model: PreTrainedModel, blocks: Blocks, reference: dict[str, Reference], progress: Progress) -> dict[str, Any]:
    """A model's figures on every held-out text."""
    tokenizer = load_tokenizer(resolve(run.spec.model, progress))
    size = run.spec.evaluate.batch_size
    return {
        name: measure(model, blocks_NT, tokenizer, teacher=reference.get(name), batch_size=size, progress=progress)
        for name, blocks_NT in blocks.heldout.items()
    }  # fmt: skip


def describe(run: Run, model: PreTrainedModel) -> dict[str, Any]:
    """A model's size, counted on the model itself."""
    cost = cost_of(model.config.to_dict())
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == cost.parameters, f"{run.id}: {counted} parameters counted, {cost.parameters} predicted"
    return size_of(cost)


def size_of(cost: Cost) -> dict[str, int]:
    """What results tell of a model's size."""
    return {
        "parameters": cost.parameters, "non_embedding_parameters": cost.non_embedding_parameters, "weight_bytes": cost.weight_bytes("bfloat16")
    }  # fmt: skip


def add_speeds(found: dict[str, Any], models: dict[str, PreTrainedModel], run: Run, progress: Progress) -> None:
    """Measure the speed of several models side by side, so that their ratios hold, and put it with each one's figures."""
    progress.note("Measuring speed.")
    context = min(model.config.max_position_embeddings for model in models.values())
    seq_len = min(run.spec.data.seq_len, context - DECODED_TOKENS)  # a block may fill the context; what is written after it needs room
    for role, speed in tokens_per_second(models, seq_len, SPEED_REPEATS, progress).items():
        found[role]["tokens_per_second"] = speed


def first_losses(heldout: dict[str, Any]) -> dict[str, float]:
    """Loss on the blocks that are looked at during training, so that what is seen there has its two reference lines."""
    return {domain: float(np.mean(values["block_losses"][:GLANCE_BLOCKS])) for domain, values in heldout.items()}


def recovered(teacher: dict[str, Any], pruned: dict[str, Any], distilled: dict[str, Any]) -> dict[str, float | None]:
    """Part of the loss that the cut cost and repair and training made good, on every held-out text; None where the cut cost nothing."""
    found: dict[str, float | None] = {}
    for domain, values in teacher["heldout"].items():
        gap = pruned["heldout"][domain]["loss_nats"] - values["loss_nats"]
        gain = pruned["heldout"][domain]["loss_nats"] - distilled["heldout"][domain]["loss_nats"]
        found[domain] = gain / gap if gap > 0 else None
    return found


def update_results(run: Run, **parts: Any) -> None:
    """Add to the run's results.json."""
    write_json(run.path / "results.json", run.results() | parts)


def add_generations(run: Run, models: dict[str, PreTrainedModel]) -> None:
    """Add the models' continuations of the run's prompts to generations.json."""
    spec, answers = run.spec.evaluate, dict(run.generations().get("answers", {}))
    tokenizer = load_tokenizer(resolve(run.spec.model))
    for role, model in models.items():
        answers[role] = continue_prompts(model, tokenizer, list(spec.prompts), spec.max_new_tokens)
    write_json(run.path / "generations.json", {"prompts": list(spec.prompts), "answers": answers})
