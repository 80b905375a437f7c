"""What importance costs: every pass against a bare forward of the body or against its naive form, and how it grows.

``python -m bench.scoring PART ...`` measures some parts only: forward, removal, greedy, memory, blocks, growth.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from bench.harness import Bar, Outcome, interleaved, ratio, show, timing_rows
from core.data.blocks import build
from core.model.checkpoint import load_model
from core.model.head import body
from core.model.source import resolve
from core.score.batch import Batch, read
from core.score.covariances import CovarianceAccumulator
from core.score.depth import Remover, greedy_removal, losses_without
from core.score.width import WidthAccumulator
from core.specs import EMBEDDED_MODEL, DataSpec

GREEDY_LAYERS = 2
LOSS_TOKENS = 0.125
"""Share of the tokens on which the option judges."""
SIZES = {"blocks": (1, 2, 4, 8), "tokens": (512, 1024, 2048, 4096), "layers": (2, 4, 8, 16), "width": (128, 256, 512, 1024)}
"""Four sizes of each, on which growth is shown: of the embedded model's text, and of random models."""


@dataclass(frozen=True)
class Bench:
    """The embedded model and its text, and how much of everything is measured."""

    quick: bool

    @cached_property
    def model(self) -> Any:
        """The model, loaded once."""
        return load_model(resolve(EMBEDDED_MODEL))

    @cached_property
    def batch(self) -> torch.Tensor:
        """What is scored."""
        blocks_NT = torch.from_numpy(build(DataSpec(), resolve(EMBEDDED_MODEL)).calibration_NT[:2].astype(np.int64))
        return blocks_NT[:1, :128] if self.quick else blocks_NT

    def removed(self, tokens: int) -> torch.Tensor:
        """The start of it, on which layers are removed."""
        return self.batch[:1, : 16 if self.quick else tokens]

    def timed(
        self, actions: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter, *, warm: bool = True
    ) -> dict[str, list[float]]:
        """Seconds of each action; a quick look times it once, and warms up only where that is cheap."""
        return interleaved(actions, 1 if self.quick else repeats, clock, warm=warm or not self.quick)


def against(seconds: dict[str, list[float]], to: str, bars: dict[str, tuple[str, str]]) -> Outcome:
    """The outcome of a part whose bars are ratios to the same: name -> (what is measured, limit)."""
    found = [Bar(name=name, value=ratio(seconds, of, to), limit=limit) for name, (of, limit) in bars.items()]
    return Outcome(bars=found, rows=timing_rows(seconds))


def forward_part(bench: Bench) -> Outcome:
    """Statistics and covariances against a bare forward."""
    return against(bench.timed(forwards(bench.model, bench.batch), 9), "bare forward", {
        "scoring / bare forward of the body": ("width and block importance", "<= 1.05"),
        "scoring and covariances / bare forward": ("and covariances", "<= 1.5"),
    })  # fmt: skip


def removal_part(bench: Bench) -> Outcome:
    """Every layer removed in turn, against the naive loop."""
    return against(bench.timed(removals(bench.model, bench.removed(256)), 3, warm=False), "naive removal", {
        "removal losses of all layers / naive loop": ("removal with prefix reuse", "<= 0.45"),
        f"the same, judged on {LOSS_TOKENS:.0%} of the tokens": ("removal on some tokens", "<= 0.45"),
    })  # fmt: skip


def greedy_part(bench: Bench) -> Outcome:
    """Layers removed one after the other, against the naive loop."""
    return against(bench.timed(greedies(bench.model, bench.removed(128)), 1, warm=False), "naive greedy", {
        f"greedy removal of {GREEDY_LAYERS} layers / naive loop": ("greedy removal", "<= 0.35"),
        "the same, lazily": ("lazy greedy removal", "<= 0.35"),
    })  # fmt: skip


def memory_part(bench: Bench) -> Outcome:
    """What scoring adds to the peak, counted as held and as resident."""
    held = memory(bench.model, bench.batch, held=True)
    name = "memory held over a bare forward's / (a layer's activations + accumulators)"
    resident = {} if bench.quick else {"memory, counted as resident": round(memory(bench.model, bench.batch, held=False), 2)}
    return Outcome(settings=resident, bars=[Bar(name=name, value=held, limit="<= 1.2")])


