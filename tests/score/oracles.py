"""Every criterion once more, as literally as its paper's formula can be written, from activations that are held whole."""

import itertools
from collections.abc import Callable

import numpy as np
import torch

from core.specs import RankSpec
from tests.score.world import World, block_divergences, block_losses, log_probabilities, loss

WIDTH = ("heads", "neurons", "channels")

Oracle = Callable[[World, str, RankSpec, int], np.ndarray]
"""(world, axis, rank, layers removed) -> importance."""

ORACLES: dict[tuple[str, str], Oracle] = {}
"""(axis, name) -> oracle."""


def oracle(axes: tuple[str, ...], name: str) -> Callable[[Oracle], Oracle]:
    """Enter a function into the list."""

    def enter(function: Oracle) -> Oracle:
        ORACLES.update({(axis, name): function for axis in axes})
        return function

    return enter


def literal(values: np.ndarray, how: str, axis: int) -> np.ndarray:
    """The paper's three aggregations, as printed."""
    if how == "mean":
        return np.abs(values).mean(axis)
    if how == "l2":
        return np.sqrt((values**2).sum(axis))
    return ((values - values.mean(axis, keepdims=True)) ** 2).mean(axis)


def aggregated(values_PNTC: np.ndarray, rank: RankSpec) -> np.ndarray:
    """Over the tokens, then over the blocks."""
    return literal(literal(values_PNTC, rank.sequence, 2), rank.batch, 1)


def by_head(world: World, values_Q: np.ndarray) -> np.ndarray:
    """The last axis split into heads and what is in each."""
    return values_Q.reshape(*values_Q.shape[:-1], world.heads, -1)


