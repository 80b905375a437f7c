"""Importance in rounds: score, cut a part, score what is left, cut the next part (Minitron, arXiv 2407.14679, section 2.2).

At round i of T, every dimension d that shall go from d_s to d_t is scored in the model cut to d_s - i (d_s - d_t) / T and cut to
d_s - (i + 1) (d_s - d_t) / T. Nothing is written in between: the loaded model behaves as if cut while it is scored, and is
afterwards, bit for bit, what it was. Sizes in between need not be ones that can be loaded; only heads stay rectangular.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from core.model.dims import CONFIG_KEYS, Config, Dims, dims_of, family_of, resized, resized_config
from core.plan.plan import Importance, Plan, check_plan, keep_best, keep_masks
from core.progress import Progress, Silent
from core.prune.mask import masked
from core.prune.surgery import kept_along, moves
from core.score.criteria.registry import wanted
from core.score.scoring import score_model
from core.score.sites import sites_of
from core.specs import NO_PINS, Pins, RankSpec, ScoreSpec, Targets


def plan_in_rounds(
    model: PreTrainedModel,
    config: Config,
    blocks_NT: np.ndarray,
    spec: ScoreSpec,
    targets: Targets,
    rank: RankSpec,
    progress: Progress | None = None,
    pins: Pins = NO_PINS,
    documents_NT: np.ndarray | None = None,
) -> Plan:
    """Choose what is kept in ``rank.rounds`` rounds of scoring and cutting; one round gives ``make_plan``'s plan.

    Args:
        blocks_NT: the calibration blocks.
        spec: how to score; passes that ``rank`` does not look at are left out.
        documents_NT: which document each token belongs to, see ``score_model``.

    Raises:
        UserError: see ``make_plan`` and ``score_model``.
        Stopped: progress asked for it, between rounds.
    """
    progress, plans = progress or Silent(), []
    progress.step("plan", 0, rank.rounds)
    for plan in plans_of_rounds(model, config, blocks_NT, spec, targets, rank, pins, documents_NT):
        plans.append(plan)
        progress.step("plan", len(plans), rank.rounds)
    return plans[-1]


def plans_of_rounds(
    model: PreTrainedModel,
    config: Config,
    blocks_NT: np.ndarray,
    spec: ScoreSpec,
    targets: Targets,
    rank: RankSpec,
    pins: Pins = NO_PINS,
    documents_NT: np.ndarray | None = None,
) -> Iterator[Plan]:
    """Yield the plan after each round: each keeps a part of what the one before keeps, the last meets ``targets``.

    What is pinned to go goes first, as many of a round as go in it.
    """
    source = dims_of(config)
    check_plan(config, targets, rank, pins)
    plan = None
    for aim in aims(source, targets, rank.rounds):
        removed = (source.layers if plan is None else len(plan.layers)) - resized(source, aim).layers
        with as_cut(model, config, plan):
            scores = score_model(model, blocks_NT, needed(spec, rank, removed), documents_NT=documents_NT)
        plan = keep_best(scores if plan is None else Rest(scores, plan), source, aim, rank, pins)
        yield plan


def aims(source: Dims, targets: Targets, rounds: int) -> list[Targets]:
    """The sizes after each round, on a straight line to the targets, rounded up; the last are the targets themselves.

    Key-value heads and the query heads of each are two lines, so that the heads of every round are a multiple of its groups.
    """
    end = resized(source, targets)
    found = []
    for done in range(1, rounds):
        size = {name: _between(getattr(source, name), getattr(end, name), done, rounds) for name in ("layers", "hidden", "ffn", "kv_heads")}
        size["heads"] = size["kv_heads"] * _between(source.group, end.group, done, rounds)
        found.append(Targets(**{CONFIG_KEYS[name]: value for name, value in size.items()}))
    return [*found, targets]


def _between(start: int, end: int, done: int, rounds: int) -> int:
    return start - done * (start - end) // rounds


def needed(spec: ScoreSpec, rank: RankSpec, removed: int) -> ScoreSpec:
    """Of ``spec``'s passes those that ``rank`` looks at when ``removed`` layers go."""
    passes = {criterion.needs for criterion in wanted(rank).values()}
    length, protected = max(removed, 1), rank.protect_first + rank.protect_last
    return replace(
        spec,
        ppl_blocks=spec.ppl_blocks if passes & {"removal", "windows", "greedy"} else 0,
        gradient_blocks=spec.gradient_blocks if "gradients" in passes else 0,
        covariances=spec.covariances and "covariances" in passes,
        pre_activation=spec.pre_activation and "pre_activations" in passes,
        windows=(length,) if spec.windows and "windows" in passes else (),
        greedy=length + protected if spec.greedy and "greedy" in passes else 0,
    )


