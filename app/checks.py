"""What is looked at before a run starts: room on disk and in memory, the model's context, its tokenizer. Each is told, held or not."""

import os
import shutil
from dataclasses import dataclass

import psutil
import streamlit as st

from app import cached, distill_form
from app.ui import plain
from core.distill.matching import kinds_of
from core.model.card import Card
from core.plan.stages import targets_of
from core.report import format as fmt
from core.runs.machine import memory_bytes
from core.specs import RunSpec
from core.workspace import room

FINE, UNSURE, WRONG = "check_circle", "warning", "error"
COLOURS = {FINE: "green", UNSURE: "orange", WRONG: "red"}

BYTES_A_PARAMETER = {"prune": 4 + 4, "distill": 4 + 4 + 2 * 12, "family": 4 + 4 + 2 * 12}
"""What a run takes on disk: the pruned model, beside it for a while what it was before repair, and for distillation also the finished one and, while one checkpoint
replaces the other, two of them with weights and Adam's two moments. All float32."""

TRAINED_BYTES = 4 + 4 + 8
"""Of memory a parameter that is trained: weight, gradient, Adam's two moments. All float32."""

LIBRARIES_BYTES = 550e6
"""Of memory that a worker holds before it has loaded a model."""

STATES_A_TOKEN = (16, 6, 4)
"""Numbers that a training step keeps of a token: so many for each hidden channel and each neuron of every layer, and for each word of the vocabulary."""

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    mark: str
    said: str


def checks(spec: RunSpec, card: Card) -> list[Check]:
    """All that can be looked at without the model's weights."""
    return [_disk(spec, card), _memory(spec, card), _context(spec, card), _tokenizer(card), _place()]


def show(found: list[Check]) -> None:
    """Draw what was looked at, a line each."""
    lines = [f":{COLOURS[check.mark]}[:material/{check.mark}:] **{check.name}** {plain(check.said)}" for check in found]
    st.markdown("  \n".join(lines))


def wrong(spec: RunSpec, card: Card) -> list[str]:
    """What of it keeps the run from starting, a sentence each."""
    return [f"{check.name}: {check.said}" for check in checks(spec, card) if check.mark == WRONG]


def _disk(spec: RunSpec, card: Card) -> Check:
    needed, free = disk_needed(spec, card), shutil.disk_usage(room("runs")).free
    if needed > free:
        told = f"about {fmt.size(needed)} are needed, {fmt.size(free)} are free. Free some, or set COPPICE_WORKSPACE to another disk."
        return Check("Disk", WRONG, told)
    return Check("Disk", FINE, f"{fmt.size(needed, estimated=True)} at most, {fmt.size(free)} free")


def _memory(spec: RunSpec, card: Card) -> Check:
    if spec.device.startswith(("cuda", "mps")):
        return Check(
            "Memory", UNSURE, f"{fmt.size(memory_needed(spec, card), estimated=True)}; what {spec.device} has free is not known here"
        )
    needed, free = memory_needed(spec, card), min(psutil.virtual_memory().available, memory_bytes())
    told = f"{fmt.size(needed, estimated=True)}, {fmt.size(free)} free"
    return (
        Check("Memory", FINE, told)
        if needed < free
        else Check("Memory", UNSURE, f"{told}: it may not suffice. Take smaller blocks or steps.")
    )


def _context(spec: RunSpec, card: Card) -> Check:
    context = card.config.get("max_position_embeddings")
    if context and spec.data.seq_len > context:
        return Check(
            "Context",
            WRONG,
            f"blocks of {spec.data.seq_len} tokens are longer than the model's {context}. Take shorter blocks on the first page.",
        )
    return Check("Context", FINE, f"blocks of {spec.data.seq_len} tokens" + (f", the model reads up to {context}" if context else ""))


def _tokenizer(card: Card) -> Check:
    if any((card.folder / name).exists() for name in TOKENIZERS):
        return Check("Tokenizer", FINE, "the model's own, for teacher and student alike")
    return Check("Tokenizer", UNSURE, "not beside the model's configuration; without one the run cannot read text")


def _place() -> Check:
    folder = room("runs")
    if os.access(folder, os.W_OK):
        return Check("Place", FINE, str(folder))
    return Check("Place", WRONG, f"{folder} cannot be written. Change its permissions, or set COPPICE_WORKSPACE to another folder.")


def disk_needed(spec: RunSpec, card: Card) -> int:
    """Bytes that the run will take at most, an estimate; each member of a family keeps its own."""
    made = [targets_of(card.config, spec.stages[:number]) for number in range(1, len(spec.stages) + 1)] or [spec.targets]
    models = sum(cached.cost(card.config, targets).parameters for targets in made) * BYTES_A_PARAMETER[spec.kind]
    return models + (stored_bytes(spec, card) if spec.kind != "prune" else 0)


def stored_bytes(spec: RunSpec, card: Card) -> int:
    """Size of the teacher's stored states, at most; of a family, those of the uncut model."""
    layers = spec.targets.num_hidden_layers or card.dims.layers
    return distill_form.store_bytes(spec.distill, spec.data, card, kinds_of(spec.distill, layers, card.dims.layers))


def memory_needed(spec: RunSpec, card: Card) -> float:
    """Bytes of memory that the run will hold at its fullest, an estimate; of a family, while its first member is trained."""
    targets = targets_of(card.config, spec.stages[:1]) if spec.stages else spec.targets
    teacher, student = card.cost.parameters, cached.cost(card.config, targets).parameters
    if spec.kind == "prune":
        return LIBRARIES_BYTES + 4 * (teacher + student)
    hidden, ffn, vocabulary = STATES_A_TOKEN
    dims = card.dims
    a_token = dims.layers * (hidden * dims.hidden + ffn * dims.ffn) + vocabulary * dims.vocab
    return LIBRARIES_BYTES + 4 * teacher + TRAINED_BYTES * student + 4 * a_token * spec.distill.batch_blocks * spec.data.seq_len