@oracle(("heads",), "activation")
def head_norms(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    return aggregated(np.linalg.norm(by_head(world, world.held["joined"]), axis=-1), rank)


@oracle(("neurons",), "activation")
def neurons(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    return aggregated(world.held["neurons"], rank)


@oracle(("channels",), "activation")
def channels(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    return aggregated(world.held["normed"], rank).sum(0)


@oracle(("channels",), "activation_normalised")
def channels_normalised(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    return sum(scores / scores.mean() for scores in aggregated(world.held["normed"], rank))


@oracle(("heads",), "channel_first")
def channel_first(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    return np.linalg.norm(by_head(world, aggregated(world.held["joined"], rank)), axis=-1)


@oracle(("neurons",), "pre_activation")
def pre_activation(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    return aggregated(world.held["gates"], rank)


@oracle(WIDTH, "magnitude")
def magnitude(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    state = world.state()
    if axis == "channels":
        return np.sqrt(sum(channel_squares(name, weight) for name, weight in state.items()))
    part, rows, columns = {
        "heads": ("self_attn", ("q_proj",), "o_proj"), "neurons": ("mlp", ("gate_proj", "up_proj"), "down_proj"),
    }[axis]  # fmt: skip
    found = []
    for layer in range(len(world.model.model.layers)):
        path = f"model.layers.{layer}.{part}."
        tensors = [state[path + name + end] for name in rows for end in (".weight", ".bias") if path + name + end in state]
        tensors.append(state[path + columns + ".weight"].T)
        found.append([np.sqrt(sum((tensor[group] ** 2).sum() for tensor in tensors)) for group in world.groups(axis)])
    return np.array(found)


def channel_squares(name: str, weight: np.ndarray) -> np.ndarray | float:
    """Squares of what a tensor holds for each channel, by what it does with the residual stream."""
    if name.endswith(("q_norm.weight", "k_norm.weight")) or (
        name.endswith(".bias") and not name.endswith(("o_proj.bias", "down_proj.bias"))
    ):
        return 0.0
    writes = name.endswith(("o_proj.weight", "down_proj.weight"))
    return (weight**2).sum(1) if writes else (weight**2).sum(0) if weight.ndim == 2 else weight**2


def per_unit(world: World, axis: str, values_PC: np.ndarray) -> np.ndarray:
    """Columns summed into units, and channels over their places."""
    found = np.stack([values_PC[:, group].sum(1) for group in world.groups(axis)], axis=1)
    return found.sum(0) if axis == "channels" else found


@oracle(WIDTH, "wanda")
def wanda(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    columns = [
        sum(np.abs(weight_OC * np.linalg.norm(acts_MC, axis=0)).sum(0) for weight_OC in weights)
        for weights, acts_MC in zip(world.reading(axis), world.read(axis), strict=True)
    ]
    return per_unit(world, axis, np.stack(columns))


@oracle(WIDTH, "flap")
def flap(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    """What a constant in the column's place would miss: the output's mean squared error with the mean put there."""
    columns = []
    for weights, acts_MC in zip(world.reading(axis), world.read(axis), strict=True):
        missed_MC = acts_MC - acts_MC.mean(0)
        columns.append(
            [sum(((missed_MC[:, [c]] @ weight[:, [c]].T) ** 2).sum(1).mean() for weight in weights) for c in range(acts_MC.shape[1])]
        )
    return per_unit(world, axis, np.array(columns))


@oracle(("neurons",), "channel_contribution")
def channel_contribution(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    """Mean length of what each neuron adds to the residual stream."""
    places = zip(world.reading(axis), world.read(axis), strict=True)
    return np.array(
        [[np.linalg.norm(acts[:, [c]] * weight[:, c], axis=1).mean() for c in range(acts.shape[1])] for (weight,), acts in places]
    )


def gate_derivatives(world: World, axis: str) -> np.ndarray:
    """Derivative of each block's loss to each gate, ``[N, ...]``, with the gates written into the weights.

    A gate at what a projection reads is a factor of its columns, so its derivative is sum(weight x gradient of the weight)
    over these; one at a normalisation's output is a factor of the normalisation's gains.
    """
    found = []
    for i in range(world.spec.gradient_blocks):
        world.model.zero_grad()
        documents_NT = None if world.documents_NT is None else world.documents_NT[i : i + 1]
        block_losses(world.model, world.blocks_NT[i : i + 1], documents_NT=documents_NT).mean().backward()
        rows = []
        for layer in world.model.model.layers:
            if axis == "channels":
                rows += [norm.weight * norm.weight.grad for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
            else:
                weight = (layer.self_attn.o_proj if axis == "heads" else layer.mlp.down_proj).weight
                rows.append((weight * weight.grad).sum(0))
        found.append(per_unit(world, axis, torch.stack(rows).detach().numpy()))
    world.model.zero_grad()
    return np.stack(found)


@oracle(WIDTH, "taylor")
def taylor(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    return np.abs(gate_derivatives(world, axis)).mean(0)


@oracle(WIDTH, "fisher")
def fisher(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    return (gate_derivatives(world, axis) ** 2).mean(0)


def over_places(world: World, axis: str, of: Callable[[np.ndarray, np.ndarray], list[float]], scaled: bool = False) -> np.ndarray:
    """A formula at every place, from the stacked weights ``[O, C]`` that read it and all activations ``[M, C]``; channels are summed.

    ``scaled`` divides a channel's place by the energy of what its weights give.
    """
    found = []
    for weights, acts_MC in zip(world.reading(axis), world.read(axis), strict=True):
        weight_OC = np.concatenate(weights)
        energy = ((acts_MC @ weight_OC.T) ** 2).sum(1).mean() if scaled and axis == "channels" else 1.0
        found.append(np.array(of(weight_OC, acts_MC)) / energy)
    return np.sum(found, axis=0) if axis == "channels" else np.array(found)


def ridge_of(world: World, acts_MC: np.ndarray) -> float:
    return world.spec.ridge * float((acts_MC**2).mean())


@oracle(WIDTH, "leverage")
def leverage(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    def of(weight_OC: np.ndarray, acts_MC: np.ndarray) -> list[float]:
        cov_CC = acts_MC.T @ acts_MC / len(acts_MC)
        share_C = np.diag(cov_CC @ np.linalg.inv(cov_CC + ridge_of(world, acts_MC) * np.eye(len(cov_CC))))
        return [share_C[group].sum() for group in world.groups(axis)]

    return over_places(world, axis, of)


@oracle(WIDTH, "obs")
def obs(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    """Refit the projection without the unit by ridge least squares: the objective, which is 0 with it, rises to this."""

    def of(weight_OC: np.ndarray, acts_MC: np.ndarray) -> list[float]:
        design = np.concatenate([acts_MC / np.sqrt(len(acts_MC)), np.sqrt(ridge_of(world, acts_MC)) * np.eye(acts_MC.shape[1])])
        wanted, found = design @ weight_OC.T, []
        for group in world.groups(axis):
            others = np.delete(design, group, axis=1)
            found.append(((wanted - others @ np.linalg.lstsq(others, wanted, rcond=None)[0]) ** 2).sum())
        return found

    return over_places(world, axis, of, scaled=True)


def change_without(weight_OC: np.ndarray, acts_MC: np.ndarray, columns: list[int]) -> float:
    """Really remove columns, and look what the projection gives."""
    left_MC = acts_MC.copy()
    left_MC[:, columns] = 0
    return float(((acts_MC @ weight_OC.T - left_MC @ weight_OC.T) ** 2).sum(1).mean())


@oracle(WIDTH, "contribution")
def contribution(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    return over_places(world, axis, lambda weight, acts: [change_without(weight, acts, group) for group in world.groups(axis)], scaled=True)


@oracle(WIDTH, "iterative")
def iterative(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    """The loop as it is told: every time compute the error of all that went and of each that might go next, and let the least go."""
    groups, places = world.groups(axis), list(zip(world.reading(axis), world.read(axis), strict=True))
    stacked = [(np.concatenate(weights), acts) for weights, acts in places]
    energies = [float(((acts @ weight.T) ** 2).sum(1).mean()) for weight, acts in stacked]
    if axis == "channels":
        return removal_order(
            lambda gone: sum(error_of(*place, gone) / energy for place, energy in zip(stacked, energies, strict=True)), groups
        )
    return np.stack([removal_order(lambda gone, place=place: error_of(*place, gone), groups) for place in stacked])


def error_of(weight_OC: np.ndarray, acts_MC: np.ndarray, columns: list[int]) -> float:
    """Mean squared length of what these columns give together."""
    return float(((acts_MC[:, columns] @ weight_OC[:, columns].T) ** 2).sum(1).mean())


def removal_order(error: Callable[[list[int]], float], groups: list[list[int]]) -> np.ndarray:
    """Place of each unit in the greedy order, 1 the first to go."""
    place, gone, left = np.zeros(len(groups)), [], list(range(len(groups)))
    for turn in range(1, len(groups) + 1):
        unit = min(left, key=lambda unit: error(gone + groups[unit]))
        left.remove(unit)
        gone = gone + groups[unit]
        place[unit] = turn
    return place


@oracle(("layers",), "bi")
def bi(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    entered = world.held["entered"]
    return np.array([1 - cosine(before, after).mean() for before, after in itertools.pairwise(entered)])


def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)


@oracle(("layers",), "ppl")
def ppl(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    return np.array([loss(world, [layer]) for layer in range(5)]) - loss(world, [])


@oracle(("layers",), "kl")
def kl(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    count = world.spec.ppl_blocks

    def spoken(without: list[int]) -> list[torch.Tensor]:
        return log_probabilities(world.model, world.blocks_NT[:count], without, world.documents(count))

    with torch.no_grad():
        return np.array([block_divergences(spoken([]), spoken([i])).mean().item() for i in range(5)])


def best_of_runs(values: dict[tuple[int, ...], float], rank: RankSpec) -> np.ndarray:
    """For every layer the best run that holds it; no run may hold a protected layer, whose own value is infinite."""
    shielded = set(range(rank.protect_first)) | set(range(5 - rank.protect_last, 5))
    allowed = {run: value for run, value in values.items() if not shielded & set(run)}
    return np.array([min((value for run, value in allowed.items() if layer in run), default=np.inf) for layer in range(5)])


def runs_of(length: int) -> list[tuple[int, ...]]:
    return [tuple(range(start, start + length)) for start in range(5 - length + 1)]


@oracle(("layers",), "angle")
def angle(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    entered = world.held["entered"][:, : world.spec.ppl_blocks]
    half_turns = {run: (np.arccos(cosine(entered[run[0]], entered[run[-1] + 1])) / np.pi).mean() for run in runs_of(removed)}
    return best_of_runs(half_turns, rank)


@oracle(("layers",), "window")
def window(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    whole = loss(world, [])
    return best_of_runs({run: loss(world, list(run)) - whole for run in runs_of(removed)}, rank)


@oracle(("layers",), "greedy")
def greedy(world: World, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    gone: list[int] = []
    for _ in range(world.spec.greedy):
        gone.append(min((layer for layer in range(5) if layer not in gone), key=lambda layer: loss(world, [*gone, layer])))
    return np.array([gone.index(layer) + 1 if layer in gone else world.spec.greedy + 1 for layer in range(5)], float)
