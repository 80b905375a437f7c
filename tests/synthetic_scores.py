"""Stored scores with made-up numbers in the layout of a real scoring, for tests that need no model; nothing here is a measurement.

Every unit has a worth of its own, and every shard sees it with some noise, so that rankings of shards are alike but not equal.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from core.model.dims import Dims
from core.score import store
from core.score.passes import forwarded, wanted
from core.score.store import Scores
from core.specs import DataSpec, ScoreSpec

Arrays = dict[str, np.ndarray]

NOISE = 0.2
"""Standard deviation of what a shard sees, as a share of the worth."""


def synthetic_scores(
    key: str, dims: Dims, spec: ScoreSpec | None = None, *, meta: dict[str, Any] | None = None, seed: int = 0, noise: float = NOISE
) -> Scores:
    """Store random scores with the passes that ``spec`` asks for, and open them.

    Args:
        meta: replaces what the meta data says by default (``model``, ``model_fingerprint``, ``data``, ``created``, ...).
    """
    spec = spec or ScoreSpec()
    rng, keys = np.random.default_rng(seed), {}
    for item in wanted(spec):
        keys[item.name] = f"{key}-{item.name}"
        seconds = {"seconds": np.array(4.0)} if item in forwarded(wanted(spec)) else {}
        store.save_pass(keys[item.name], PASSES[item.name](rng, dims, spec, noise) | seconds)
    told = {
        "model": "synthetic", "model_fingerprint": "synthetic", "data": DataSpec().to_dict(), "score": spec.to_dict(), "blocks": 16,
        "tokens": 8192, "teacher_loss": 2.9 if spec.ppl_blocks else None, "created": time.time(), "seconds": 4.0 * len(keys),
    }  # fmt: skip
    return store.save(key, keys, dims, told | (meta or {}))


def worths(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Worths of units: positive, most small, a few large."""
    return np.exp(rng.normal(0, 0.6, shape))


def seen(rng: np.random.Generator, worth: np.ndarray, rows: int, noise: float) -> np.ndarray:
    """What ``rows`` shards or blocks see of the same worth, ``[rows, ...]``."""
    return worth * np.exp(rng.normal(0, noise, (rows, *worth.shape)))


def moments(rng: np.random.Generator, rows: int, noise: float, places: int, units: int) -> np.ndarray:
    """Moments ``[rows, 4, 2, places, units]``: mean, norm, variance and signed mean over tokens, each with its deviation."""
    mean = seen(rng, worths(rng, places, units), rows, noise)
    statistics = np.stack([mean, 20 * mean, mean**2, mean * rng.choice([-1, 1], mean.shape)], axis=1)
    return np.stack([statistics, statistics**2 * rng.random(statistics.shape)], axis=2)


def _sites(dims: Dims) -> dict[str, tuple[int, int]]:
    """Site -> places and units."""
    return {
        "heads": (dims.layers, dims.heads), "head_channels": (dims.layers, dims.heads * dims.head_dim),
        "neurons": (dims.layers, dims.ffn), "channels": (2 * dims.layers, dims.hidden),
    }  # fmt: skip


def _shapes(dims: Dims) -> dict[str, tuple[int, ...]]:
    """Axis -> shape of its importance."""
    return {"heads": (dims.layers, dims.heads), "neurons": (dims.layers, dims.ffn), "channels": (dims.hidden,)}


def _weights(rng: np.random.Generator, dims: Dims, spec: ScoreSpec, noise: float) -> Arrays:
    found = {f"magnitude.{axis}": worths(rng, *shape) for axis, shape in _shapes(dims).items()}
    readers = {site: shape for site, shape in _sites(dims).items() if site != "heads"}
    return found | {f"reader_{norm}.{site}": worths(rng, *shape) for norm in ("l1", "l2") for site, shape in readers.items()}


def _activations(rng: np.random.Generator, dims: Dims, spec: ScoreSpec, noise: float) -> Arrays:
    found = {site: moments(rng, spec.shards, noise, *shape) for site, shape in _sites(dims).items()}
    return found | {"distance": seen(rng, 0.1 * worths(rng, dims.layers), spec.shards, noise), "count": np.full(spec.shards, 4)}


def _pre_activations(rng: np.random.Generator, dims: Dims, spec: ScoreSpec, noise: float) -> Arrays:
    return {"gates": moments(rng, spec.shards, noise, dims.layers, dims.ffn), "count": np.full(spec.shards, 4)}


def _gradients(rng: np.random.Generator, dims: Dims, spec: ScoreSpec, noise: float) -> Arrays:
    shapes = _shapes(dims) | {"channels": (1, dims.hidden)}
    found = {
        f"{kind}.{axis}": seen(rng, worths(rng, *shape), spec.shards, noise)
        for kind in ("taylor", "fisher")
        for axis, shape in shapes.items()
    }
    return found | {"count": np.full(spec.shards, max(spec.gradient_blocks // spec.shards, 1))}


def _covariances(rng: np.random.Generator, dims: Dims, spec: ScoreSpec, noise: float) -> Arrays:
    kinds = ("leverage", "obs", "contribution", "iterative")
    return {f"{kind}.{axis}": worths(rng, *shape) for kind in kinds for axis, shape in _shapes(dims).items()}


def _removal(rng: np.random.Generator, dims: Dims, spec: ScoreSpec, noise: float) -> Arrays:
    rise_L, places = 0.2 * worths(rng, dims.layers), np.arange(dims.layers + 1)
    angles_SS = 0.02 * np.abs(places[:, None] - places[None]) * worths(rng, 1)
    return {
        "losses": 2.9 + np.concatenate([np.zeros((spec.ppl_blocks, 1)), seen(rng, rise_L, spec.ppl_blocks, noise)], axis=1),
        "kl": seen(rng, rise_L, spec.ppl_blocks, noise), "angles": seen(rng, angles_SS, spec.ppl_blocks, noise),
    }  # fmt: skip


def _windows(rng: np.random.Generator, dims: Dims, spec: ScoreSpec, noise: float) -> Arrays:
    found = {"lengths": np.tile(np.array(spec.windows), (spec.ppl_blocks, 1))}
    for length in spec.windows:
        rise_R = 0.2 * length * worths(rng, dims.layers - length + 1)
        losses = np.concatenate([np.zeros((spec.ppl_blocks, 1)), seen(rng, rise_R, spec.ppl_blocks, noise)], axis=1)
        found[f"losses.{length}"] = 2.9 + losses
    return found


def _greedy(rng: np.random.Generator, dims: Dims, spec: ScoreSpec, noise: float) -> Arrays:
    return {"order": rng.permutation(dims.layers)[: spec.greedy], "losses": 2.9 + np.cumsum(0.1 * worths(rng, spec.greedy + 1))}


PASSES: dict[str, Callable[[np.random.Generator, Dims, ScoreSpec, float], Arrays]] = {
    "weights": _weights, "activations": _activations, "pre_activations": _pre_activations, "gradients": _gradients,
    "covariances": _covariances, "removal": _removal, "windows": _windows, "greedy": _greedy,
}  # fmt: skip
"""Pass -> what it stores."""