@dataclass(frozen=True)
class Rest:
    """Importance of what a plan has left, in the uncut model's places; what is gone already is worth -inf, so it stays away."""

    scores: Importance
    """Of the model as cut: without the layers that are gone, with the rest of its units."""
    plan: Plan

    @property
    def dims(self) -> Dims:
        """Dimensions of the uncut model."""
        return self.plan.source

    def importance(self, axis: str, rank: RankSpec, removed: int = 1) -> np.ndarray:
        """Importance of an axis' units; ``removed`` counts from the uncut model."""
        left = self.scores.importance(axis, rank, removed - (self.dims.layers - len(self.plan.layers)))
        mask = keep_masks(self.plan)[axis]
        found = np.full(mask.shape, -np.inf)
        found[... if axis == "channels" else self.plan.layers] = left
        return np.where(mask, found, -np.inf)


@contextlib.contextmanager
def as_cut(model: PreTrainedModel, config: Config, plan: Plan | None) -> Iterator[None]:
    """Let the loaded model be the cut one for whoever scores it; None for no plan yet.

    Masks make it compute what the cut model would. Layers are set aside too, because criteria that judge runs of layers would
    count a masked one; weights are zeroed too, because there are criteria that look at weights. A ridge is still a share of
    the mean over all units, the masked ones included.
    """
    if plan is None:
        yield
        return
    with masked(model, dict(config), plan), _weights_zeroed(model, config, plan), _layers_set_aside(model, config, plan.layers.tolist()):
        yield


@contextlib.contextmanager
def _weights_zeroed(model: nn.Module, config: Config, plan: Plan) -> Iterator[None]:
    """Zero whatever a cut would take away of the kept layers' tensors; remember no more than that."""
    tensors: dict[str, torch.Tensor] = dict(model.named_parameters())
    taken: list[tuple[torch.Tensor, int, torch.Tensor, torch.Tensor]] = []
    try:
        with torch.no_grad():
            for move in moves(config, plan):
                for axis, dims in enumerate(move.axes):
                    tensor, kept = tensors[move.old], kept_along(dims, plan, move.position)
                    if kept is not None:
                        gone = _others(kept, tensor.shape[axis]).to(tensor.device)
                        taken.append((tensor, axis, gone, tensor.index_select(axis, gone)))
                        tensor.index_fill_(axis, gone, 0)
        yield
    finally:
        with torch.no_grad():
            for tensor, axis, gone, values in reversed(taken):
                tensor.index_copy_(axis, gone, values)


def _others(kept: torch.Tensor, size: int) -> torch.Tensor:
    """The indices below ``size`` that are not kept."""
    return torch.from_numpy(np.setdiff1d(np.arange(size), kept.numpy()))


@contextlib.contextmanager
def _layers_set_aside(model: PreTrainedModel, config: Config, kept: list[int]) -> Iterator[None]:
    """Let the model have only the kept layers, and its config say so."""
    owner_name, _, name = sites_of(config).layers[0].rpartition(".")[0].rpartition(".")
    owner: Any = model.get_submodule(owner_name)
    layers, family = getattr(owner, name), family_of(config)
    smaller = resized_config(config, replace(dims_of(config), layers=len(kept)), kept)
    keys = [family.config_keys.get("layers", CONFIG_KEYS["layers"]), *family.per_layer_keys]
    before = {key: getattr(model.config, key) for key in keys if key in smaller}
    try:
        setattr(owner, name, nn.ModuleList(layers[i] for i in kept))
        for key in before:
            setattr(model.config, key, smaller[key])
        yield
    finally:
        setattr(owner, name, layers)
        for key, value in before.items():
            setattr(model.config, key, value)
