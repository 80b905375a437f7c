"""A tiny model in float64, every activation of it held whole, and what the engine says of it.

Both sides run the same float64 model, normalisations included, and the engine never sums more coarsely than a model computes; so
they have to say the same to 1e-6. What float32 and bfloat16 do to scores is measured apart (``test_width``).
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.score.batch import PADDING
from core.score.scoring import score_model
from core.score.store import Scores
from core.specs import ScoreSpec
from tests.tiny import random_blocks, random_documents, tiny_model

TWO_KINDS = ["full_attention", "sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama with a tied head": ("llama", {"tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": 7}),
    "qwen2": ("qwen2", {}),
    "qwen2 with layers of two kinds": ("qwen2", {"sliding_window": 5, "use_sliding_window": True, "layer_types": TWO_KINDS}),
    "qwen3": ("qwen3", {}),
    "smollm3": ("smollm3", {}),
}
"""Every family, and what of a config changes the way of the data."""

EVERYTHING = ScoreSpec(
    shards=4, ppl_blocks=3, gradient_blocks=5, covariances=True, ridge=0.03, pre_activation=True, windows=(1, 2, 3), greedy=4, batch_size=4
)
"""Asks for every pass; no number of blocks is a multiple of another."""


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """A model, its text, all that it computes on it, and its scores."""

    model: PreTrainedModel
    blocks_NT: np.ndarray
    spec: ScoreSpec
    scores: Scores
    documents_NT: np.ndarray | None
    """Which document each token belongs to, if these are kept apart."""
    held: dict[str, np.ndarray]
    """float64: ``joined`` ``[L, N, T, Q]``, ``neurons`` and ``gates`` ``[L, N, T, F]``, ``normed`` ``[P, N, T, D]``, ``entered`` ``[L + 1, N, T, D]``."""

    def documents(self, count: int) -> np.ndarray | None:
        """Which document each token of the first blocks belongs to."""
        return None if self.documents_NT is None else self.documents_NT[:count]

    @property
    def heads(self) -> int:
        """Query heads."""
        return int(self.model.config.num_attention_heads)

    def state(self) -> dict[str, np.ndarray]:
        """All weights by name; a tied head is listed once."""
        return {name: weight.detach().numpy() for name, weight in self.model.named_parameters()}

    def reading(self, axis: str) -> list[list[np.ndarray]]:
        """The weights ``[O, C]`` that read each place of an axis, by the names that transformers gives them."""
        layers = self.model.model.layers
        modules = {
            "heads": [[layer.self_attn.o_proj] for layer in layers],
            "neurons": [[layer.mlp.down_proj] for layer in layers],
            "channels": [group for layer in layers for group in readers(layer)],
        }[axis]
        return [[module.weight.detach().numpy() for module in group] for group in modules]

    def read(self, axis: str) -> np.ndarray:
        """What those weights read, over all tokens: ``[P, N * T, C]``."""
        values = self.held[{"heads": "joined", "neurons": "neurons", "channels": "normed"}[axis]]
        return values.reshape(len(values), -1, values.shape[-1])

    def groups(self, axis: str) -> list[list[int]]:
        """The columns of each unit."""
        count = self.read(axis).shape[2]
        width = count // self.heads if axis == "heads" else 1
        return [list(range(start, start + width)) for start in range(0, count, width)]


def readers(layer: nn.Module) -> list[list[nn.Module]]:
    """For each normalisation of a layer what reads it."""
    attention, mlp = layer.self_attn, layer.mlp
    return [[attention.q_proj, attention.k_proj, attention.v_proj], [mlp.gate_proj, mlp.up_proj]]


@functools.cache
def world(kind: str, packed: bool = False) -> World:
    """Build one, once; ``packed`` makes its blocks hold several documents each."""
    model, blocks = exact_model(kind), random_blocks(6, 19)
    documents = random_documents(blocks.shape) if packed else None
    return World(
        model=model, blocks_NT=blocks, documents_NT=documents, spec=EVERYTHING, held=hold(model, blocks, documents),
        scores=score_model(model, blocks, EVERYTHING, documents_NT=documents),
    )  # fmt: skip


def exact_model(kind: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A tiny model of a kind in float64; transformers would compute its normalisations in float32."""
    model_type, settings = KINDS[kind]
    model = tiny_model(model_type, seed, **(settings | changes)).double()
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = functools.partial(exact_norm, module)
    return model


