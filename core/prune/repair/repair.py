"""A repaired cut: of a model in memory, and of a checkpoint of which only a layer at a time ever is.

repair_model(teacher, plan, blocks_NT, spec) -> model          for benchmarks, notebooks, search
repair_checkpoint(folder, plan, blocks_NT, spec, target, …)    for runs; writes a plain Hugging Face folder
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.errors import UserError
from core.files import replacing, require_free, write_text
from core.model.checkpoint import copy_companions, full_config, load_model
from core.model.cost import cost_of
from core.model.dims import resized_config
from core.plan.plan import Plan
from core.progress import Progress, Silent
from core.prune.card import model_card
from core.prune.export import locate, write_config, write_shards
from core.prune.repair.scales import learn_scales
from core.prune.repair.sequence import Repair, Site
from core.specs import RepairSpec


def repair_model(
    teacher: PreTrainedModel, plan: Plan, blocks_NT: np.ndarray, spec: RepairSpec, progress: Progress | None = None
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return the cut and repaired model, float32 on the teacher's device, and what the repair did (see ``summary``). The teacher stays.

    Args:
        blocks_NT: what is fitted on.

    Raises:
        UserError: the family cannot be repaired.
        Stopped: progress asked for it, between layers.
    """
    config, tensors = teacher.config.to_dict(), dict(teacher.named_parameters())
    repair = Repair(lambda name: tensors[name].detach(), config, plan, blocks_NT, spec, teacher.device)
    smaller = resized_config(config, plan.dims, plan.layers.tolist())
    student = AutoModelForCausalLM.from_config(AutoConfig.for_model(**smaller)).eval().to(teacher.device)
    dtypes: dict[str, torch.dtype] = {}
    for name, tensor in _noting(repair.tensors(progress or Silent()), dtypes):
        student.get_parameter(name).data = tensor.to(teacher.device, torch.float32)
    student.tie_weights()
    student.config.use_cache = False
    if spec.scales:
        _scale(student, teacher, repair, dtypes, progress or Silent())
    return student, summary(repair, progress or Silent())


def repair_checkpoint(
    source: Path, plan: Plan, blocks_NT: np.ndarray, spec: RepairSpec, target: Path, recipe: dict[str, Any], progress: Progress,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """Write the checkpoint in ``source``, cut to ``plan`` and repaired, into ``target``, which appears whole or not at all.

    Returns:
        What the repair did; see ``summary``.

    Raises:
        UserError: ``target`` exists, the disk is too small, or the family is not known.
        Stopped: progress asked for it, between layers; nothing is left.
    """
    if target.exists():
        raise UserError(f"{target} exists already. Choose another folder, or delete that one.")
    config = full_config(source)
    smaller, places = resized_config(config, plan.dims, plan.layers.tolist()), locate(source, config)
    require_free(target, cost_of(smaller).weight_bytes("float32") + 50_000_000)

    def read(name: str) -> torch.Tensor:
        with safe_open(places[name], framework="pt") as file:
            return file.get_tensor(name)

    repair = Repair(read, config, plan, blocks_NT, spec, torch.device(device))
    dtypes: dict[str, torch.dtype] = {}
    with replacing(target) as folder:
        folder.mkdir()
        write_shards(folder, _noting(repair.tensors(progress), dtypes))
        write_config(folder, smaller)
        if spec.scales:
            _scale_checkpoint(folder, source, repair, dtypes, progress)
        copy_companions(source, folder)
        write_text(folder / "README.md", model_card(config, smaller, recipe))
    return summary(repair, progress)


def _noting(named: Iterable[tuple[str, Tensor]], dtypes: dict[str, torch.dtype]) -> Iterator[tuple[str, Tensor]]:
    """Pass tensors on and note their number formats."""
    for name, tensor in named:
        dtypes[name] = tensor.dtype
        yield name, tensor


def _scale(student: PreTrainedModel, teacher: PreTrainedModel, repair: Repair, dtypes: dict[str, torch.dtype], progress: Progress) -> None:
    """Learn scales, round what they made to the checkpoint's number formats, and take down what came of it."""
    done = itertools.count(len(repair.plan.layers) + 1)
    gain = learn_scales(student, teacher, repair.blocks_NT, repair.spec, lambda: progress.step("repair", next(done), repair.units))
    for name, weight in student.named_parameters():
        weight.data = weight.to(dtypes[name]).to(weight.dtype)
    repair.sites.append(Site(place="scales", ridge=None, gain=gain, short=False))


def _scale_checkpoint(folder: Path, source: Path, repair: Repair, dtypes: dict[str, torch.dtype], progress: Progress) -> None:
    """The same with the repaired checkpoint in ``folder``, which is written anew."""
    student, teacher = (load_model(place, repair.device) for place in (folder, source))
    _scale(student, teacher, repair, dtypes, progress)
    named = dict(student.named_parameters())
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    write_shards(folder, ((name, named[name].detach().to("cpu", dtype).contiguous()) for name, dtype in dtypes.items()))


def summary(repair: Repair, progress: Progress) -> dict[str, Any]:
    """What was done, JSON-able: ``blocks`` it fitted on, ``places`` (place, ridge, gain, short: see ``Site``), ``fitted``, ``left``, ``too_few_tokens``."""
    sites = repair.sites
    short = [site for site in sites if site.short]
    if short:
        progress.note(
            f"{len(short)} of {len(sites)} places were left as they were cut: the {repair.tokens} tokens that a repair fits on are "
            f"fewer than their inputs ({short[0].place} is one). More of them (--repair-blocks, and text to take them from) would repair them too."
        )
    return {
        "blocks": len(repair.blocks_NT),
        "places": [asdict(site) for site in sites],
        "fitted": sum(site.gain > 0 for site in sites),
        "left": sum(not site.gain > 0 for site in sites),
        "too_few_tokens": len(short),
    }
