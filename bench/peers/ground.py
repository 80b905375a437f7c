"""What all rows stand on: the loaded model, calibration blocks, and how a cut is put on the model and taken off again.

Nothing here makes a smaller model. What a cut removes is masked, and what it changes is changed in place for as long as it is
measured: the numbers are those of the smaller model, whose parameters are counted by arithmetic.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.data.blocks import Blocks
from core.model.cost import cost_of
from core.model.dims import Dims, dims_of, resized
from core.model.head import hidden_states
from core.plan.plan import Importance, Plan, keep_best
from core.progress import Silent
from core.prune.mask import masked
from core.score.scoring import score, score_model
from core.score.store import Scores
from core.specs import EMBEDDED_MODEL, RankSpec, ScoreSpec, Targets

BATCH = 4
"""Blocks a forward pass."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A model made smaller, as far as measuring needs it."""

    parameters: int
    """Parameters of the smaller model, counted by unique storage."""
    apply: Callable[[], AbstractContextManager[Any]]
    """Lets the ground's model behave as the smaller one."""
    note: str = ""


@dataclass(frozen=True)
class Given:
    """Importance from anywhere, by axis; an axis that is not given keeps its first units."""

    dims: Dims
    arrays: Mapping[str, np.ndarray]

    def importance(self, axis: str, rank: RankSpec, removed: int = 1) -> np.ndarray:
        """The given values."""
        sizes = {"layers": (self.dims.layers,), "channels": (self.dims.hidden,), "heads": (self.dims.layers, self.dims.heads)}
        return self.arrays.get(axis, np.ones(sizes.get(axis, (self.dims.layers, self.dims.ffn))))


@dataclass(frozen=True)
class Ground:
    """The uncut model and one calibration set. The model is put back after every cut."""

    folder: Path | None
    model: Any
    blocks: Blocks

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's config, spelled out."""
        return dict(self.model.config.to_dict())

    @cached_property
    def dims(self) -> Dims:
        """Its dimensions."""
        return dims_of(self.config)

    @cached_property
    def calibration_NT(self) -> Tensor:  # noqa: N802 - a tensor's axes
        """Calibration tokens."""
        return torch.from_numpy(self.blocks.calibration_NT.astype(np.int64))

    def scores(self, **asked: Any) -> Scores:
        """Coppice's own importance on the calibration set, stored in the workspace; of a model without a folder, in memory."""
        spec = ScoreSpec(**{"ppl_blocks": 0, **asked})
        if self.folder is None:
            return score_model(self.model, self.blocks.calibration_NT, spec, documents_NT=self.blocks.calibration_documents_NT)
        return score(self.folder, self.blocks, spec, Silent(), "cpu", EMBEDDED_MODEL)

    def parameters(self, targets: Targets) -> int:
        """Parameters of a model of these sizes."""
        return cost_of(self.config, resized(self.dims, targets)).parameters

    def budget(self, share: float) -> int:
        """Parameters that stay if ``share`` of all goes."""
        return round((1 - share) * cost_of(self.config).parameters)

    def ffn_for(self, share: float, **sizes: int) -> Targets:
        """The FFN size with which a model of these other sizes comes closest to ``share`` of all parameters removed."""
        choices = [Targets(intermediate_size=ffn, **sizes) for ffn in range(1, self.dims.ffn + 1)]
        return min(choices, key=lambda targets: abs(self.parameters(targets) - self.budget(share)))

    def keep(self, targets: Targets, arrays: Mapping[str, np.ndarray] | Importance, rank: RankSpec | None = None) -> Plan:
        """The plan that keeps the highest values."""
        importance = Given(self.dims, arrays) if isinstance(arrays, Mapping) else arrays
        return keep_best(importance, self.dims, targets, rank or RankSpec())

    def selection(self, plan: Plan, note: str = "") -> Cut:
        """A cut that removes and changes nothing else."""
        return Cut(parameters=self.parameters(plan.targets), apply=lambda: masked(self.model, self.config, plan), note=note)

    def layers(self) -> nn.ModuleList:
        """The decoder layers."""
        return self.model.model.layers

    def embedded(self) -> Tensor:
        """What enters the first layer, ``[N, T, D]``."""
        with torch.no_grad():
            return self.model.model.embed_tokens(self.calibration_NT)

    def positions(self, hidden_NTD: Tensor) -> tuple[Tensor, Tensor]:
        """The rotary embedding of blocks of this length."""
        return self.model.model.rotary_emb(hidden_NTD, torch.arange(hidden_NTD.shape[1])[None])


def run_layer(layer: nn.Module, hidden_NTD: Tensor, positions: tuple[Tensor, Tensor]) -> Tensor:
    """A decoder layer over all blocks, causal attention, a few blocks at a time."""
    with torch.no_grad():
        outputs = [layer(part, position_embeddings=positions, attention_mask=None) for part in hidden_NTD.split(BATCH)]
    return torch.cat([output[0] if isinstance(output, tuple) else output for output in outputs])


@contextlib.contextmanager
def inputs_of(module: nn.Module, take: Callable[[Tensor], Any]) -> Iterator[None]:
    """Hand what a module reads, as rows ``[N, C]``, to ``take``."""

    def read(_: nn.Module, args: tuple[Tensor, ...]) -> None:  # what a hook returns would take the input's place
        take(args[0].detach().flatten(0, -2))

    with module.register_forward_pre_hook(read):
        yield


@torch.no_grad()
def read_everywhere(ground: Ground, modules: Sequence[nn.Module], take: Callable[[int, Tensor], Any]) -> None:
    """Hand what each of some modules reads of the calibration blocks, batch by batch, as rows ``[N, C]`` to ``take``."""
    with contextlib.ExitStack() as hooks:
        for i, module in enumerate(modules):
            hooks.enter_context(inputs_of(module, functools.partial(take, i)))
        for ids_BT in ground.calibration_NT.split(BATCH):
            hidden_states(ground.model, ids_BT)


@contextlib.contextmanager
def changed(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Let some parameters have other values of the same shape."""
    parameters = dict(model.named_parameters())
    before = {name: parameters[name].data for name in tensors}
    try:
        for name, tensor in tensors.items():
            parameters[name].data = tensor
        yield
    finally:
        for name, tensor in before.items():
            parameters[name].data = tensor
