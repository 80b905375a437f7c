"""Random plans of many shapes, and how well the estimate of their damage orders them before anything is measured."""

from collections.abc import Iterator

import numpy as np

from bench.harness import Bar, Outcome
from bench.peers.ground import Ground
from core.data.blocks import build
from core.evaluate import measure as evaluate
from core.files import content_hash, read_json, write_json
from core.model.checkpoint import load_model, load_tokenizer
from core.model.source import fingerprint, resolve
from core.plan.plan import Plan
from core.plan.proxy import estimated_damage
from core.plan.sizes import problems
from core.prune.mask import masked
from core.specs import EMBEDDED_MODEL, MIX, MIXED_TEXTS, DataSpec, RankSpec, Targets, TextSpec
from core.workspace import room

RANKS = (
    RankSpec(),
    RankSpec(heads="wanda", neurons="wanda", channels="activation_normalised"),
    RankSpec(heads="flap", neurons="flap"),
)
"""What plans are ranked by, drawn like everything else."""
REMOVED = (0.08, 0.40)
"""Shares of all parameters between which a plan counts."""

PLANS, TOKENS = 36, 256
"""How many plans; and on how many tokens of one held-out block of each text their divergence from the uncut model is measured."""


def measure(*, quick: bool) -> Outcome:
    """Hold the estimate of random plans against their divergence, masked and unrepaired."""
    data = DataSpec(text=TextSpec(source=MIX), elsewhere=(), heldout_blocks=len(MIXED_TEXTS), calibration_blocks=4 if quick else 16)
    folder, tokens = resolve(EMBEDDED_MODEL), 32 if quick else TOKENS
    ground = Ground(folder, load_model(folder), build(data, folder))
    heldout_NT = next(iter(ground.blocks.heldout.values()))[:, :tokens]
    found, pairs = order(ground, heldout_NT, 4 if quick else PLANS, fingerprint(folder))
    return Outcome(
        settings={"model": "SmolLM2-135M", "calibrated on": MIX, "plans": len(pairs), "tokens": int(heldout_NT.size)},
        bars=[Bar(name="Spearman of estimated and measured divergence", value=found, limit=">= 0.85")],
        rows=[{"estimated, nats": estimate, "measured, nats": truth} for estimate, truth in sorted(pairs)],
    )


def random_plans(ground: Ground, count: int, seed: int = 1) -> Iterator[Plan]:
    """Plans that cut any of the axes, each to a random size; some axes often stay whole."""
    rng, dims = np.random.default_rng(seed), ground.dims
    while count:
        kv_heads = dims.kv_heads if rng.random() < 0.6 else int(rng.integers(1, dims.kv_heads + 1))
        heads = kv_heads * (dims.group if rng.random() < 0.8 else int(rng.integers(1, dims.group + 1)))
        hidden = dims.hidden if rng.random() < 0.5 else heads * int(rng.integers(dims.hidden * 3 // 4 // heads, dims.hidden // heads + 1))
        ffn = dims.ffn if rng.random() < 0.15 else int(rng.integers(dims.ffn * 4 // 10, dims.ffn + 1))
        layers = dims.layers if rng.random() < 0.4 else int(rng.integers(dims.layers * 3 // 4, dims.layers + 1))
        targets = Targets(
            num_hidden_layers=layers, hidden_size=hidden, intermediate_size=ffn, num_attention_heads=heads, num_key_value_heads=kv_heads
        )
        removed = 1 - ground.parameters(targets) / ground.budget(0)
        if REMOVED[0] < removed < REMOVED[1] and not problems(ground.config, targets):
            yield ground.keep(targets, ground.scores(), RANKS[int(rng.integers(len(RANKS)))])
            count -= 1


def order(ground: Ground, blocks_NT: np.ndarray, count: int, weights: str) -> tuple[float, list[tuple[float, float]]]:
    """Spearman's correlation of estimated and measured divergence over random plans, and both of each, nats a token.

    Args:
        weights: the model's fingerprint; measured plans are kept under it.
    """
    pairs, teacher = [], None
    for plan in random_plans(ground, count):
        path = (
            room("quality")
            / f"kl-{content_hash({'model': weights, 'plan': plan.identity, 'blocks': content_hash(blocks_NT.tobytes())})}.json"
        )
        if not path.exists():
            teacher = teacher or evaluate.reference(ground.model, blocks_NT)
            with masked(ground.model, ground.config, plan):
                found = evaluate.measure(ground.model, blocks_NT, load_tokenizer(ground.folder), teacher=teacher)
            write_json(path, {"kl_nats": found["kl_nats"]})
        pairs.append((estimated_damage(ground.scores(), plan), float(read_json(path)["kl_nats"])))
    return spearman(*np.array(pairs).T), pairs


def spearman(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """Correlation of the ranks; no two values may be equal."""
    ranks = [np.argsort(np.argsort(values_N)) for values_N in (first_N, second_N)]
    return float(np.corrcoef(*ranks)[0, 1])
