"""What importance costs: all activation criteria against a bare forward, and layer removal against its naive loop."""

from typing import Any

import numpy as np
import torch
from torch import nn

from bench.harness import Bar, Outcome, interleaved, ratio, timing_rows
from core.data.blocks import build
from core.model.checkpoint import load_model
from core.model.head import body
from core.model.source import resolve
from core.score.depth import losses_without
from core.score.width import WidthAccumulator
from core.specs import EMBEDDED_MODEL, DataSpec


def measure(*, quick: bool) -> Outcome:
    """Time scoring on the embedded model and text."""
    folder = resolve(EMBEDDED_MODEL)
    model = load_model(folder)
    config = model.config.to_dict()
    blocks_NT = torch.from_numpy(build(DataSpec(), folder).calibration_NT[:2].astype(np.int64))
    batch = blocks_NT[:1, :128] if quick else blocks_NT
    removal = blocks_NT[:1, :64] if quick else blocks_NT[:1, :256]
    accumulator = WidthAccumulator(config)

    def bare() -> None:
        with torch.no_grad():
            body(model)(batch, use_cache=False)

    width = interleaved({"bare forward": bare, "width and block importance": lambda: accumulator.feed(model, batch)}, 2 if quick else 5)
    depth = interleaved(
        {
            "naive removal loop": lambda: naive_removal(model, removal),
            "removal with prefix reuse": lambda: list(losses_without(model, config, removal)),
        },
        1 if quick else 2,
    )
    return Outcome(
        settings={
            "model": "SmolLM2-135M",
            "scored tokens": batch.numel(),
            "removal tokens": removal.numel(),
            "threads": torch.get_num_threads(),
        },
        bars=[
            Bar(
                name="scoring / bare forward of the body", value=ratio(width, "width and block importance", "bare forward"), limit="<= 1.15"
            ),
            Bar(
                name="removal losses of all layers / naive loop",
                value=ratio(depth, "removal with prefix reuse", "naive removal loop"),
                limit="<= 0.6",
            ),
        ],
        rows=timing_rows(width | depth),
    )


def naive_removal(model: Any, ids_BT: torch.Tensor) -> list[float]:
    """The loss of the whole model and without each layer, every time by a full forward of a model that lacks the layer."""
    layers, losses = model.model.layers, []
    for skipped in (None, *range(len(layers))):
        model.model.layers = nn.ModuleList(layer for i, layer in enumerate(layers) if i != skipped)
        with torch.no_grad():
            losses.append(float(model(ids_BT, labels=ids_BT, use_cache=False).loss))
    model.model.layers = layers
    return losses