def blocks_part(bench: Bench) -> Outcome:
    """The embedded model on more and more blocks: whether processor time a token stays the same."""
    seconds = bench.timed(blocks(bench.model, bench.batch[:1, :128]), 5, time.process_time, warm=False)
    rates = np.array([np.median(times) / size for size, times in zip(SIZES["blocks"], seconds.values(), strict=True)])
    worst = float(np.abs(rates / np.median(rates) - 1).max())
    return Outcome(
        bars=[Bar(name="largest deviation of time a token from linear", value=worst, limit="<= 0.25")], rows=timing_rows(seconds)
    )


def growth_part(bench: Bench) -> Outcome:
    """Processor time of random models on four sizes of each dimension."""
    outcome = Outcome()
    for what, limit, cases in growths():
        seconds = bench.timed({f"{what}: {size}": action for size, action in cases.items()}, 5, time.process_time)
        power = exponent(list(cases), list(seconds.values()))
        outcome.bars.append(Bar(name=f"growth with {what}, power of the time", value=power, limit=limit))
        outcome.rows += timing_rows(seconds)
    return outcome


PARTS: dict[str, Callable[[Bench], Outcome]] = {
    "forward": forward_part,
    "removal": removal_part,
    "greedy": greedy_part,
    "memory": memory_part,
    "blocks": blocks_part,
    "growth": growth_part,
}
"""What can be measured by itself."""


def measure(*, quick: bool, parts: Sequence[str] = tuple(PARTS)) -> Outcome:
    """Time scoring on the embedded model and text, or some parts of that."""
    bench = Bench(quick)
    settings = {
        "model": "SmolLM2-135M",
        "scored tokens": bench.batch.numel(),
        "threads": torch.get_num_threads(),
        "parts": ", ".join(parts),
    }
    whole = Outcome(settings=settings)
    for part in parts:
        print(f"{part} ...", file=sys.stderr, flush=True)
        outcome = PARTS[part](bench)
        whole.settings |= outcome.settings
        whole.bars += outcome.bars
        whole.rows += outcome.rows
    return whole


def forwards(model: Any, batch: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """A bare forward pass, and what rides on one."""
    config = model.config.to_dict()
    width, covariances = WidthAccumulator(config), CovarianceAccumulator(model, config)

    def bare() -> None:
        with torch.no_grad():
            body(model)(batch, use_cache=False)

    return {
        "bare forward": bare,
        "width and block importance": lambda: width.feed(model, Batch(batch)),
        "and covariances": lambda: read(model, Batch(batch), [width, covariances]),
    }


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


def blocks(model: Any, block: torch.Tensor) -> dict[str, Callable[[], None]]:
    """Scoring so many blocks of equal length, one a forward pass."""
    config = model.config.to_dict()

    def scored(count: int) -> None:
        accumulator = WidthAccumulator(config)
        for _ in range(count):
            accumulator.feed(model, Batch(block))

    return {f"{count} blocks": partial(scored, count) for count in SIZES["blocks"]}


def growths() -> list[tuple[str, str, dict[int, Callable[[], None]]]]:
    """Dimension, the power that is to be expected at most (weights grow with the width's square), and what is scored at each size."""
    narrow = sized_model(layers=2, hidden=128)
    return [
        ("tokens", "<= 1.1", {size: scoring(narrow, size) for size in SIZES["tokens"]}),
        ("layers", "<= 1.1", {size: scoring(sized_model(layers=size, hidden=128), 256) for size in SIZES["layers"]}),
        ("width", "<= 2.1", {size: scoring(sized_model(layers=2, hidden=size), 256) for size in SIZES["width"]}),
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


def exponent(sizes: list[int], seconds: list[list[float]]) -> float:
    """Slope of log time over log size: 1 is linear."""
    return float(np.polyfit(np.log(sizes), np.log([np.median(times) for times in seconds]), 1)[0])


def main() -> int:
    """Measure the named parts."""
    parser = argparse.ArgumentParser(prog="python -m bench.scoring", description="Parts of the benchmark of scoring.")
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quick", action="store_true", help="a first impression; judges nothing")
    given = parser.parse_args()
    return 0 if show("scoring", measure(quick=given.quick, parts=given.parts), as_json=given.json, quick=given.quick) else 1


if __name__ == "__main__":
    sys.exit(main())
