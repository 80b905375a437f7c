"""What importance costs: every pass against a bare forward of the body or against its naive form, and how it grows."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from bench.harness import Bar, Outcome, interleaved, ratio, timing_rows
from core.data.blocks import build
from core.model.checkpoint import load_model
from core.model.head import body
from core.model.source import resolve
from core.score.batch import Batch
from core.score.covariances import CovarianceAccumulator
from core.score.depth import Remover, greedy_removal, losses_without
from core.score.width import WidthAccumulator
from core.specs import EMBEDDED_MODEL, DataSpec

GREEDY_LAYERS = 2
LOSS_TOKENS = 0.125
"""Share of the tokens on which the option judges."""
SIZES = {"tokens": (128, 256, 512, 1024), "layers": (2, 4, 8, 16), "width": (128, 256, 512, 1024)}
"""Sizes of random models and texts on which growth is shown."""


def measure(*, quick: bool) -> Outcome:
    """Time scoring on the embedded model and text."""
    folder = resolve(EMBEDDED_MODEL)
    model = load_model(folder)
    blocks_NT = torch.from_numpy(build(DataSpec(), folder).calibration_NT[:2].astype(np.int64))
    batch, removal = (blocks_NT[:1, :128], blocks_NT[:1, :64]) if quick else (blocks_NT, blocks_NT[:1, :256])
    forward = interleaved(forwards(model, batch), 2 if quick else 9)
    depth = interleaved(removals(model, removal), 1 if quick else 3)
    greedy = interleaved(greedies(model, removal[:, :128]), 1)
    resident = memory(model, batch, held=False)
    bars = [
        ("scoring / bare forward of the body", ratio(forward, "width and block importance", "bare forward"), "<= 1.05"),
        ("scoring and covariances / bare forward", ratio(forward, "and covariances", "bare forward"), "<= 1.5"),
        ("removal losses of all layers / naive loop", ratio(depth, "removal with prefix reuse", "naive removal"), "<= 0.45"),
        (f"the same, judged on {LOSS_TOKENS:.0%} of the tokens", ratio(depth, "removal on some tokens", "naive removal"), "<= 0.45"),
        (f"greedy removal of {GREEDY_LAYERS} layers / naive loop", ratio(greedy, "greedy removal", "naive greedy"), "<= 0.35"),
        ("the same, lazily", ratio(greedy, "lazy greedy removal", "naive greedy"), "<= 0.35"),
        ("largest deviation of time a token from linear", growth(model, blocks_NT[:1], quick), "<= 0.25"),
        *((f"growth with {what}: exponent of the time", exponent(cases, 1 if quick else 5), limit) for what, cases, limit in growths()),
        ("memory held over a bare forward's / (a layer's activations + accumulators)", memory(model, batch, held=True), "<= 1.2"),
    ]
    return Outcome(
        settings={"model": "SmolLM2-135M", "scored tokens": batch.numel(), "removal tokens": removal.numel(), "threads": torch.get_num_threads(),
                  "memory, counted as resident": round(resident, 2)},
        bars=[Bar(name=name, value=value, limit=limit) for name, value, limit in bars],
        rows=timing_rows(forward | depth | greedy),
    )  # fmt: skip


def forwards(model: Any, batch: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """A bare forward pass, and what rides on one."""
    config = model.config.to_dict()
    width, covariances = WidthAccumulator(config), CovarianceAccumulator(model, config)

    def bare() -> None:
        with torch.no_grad():
            body(model)(batch, use_cache=False)

    def both() -> None:
        with covariances.hooks(model, Batch(batch)):
            width.feed(model, Batch(batch))

    return {"bare forward": bare, "width and block importance": lambda: width.feed(model, Batch(batch)), "and covariances": both}


def removals(model: Any, ids_BT: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Removing every layer in turn: naive, and ours."""
    config = model.config.to_dict()
    return {
        "naive removal": lambda: naive_removal(model, ids_BT, range(len(model.model.layers))),
        "removal with prefix reuse": lambda: list(losses_without(model, config, Batch(ids_BT))),
        "removal on some tokens": lambda: list(losses_without(model, config, Batch(ids_BT), LOSS_TOKENS)),
    }


