"""The passes over the calibration text that importance is made from, each stored by itself. No torch.

A pass is computed once for a model, a text and the settings that it looks at; scores that ask for more later compute only
what is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from core.specs import ScoreSpec


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One kind of measurement."""

    name: str
    title: str
    settings: tuple[str, ...]
    """Fields of ``ScoreSpec`` that change its result."""
    wanted: Callable[[ScoreSpec], bool]
    advice: str
    """What to ask for to have it."""
    forwards: Callable[[ScoreSpec, int, int], float]
    """(settings, calibration blocks, layers) -> forward passes of one block that it takes, for estimates of its time."""
    brings: tuple[str, ...] = ()
    """Later passes over the same text that its own forward passes give too, as far as they are lacking."""


TEXT = ("isolate_documents",)
"""Settings of every pass over the text."""

LATER = {"loss_tokens": 1.0, "covariance_tokens": 1.0, "greedy_lazy": False}
"""Settings that came after passes had been stored, and what those were made with: they name a pass only where they differ from it."""

WITHOUT_A_LAYER = 0.6
"""Cost of a block's loss without one layer, in forward passes of the block: the layers before it are not run again."""


def _windows(spec: ScoreSpec, _: int, layers: int) -> float:
    return WITHOUT_A_LAYER * spec.ppl_blocks * sum(max(layers - length + 1, 0) for length in spec.windows)


def _greedy(spec: ScoreSpec, _: int, layers: int) -> float:
    """Each time a layer goes, all that are left are tried, in a model that is that much shorter."""
    return WITHOUT_A_LAYER * spec.ppl_blocks * sum(left * left / layers for left in range(layers, layers - spec.greedy, -1))


PASSES = {
    item.name: item
    for item in (
        Pass(name="weights", title="Norms of the weights", settings=(), wanted=lambda _: True, advice="", forwards=lambda *_: 0.0),
        Pass(
            name="covariances", title="Covariances", settings=(*TEXT, "ridge", "covariance_tokens"),
            wanted=lambda spec: spec.covariances, advice="with covariances",
            forwards=lambda spec, blocks, layers: 1.5 * blocks, brings=("activations", "pre_activations"),
        ),
        Pass(
            name="activations", title="Activations", settings=(*TEXT, "shards"), wanted=lambda _: True, advice="",
            forwards=lambda spec, blocks, layers: blocks, brings=("pre_activations",),
        ),
        Pass(
            name="pre_activations", title="Neurons before their activation", settings=(*TEXT, "shards"),
            wanted=lambda spec: spec.pre_activation, advice="with pre_activation",
            forwards=lambda spec, blocks, layers: blocks,
        ),
        Pass(
            name="gradients", title="Gradients", settings=(*TEXT, "shards", "gradient_blocks"),
            wanted=lambda spec: spec.gradient_blocks > 0, advice="with gradient_blocks above 0",
            forwards=lambda spec, blocks, layers: 3.0 * spec.gradient_blocks,
        ),
        Pass(
            name="removal", title="Loss without each layer", settings=(*TEXT, "ppl_blocks", "loss_tokens"),
            wanted=lambda spec: spec.ppl_blocks > 0, advice="with ppl_blocks above 0",
            forwards=lambda spec, blocks, layers: WITHOUT_A_LAYER * spec.ppl_blocks * layers,
        ),
        Pass(
            name="windows", title="Loss without runs of layers", settings=(*TEXT, "ppl_blocks", "loss_tokens", "windows"),
            wanted=lambda spec: bool(spec.windows), advice="with windows, the lengths of the runs",
            forwards=_windows,
        ),
        Pass(
            name="greedy", title="Layers removed one by one", settings=(*TEXT, "ppl_blocks", "loss_tokens", "greedy", "greedy_lazy"),
            wanted=lambda spec: spec.greedy > 0, advice="with greedy, the number of layers to remove",
            forwards=_greedy,
        ),
    )
}  # fmt: skip
"""In the order in which they are computed: what brings others along stands before them."""


def wanted(spec: ScoreSpec) -> list[Pass]:
    """The passes that a spec asks for."""
    return [item for item in PASSES.values() if item.wanted(spec)]


def forwarded(todo: list[Pass]) -> list[Pass]:
    """Those of some passes that run the model for themselves; the others are brought along."""
    return [item for item in todo if not any(item.name in other.brings for other in todo)]


def settings_of(item: Pass, spec: ScoreSpec) -> dict[str, object]:
    """What of a spec changes the result of a pass."""
    return naming({name: getattr(spec, name) for name in item.settings})


def naming(settings: dict[str, object]) -> dict[str, object]:
    """Settings without those that are as they were before they existed, so that what was stored then is found."""
    return {name: value for name, value in settings.items() if name not in LATER or value != LATER[name]}