def exact_norm(module: nn.Module, values: Tensor) -> Tensor:
    """RMS normalisation in the dtype that comes in."""
    return module.weight * values * (values.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()


def texts_of(block_T: np.ndarray, documents_T: np.ndarray | None) -> list[Tensor]:
    """The documents of a block, ``[1, T]`` each; padding is none."""
    if documents_T is None:
        return [torch.from_numpy(block_T[None]).long()]
    parts = np.split(np.arange(len(block_T)), np.flatnonzero(np.diff(documents_T)) + 1)
    return [torch.from_numpy(block_T[None, part]).long() for part in parts if documents_T[part[0]] != PADDING]


def rows_of(blocks_NT: np.ndarray, documents_NT: np.ndarray | None) -> Iterator[list[Tensor]]:
    """The documents of each block."""
    return (texts_of(block_T, None if documents_NT is None else documents_NT[i]) for i, block_T in enumerate(blocks_NT))


def hold(model: PreTrainedModel, blocks_NT: np.ndarray, documents_NT: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Run the model over every document by itself, keep everything, and put it together again as the documents are packed."""
    blocks = [[_held(model, ids) for ids in texts] for texts in rows_of(blocks_NT, documents_NT)]
    return {
        site: np.concatenate([np.concatenate([text[site] for text in texts], axis=2) for texts in blocks], axis=1) for site in blocks[0][0]
    }


def _held(model: PreTrainedModel, ids: Tensor) -> dict[str, np.ndarray]:
    """Everything that one text gives, ``[places, 1, T, C]``."""
    kept: dict[str, list[np.ndarray]] = {}

    def keep(site: str, value: Tensor) -> None:
        kept.setdefault(site, []).append(value.detach().double().numpy().copy())

    def before(site: str) -> Any:
        return lambda _, args: keep(site, args[0])

    def after(site: str) -> Any:
        return lambda _, args, output: keep(site, output)

    hooks = []
    for layer in model.model.layers:
        hooks += [
            layer.self_attn.o_proj.register_forward_pre_hook(before("joined")), layer.mlp.down_proj.register_forward_pre_hook(before("neurons")),
            layer.mlp.gate_proj.register_forward_hook(after("gates")), layer.input_layernorm.register_forward_hook(after("normed")),
            layer.post_attention_layernorm.register_forward_hook(after("normed")), layer.register_forward_pre_hook(before("entered")),
        ]  # fmt: skip
    hooks.append(model.model.norm.register_forward_pre_hook(before("entered")))
    with torch.no_grad():
        model.model(ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    return {site: np.stack(values) for site, values in kept.items()}


@contextlib.contextmanager
def passing_over(model: PreTrainedModel, layers: list[int]) -> Iterator[None]:
    """The model without some layers: each gives what it got."""
    hooks = [model.model.layers[i].register_forward_hook(lambda _, args, output: args[0]) for i in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def log_probabilities(
    model: PreTrainedModel, blocks_NT: np.ndarray, without: list[int] | None = None, documents_NT: np.ndarray | None = None
) -> list[Tensor]:
    """Full log-softmaxes of every block, float64 ``[P, V]``: of the tokens that have a next one, each document by itself."""
    with passing_over(model, without or []):
        return [
            torch.cat([model(ids, use_cache=False).logits[0, :-1].double().log_softmax(-1) for ids in texts])
            for texts in rows_of(blocks_NT, documents_NT)
        ]


def block_losses(
    model: PreTrainedModel, blocks_NT: np.ndarray, without: list[int] | None = None, documents_NT: np.ndarray | None = None
) -> Tensor:
    """Every block's mean next-token loss, ``[N]``."""
    targets = [torch.cat([ids[0, 1:] for ids in texts]) for texts in rows_of(blocks_NT, documents_NT)]
    found = log_probabilities(model, blocks_NT, without, documents_NT)
    return torch.stack([-values.gather(-1, target[:, None]).mean() for values, target in zip(found, targets, strict=True)])


def block_divergences(whole: list[Tensor], other: list[Tensor]) -> Tensor:
    """KL(whole || other) of every block, mean over its predictions, ``[N]``."""
    return torch.stack([(one.exp() * (one - two)).sum(-1).mean() for one, two in zip(whole, other, strict=True)])


def loss(world: World, without: list[int]) -> float:
    """Mean loss on the judged blocks, without some layers."""
    return _loss(world, tuple(sorted(without)))


@functools.cache
def _loss(world: World, without: tuple[int, ...]) -> float:
    count = world.spec.ppl_blocks
    with torch.no_grad():
        return float(block_losses(world.model, world.blocks_NT[:count], list(without), world.documents(count)).mean())


def hooks_left(model: nn.Module) -> int:
    """How many hooks hang in a model."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks) for module in model.modules())
