"""What is learnt at equal tokens: from the teacher or from the text alone, by a pruned model or by one that begins at random."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from core.data.blocks import Blocks
from core.distill.trainer import distill
from core.evaluate.measure import measure
from core.model.checkpoint import load_model, load_tokenizer
from core.progress import Silent
from core.specs import DistillSpec

TAUGHT, UNTAUGHT, RANDOM = "pruned, forward KL", "pruned, cross-entropy only", "random weights, forward KL"


def learn(pruned: Path, teacher: Path, blocks: Blocks, spec: DistillSpec, seeds: int) -> list[dict[str, Any]]:
    """Held-out losses (nats a token) after the same steps on the same blocks, a row a training: what, seed, text, loss."""
    rows = []
    with tempfile.TemporaryDirectory() as home:
        for seed in range(seeds):
            told = dataclasses.replace(spec, seed=seed)
            alone = dataclasses.replace(told, kl_weight=0.0, ce_weight=1.0)
            trainings = {TAUGHT: (pruned, told), UNTAUGHT: (pruned, alone)}
            if seed == 0:
                trainings[RANDOM] = (at_random(pruned, Path(home) / "random"), told)
            for what, (start, settings) in trainings.items():
                with tempfile.TemporaryDirectory(dir=home) as place:
                    out = distill(start, teacher, blocks.train_NT, settings, Path(place) / "model", progress=Silent(), device="cpu")
                    rows += [
                        {"training": what, "seed": seed, "held-out text": text, "loss, nats": loss}
                        for text, loss in losses(out, teacher, blocks)
                    ]
    return rows


def losses(model: Path, teacher: Path, blocks: Blocks) -> list[tuple[str, float]]:
    """A model's loss on every held-out text."""
    loaded, tokenizer = load_model(model), load_tokenizer(teacher)
    return [(text, measure(loaded, blocks_NT, tokenizer)["loss_nats"]) for text, blocks_NT in blocks.heldout.items()]


def at_random(like: Path, folder: Path) -> Path:
    """A model of the same shape with the weights that training from scratch begins with."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(like, local_files_only=True)).save_pretrained(folder)
    return folder


def margins(rows: list[dict[str, Any]], worse: str, text: str) -> list[float]:
    """How much lower the loss of the taught, pruned model is than that of ``worse``, nats, a number a seed."""
    found = {(row["training"], row["seed"]): row["loss, nats"] for row in rows if row["held-out text"] == text}
    return [loss - found[TAUGHT, seed] for (what, seed), loss in found.items() if what == worse]
