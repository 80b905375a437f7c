"""From checkpoint to smaller checkpoint, tensor by tensor: neither model is ever whole in memory.

The result is a plain Hugging Face folder: ``AutoModelForCausalLM.from_pretrained`` loads it with no code of ours.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig

from core.errors import UserError
from core.files import replacing, require_free, write_json, write_text
from core.model.checkpoint import copy_companions, full_config
from core.model.cost import cost_of
from core.model.dims import axes_of, is_tied, resized_config
from core.model.source import read_header, weight_files
from core.plan.plan import Plan
from core.progress import Progress
from core.prune.card import model_card
from core.prune.surgery import Move, cut_tensor, moves

SHARD_BYTES = 4_000_000_000
IGNORED = ("rotary_emb.inv_freq",)
"""Endings of tensors that old checkpoints hold and that no model needs."""


def prune_checkpoint(source: Path, plan: Plan, target: Path, recipe: dict[str, Any], progress: Progress) -> None:
    """Write the checkpoint in ``source``, cut to ``plan``, into ``target``, which appears whole or not at all.

    Raises:
        UserError: ``target`` exists, the disk is too small, or the checkpoint holds tensors that the family map does not know.
        Stopped: the user asked for it.
    """
    if target.exists():
        raise UserError(f"{target} exists already. Choose another folder, or delete that one.")
    config = full_config(source)
    smaller = resized_config(config, plan.dims, plan.layers.tolist())
    require_free(target, cost_of(smaller).weight_bytes("float32") + 50_000_000)
    places = locate(source, config)
    with replacing(target) as folder:
        folder.mkdir()
        write_shards(folder, _cut_tensors(list(moves(config, plan)), places, plan, progress))
        write_config(folder, smaller)
        copy_companions(source, folder)
        write_text(folder / "README.md", model_card(config, smaller, recipe))


def locate(source: Path, config: dict[str, Any]) -> dict[str, Path]:
    """Tensor name -> the file that holds it.

    Raises:
        UserError: the files and the family map do not agree on what there is.
    """
    found = {name: file for file in weight_files(source) for name in read_header(file) if not name.endswith(IGNORED)}
    if is_tied(config):
        found.pop("lm_head.weight", None)
    if differing := sorted(found.keys() ^ axes_of(config).keys()):
        raise UserError(f"{source}: these tensors are not where the {config['model_type']} family has them: {', '.join(differing[:5])}.")
    return found


def write_shards(folder: Path, named: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Write tensors in files of at most ``SHARD_BYTES``, with an index if there are several."""
    shards: list[list[str]] = []
    for tensors in _portions(named):
        save_file(tensors, folder / f"shard-{len(shards)}.safetensors", metadata={"format": "pt"})
        shards.append(list(tensors))
    names = (
        ["model.safetensors"] if len(shards) == 1 else [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    )
    for i, name in enumerate(names):
        (folder / f"shard-{i}.safetensors").rename(folder / name)
    if len(shards) > 1:
        weight_map = {tensor: name for name, tensors in zip(names, shards, strict=True) for tensor in tensors}
        total = sum((folder / name).stat().st_size for name in names)
        write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _cut_tensors(plan_moves: list[Move], places: dict[str, Path], plan: Plan, progress: Progress) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor of the cut model."""
    for done, move in enumerate(plan_moves, start=1):
        with safe_open(places[move.old], framework="pt") as file:
            yield move.new, cut_tensor(file.get_tensor(move.old), move, plan)
        if done % 20 == 0 or done == len(plan_moves):
            progress.step("prune", done, len(plan_moves))


def _portions(named: Iterable[tuple[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    """Gather tensors in portions of at most ``SHARD_BYTES``."""
    tensors: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in named:
        if tensors and size + tensor.nbytes > SHARD_BYTES:
            yield tensors
            tensors, size = {}, 0
        tensors[name] = tensor
        size += tensor.nbytes
    yield tensors


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write a config.json that transformers has accepted.

    Raises:
        UserError: transformers refuses the dimensions.
    """
    kind = config["model_type"]
    try:
        AutoConfig.for_model(**config).save_pretrained(folder)
    except StrictDataclassError as error:
        raise UserError(
            f"transformers refuses such a {kind} model: {str(error).strip().splitlines()[-1].strip()} Choose other target sizes."
        ) from error