def greedies(model: Any, ids_BT: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Removing some layers one after the other: naive, and ours."""
    config = model.config.to_dict()

    def greedy(lazy: bool) -> None:
        removal = greedy_removal([Remover(model, config, Batch(ids_BT))], lambda layer, loss: None, lazy=lazy)
        for _ in range(GREEDY_LAYERS):
            next(removal)

    return {
        "naive greedy": lambda: naive_greedy(model, ids_BT),
        "greedy removal": lambda: greedy(lazy=False),
        "lazy greedy removal": lambda: greedy(lazy=True),
    }


def naive_loss(model: Any, ids_BT: torch.Tensor, kept: list[int]) -> float:
    """The loss of a model of some of its layers, by a full forward."""
    layers = model.model.layers
    model.model.layers = nn.ModuleList(layers[i] for i in kept)
    with torch.no_grad():
        loss = float(model(ids_BT, labels=ids_BT, use_cache=False).loss)
    model.model.layers = layers
    return loss


def naive_removal(model: Any, ids_BT: torch.Tensor, present: Any) -> list[float]:
    """The loss of the model, and without each layer."""
    return [naive_loss(model, ids_BT, [i for i in present if i != skipped]) for skipped in (None, *present)]


def naive_greedy(model: Any, ids_BT: torch.Tensor) -> list[int]:
    """Layers removed one by one, every candidate by a full forward."""
    present = list(range(len(model.model.layers)))
    for _ in range(GREEDY_LAYERS):
        losses = naive_removal(model, ids_BT, present)
        del present[losses.index(min(losses[1:])) - 1]
    return present


def memory(model: Any, batch: torch.Tensor, *, held: bool) -> float:
    """What scoring adds to the peak memory of a bare forward, as a share of one layer's activations of the batch and the accumulators.

    Args:
        held: count what is held at the peak: glibc gives every large block back at once if it is told to. Else what the process keeps
            resident with glibc's defaults, under which freed blocks stay in a heap that many small survivors cut into pieces.
    """
    switch = {"MALLOC_MMAP_THRESHOLD_": "65536"} if held else {}
    with mock.patch.dict(os.environ, switch), multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        bare, scored = pool.map(peak_bytes, [(False, batch.numpy()), (True, batch.numpy())], chunksize=1)
    config, accumulator = model.config, WidthAccumulator(model.config.to_dict())
    widths = 6 * config.hidden_size + 3 * config.intermediate_size + 2 * config.num_key_value_heads * accumulator.dims.head_dim
    return (scored - bare) / (4 * batch.numel() * widths + sum(array.nbytes for array in accumulator.arrays().values()))


def peak_bytes(task: tuple[bool, np.ndarray]) -> int:
    """How far the resident memory of a fresh process rises over the loaded model while the body runs over a batch, scored or not.

    Linux only, because only there a process can forget the peak that loading the model left.
    """
    scoring, batch = task
    model = load_model(resolve(EMBEDDED_MODEL))
    ids_BT, accumulator = torch.from_numpy(batch), WidthAccumulator(model.config.to_dict())
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # weights mapped from the file would count as the first forward's
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")
    with torch.no_grad():
        accumulator.feed(model, Batch(ids_BT)) if scoring else body(model)(ids_BT, use_cache=False)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(peak.split()[1]) - before


def growth(model: Any, ids_BT: torch.Tensor, quick: bool) -> float:
    """Scoring time a token over 1, 2, 4 and 8 blocks of equal length: largest share by which one differs from their median."""
    config, block = model.config.to_dict(), ids_BT[:, :128]
    sizes = (1, 2) if quick else (1, 2, 4, 8)

    def scored(blocks: int) -> Callable[[], None]:
        def run() -> None:
            accumulator = WidthAccumulator(config)
            for _ in range(blocks):
                accumulator.feed(model, Batch(block))

        return run

    seconds = interleaved({str(size): scored(size) for size in sizes}, 1 if quick else 5)
    rates = [float(np.median(seconds[str(size)])) / size for size in sizes]
    return max(abs(rate / float(np.median(rates)) - 1) for rate in rates)


def growths() -> list[tuple[str, dict[int, Callable[[], None]], str]]:
    """Scoring random models at four sizes of each dimension, and the exponent that is to be expected: weights grow with the width's square."""
    narrow = [sized_model(layers=2, hidden=128)] * 4
    return [
        ("tokens", {size: scoring(model, size) for size, model in zip(SIZES["tokens"], narrow, strict=True)}, "<= 1.1"),
        ("layers", {size: scoring(sized_model(layers=size, hidden=128), 256) for size in SIZES["layers"]}, "<= 1.1"),
        ("width", {size: scoring(sized_model(layers=2, hidden=size), 256) for size in SIZES["width"]}, "<= 2.1"),
    ]


def sized_model(*, layers: int, hidden: int) -> Any:
    """A random Llama of some layers, every width of which is a multiple of ``hidden``."""
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_attention_heads": hidden // 32,
        "num_key_value_heads": hidden // 64,
    }
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", vocab_size=256, num_hidden_layers=layers, **sizes)).eval()


def scoring(model: Any, tokens: int) -> Callable[[], None]:
    """Score a model on so many tokens, in blocks of 128."""
    batch, config = Batch(torch.arange(tokens).view(-1, 128) % 256), model.config.to_dict()
    return lambda: WidthAccumulator(config).feed(model, batch)


def exponent(cases: dict[int, Callable[[], None]], repeats: int) -> float:
    """Slope of log time over log size."""
    seconds = interleaved({str(size): action for size, action in cases.items()}, repeats)
    return float(np.polyfit(np.log(list(cases)), np.log([np.median(times) for times in seconds.values()]), 1)[0])
