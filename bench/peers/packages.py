"""Peers as their own packages, in an environment of their own (``make bench-peers``): they choose neurons, which are then masked here.

Runs in two processes. ``chosen`` starts the second one with that environment in front; ``main`` is what it does.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.peers.ground import BATCH, Cut, Ground
from core.workspace import ROOT

ENVIRONMENT = ROOT / ".peers"


class NotInstalled(Exception):
    """The peers' environment is missing."""


def optipfair(ground: Ground, share: float) -> Cut:
    """optipfair's data-driven selection."""
    return _selected(ground, share, "optipfair")


def torch_pruning(ground: Ground, share: float) -> Cut:
    """Torch-Pruning's group Taylor importance, restricted to MLP neurons, equal widths."""
    return _selected(ground, share, "torch_pruning")


def modelopt(ground: Ground, share: float) -> Cut:
    """NVIDIA Model Optimizer's hook for the contribution of independent channels, on every down projection."""
    return _selected(ground, share, "modelopt")


def _selected(ground: Ground, share: float, name: str) -> Cut:
    """Neurons that a package keeps, as a cut."""
    if not ENVIRONMENT.is_dir():
        raise NotInstalled("not run: make bench-peers")
    targets = ground.ffn_for(share)
    kept_LF = chosen(name, ground.model, ground.blocks.calibration_NT, targets.intermediate_size or 0)
    values_LF = np.zeros((ground.dims.layers, ground.dims.ffn))
    np.put_along_axis(values_LF, kept_LF, 1.0, axis=1)
    return ground.selection(ground.keep(targets, {"neurons": values_LF}))


def chosen(name: str, model: Any, blocks_NT: np.ndarray, kept: int) -> np.ndarray:
    """Ask a package, in a process with its environment, which neurons it keeps: ``[L, F']``, ascending."""
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(Path(place) / "model")
        np.save(Path(place) / "blocks.npy", blocks_NT)
        search = os.pathsep.join([str(ENVIRONMENT), str(ROOT)])
        command = [sys.executable, "-m", "bench.peers.packages", name, place, str(kept)]
        subprocess.run(command, env={**os.environ, "PYTHONPATH": search}, stdout=subprocess.DEVNULL, check=True)
        return np.load(Path(place) / "kept.npy")


def main(name: str, place: str, kept: int) -> None:
    """Load the model, let the package choose, and write what it keeps."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(Path(place) / "model", dtype=torch.float32).eval()
    model.config.use_cache = False
    batches = torch.from_numpy(np.load(Path(place) / "blocks.npy").astype(np.int64)).split(BATCH)
    kept_LF = {"optipfair": _optipfair, "torch_pruning": _torch_pruning, "modelopt": _modelopt}[name](model, batches, kept)
    np.save(Path(place) / "kept.npy", kept_LF)


def _optipfair(model: Any, batches: tuple[Tensor, ...], kept: int) -> np.ndarray:
    import optipfair as package

    before = _gates(model)
    percentage = (
        100 * (model.config.intermediate_size - kept + 0.5) / model.config.intermediate_size
    )  # which it rounds down to whole neurons
    loader = [{"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)} for ids_BT in batches]
    smaller = package.prune_model(
        model, neuron_selection_method="MAW", pruning_percentage=percentage, dataloader=loader, show_progress=False
    )
    return _found_again(before, _gates(smaller), kept)


def _torch_pruning(model: Any, batches: tuple[Tensor, ...], kept: int) -> np.ndarray:
    import torch_pruning as package

    before = _gates(model)
    for ids_BT in batches:
        for ids_T in ids_BT:
            model(ids_T[None], labels=ids_T[None]).loss.backward()
    width = model.config.intermediate_size
    others = [
        module for module in model.modules() if isinstance(module, nn.Linear | nn.Embedding) and getattr(module, "out_features", 0) != width
    ]
    pruner = package.pruner.MetaPruner(
        model, batches[0][:1, :8], importance=package.importance.GroupTaylorImportance(),
        pruning_ratio=1 - (kept + 0.5) / width, ignored_layers=others,
        output_transform=lambda output: output.logits, root_module_types=[nn.Linear],
    )  # fmt: skip
    pruner.step()
    return _found_again(before, _gates(model), kept)


def _modelopt(model: Any, batches: tuple[Tensor, ...], kept: int) -> np.ndarray:
    from modelopt.torch.prune.importance_hooks.base_hooks import IndependentChannelContributionHook

    modules = [layer.mlp.down_proj for layer in model.model.layers]
    hooks = [IndependentChannelContributionHook(module) for module in modules]
    handles = [module.register_forward_hook(hook) for module, hook in zip(modules, hooks, strict=True)]
    with torch.no_grad():
        for ids_BT in batches:
            model.model(ids_BT)
    for handle in handles:
        handle.remove()
    return np.stack([np.sort(hook.accumulate().topk(kept).indices.numpy()) for hook in hooks])


def _gates(model: Any) -> list[np.ndarray]:
    """The gate projections' weights, ``[F, D]`` each."""
    return [layer.mlp.gate_proj.weight.detach().numpy().copy() for layer in model.model.layers]


def _found_again(before: list[np.ndarray], after: list[np.ndarray], kept: int) -> np.ndarray:
    """Which rows of the old gates the new ones consist of, layer by layer."""
    found = []
    for old_FD, new_FD in zip(before, after, strict=True):
        places = {row_D.tobytes(): i for i, row_D in enumerate(old_FD)}
        found.append(sorted(places[row_D.tobytes()] for row_D in new_FD))
    assert {len(row) for row in found} == {kept}, f"{kept} neurons were asked for, {set(map(len, found))} stayed"
    return np.array(found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
