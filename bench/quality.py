"""What a cut costs before any training: other tools' ways, from their packages or by their formulas, against Coppice's recipes.

Everybody cuts the same model by the same share of all its parameters, on the same calibration tokens; a gap is the rise of the
loss above the uncut model, in nats a token, on text that nobody calibrated on. Every row is kept in the workspace's ``quality``
under the hash of all that determines it, so an interrupted measurement goes on where it was. ``python -m bench.quality WORDS``
measures only the rows whose name holds one of the words, on the calibration texts that are given as ``on:NAME``, as many blocks of
them as ``blocks:COUNT`` says, and shows all that is known with so many by then.
"""

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import coppice
from bench.harness import Bar, Outcome, show
from bench.peers import flap, llm_pruner, minitron, optipfair, osscar, packages, slicegpt
from bench.peers.ground import BATCH, Cut, Ground
from core.data.blocks import build
from core.evaluate.measure import evaluating
from core.files import content_hash, read_json, write_json
from core.model.checkpoint import load_model
from core.model.head import head_weight, hidden_states, token_losses
from core.model.source import fingerprint, resolve
from core.specs import EMBEDDED_MODEL, EMBEDDED_TEXTS, MIX, MIXED_TEXTS, DataSpec, TextSpec
from core.workspace import room

VERSION = 1
"""Raised when the way of measuring changes, which makes everything be measured anew."""
SHARES = (0.20, 0.35)
"""Parts of all parameters that go."""
ELSEWHERE = "sotu"
"""The text that no calibration set holds."""
CALIBRATION = MIX
"""The text that everybody calibrates on."""
SINGLE = "wikipedia"
"""The one domain that the mix is set against."""
UNCUT = "uncut"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much of everything."""

    seq_len: int = 512
    calibration_blocks: int = 128
    """What everybody calibrates on; twice as many as a repair fits on by default."""
    heldout_blocks: int = 6
    """Of the text that nobody calibrates on."""
    mixed_blocks: int = 2
    """Of each text of the mix, ten in all."""
    shares: tuple[float, ...] = SHARES

    def measured(self) -> dict[str, int]:
        """What a row depends on."""
        names = ("seq_len", "calibration_blocks", "heldout_blocks", "mixed_blocks")
        return {name: getattr(self, name) for name in names}

    def data(self, source: str) -> DataSpec:
        """The sets of one text."""
        return DataSpec(
            text=TextSpec(source=source), elsewhere=(), seq_len=self.seq_len, calibration_blocks=self.calibration_blocks,
            train_blocks=self.calibration_blocks, heldout_blocks=self.heldout_blocks,
        )  # fmt: skip


FULL = Settings()
QUICK = Settings(seq_len=64, calibration_blocks=5, heldout_blocks=1, mixed_blocks=1, shares=(0.20,))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to cut."""

    name: str
    how: str
    """``package``, ``by formula`` or ``Coppice``."""
    make: Callable[[Ground, float], Cut]
    best_of: bool = True
    """Whether it is one of those of which the best is the bar."""


OSSCAR = Row(name="OSSCAR, FFN", how="by formula", make=osscar.ffn, best_of=False)
PEERS = (
    Row(name="Minitron, FFN", how="by formula", make=minitron.ffn),
    Row(name="Minitron, FFN and KV groups", how="by formula", make=minitron.ffn_and_groups),
    Row(name="Minitron, four layers by BI and FFN", how="by formula", make=minitron.depth_and_ffn),
    Row(name="ShortGPT, layers by BI", how="by formula", make=minitron.depth),
    Row(name="optipfair, data-driven MLP", how="by formula", make=optipfair.by_formula),
    Row(name="LLM-Pruner, Taylor, MLP", how="by formula", make=llm_pruner.taylor_ffn),
    Row(name="FLAP, FFN", how="by formula", make=flap.ffn),
    Row(name="FLAP, FFN with bias", how="by formula", make=flap.ffn_with_bias),
    Row(name="FLAP, KV groups and FFN with bias", how="by formula", make=flap.groups_and_ffn_with_bias),
    Row(name="SliceGPT", how="by formula", make=slicegpt.slices),
    OSSCAR,
)

PACKAGES = (
    Row(name="optipfair, data-driven MLP, its package", how="package", make=packages.optipfair),
    Row(name="Torch-Pruning, group Taylor, MLP, its package", how="package", make=packages.torch_pruning),
    Row(name="NVIDIA Model Optimizer, channel contribution, its package", how="package", make=packages.modelopt),
)
RECIPES = tuple(Row(name=f"Coppice, {name}", how="Coppice", make=make, best_of=False) for name, make in coppice.RECIPES.items())
DEFAULT, SCALED = RECIPES[:2]
ROWS = (*PEERS, *PACKAGES, *RECIPES)


class Lab:
    """The model, the texts, and every figure that was measured on them."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.folder = settings, resolve(EMBEDDED_MODEL)
        self.weights = fingerprint(self.folder)

    @cache  # noqa: B019 - one lab a process
    def ground(self, source: str) -> Ground:
        """The uncut model with calibration blocks of a text."""
        return Ground(self.folder, self.model, build(self.settings.data(source), self.folder))

    @property
    @cache  # noqa: B019
    def model(self) -> Any:
        """The loaded model, shared by all grounds."""
        return load_model(self.folder)

    @cache  # noqa: B019
    def heldout(self, domain: str) -> np.ndarray:
        """Held-out blocks of a text by itself, which are in no calibration set of the same seed, the mix's neither."""
        blocks_NT = next(iter(build(self.settings.data(domain), self.folder).heldout.values()))
        return blocks_NT if domain == ELSEWHERE else blocks_NT[: self.settings.mixed_blocks]

    def place(self, row: Row, share: float, source: str) -> tuple[Path, dict[str, Any]]:
        """Where a figure is kept, and all that determines it."""
        about = {"version": VERSION, "settings": self.settings.measured(), "model": self.weights, "name": row.name,
                 "how": row.how, "share": share, "text": source}  # fmt: skip
        return room("quality") / f"{content_hash(about)}.json", about

    def measured(self, row: Row, share: float, source: str) -> dict[str, Any]:
        """Parameters, and the mean loss on each held-out text; measured once."""
        path, about = self.place(row, share, source)
        if not path.exists():
            began = time.process_time()
            ground = self.ground(source)
            cut = row.make(ground, share)
            made = time.process_time() - began
            with cut.apply() as model:
                losses = {domain: self.losses(model or self.model, domain) for domain in EMBEDDED_TEXTS}
            write_json(path, about | {"parameters": cut.parameters, "losses": losses, "cpu_s": made, "note": cut.note})
            print(f"  {row.name}, {share:.0%}, {source}: {gaps_told(losses)}", file=sys.stderr, flush=True)
        return dict(read_json(path))

    def losses(self, model: Any, domain: str) -> list[float]:
        """Mean loss of each held-out block, nats a token."""
        found = []
        with evaluating(model):
            for ids_BT in torch.from_numpy(self.heldout(domain).astype(np.int64)).split(BATCH):
                losses_BT = token_losses(hidden_states(model, ids_BT)[:, :-1], head_weight(model), ids_BT[:, 1:])
                found += losses_BT.mean(1).tolist()
        return found

    def uncut(self) -> dict[str, list[float]]:
        """The uncut model's losses."""
        whole = Row(name=UNCUT, how="", make=lambda ground, share: Cut(parameters=0, apply=lambda: evaluating(ground.model)))
        return dict(self.measured(whole, 0.0, "wikipedia")["losses"])

    def gap(self, row: Row, share: float, source: str, domains: Sequence[str]) -> float:
        """Nats above the uncut model, mean of some texts."""
        losses, whole = self.measured(row, share, source)["losses"], self.uncut()
        return float(np.mean([np.mean(losses[domain]) - np.mean(whole[domain]) for domain in domains]))


def gaps_told(losses: dict[str, list[float]]) -> str:
    """Losses in a line."""
    return ", ".join(f"{domain} {np.mean(values):.3f}" for domain, values in losses.items())


def measure(*, quick: bool) -> Outcome:
    """Measure every row that is not known yet, and the bars."""
    lab = Lab(QUICK if quick else FULL)
    rows, bars = [], []
    for share in lab.settings.shares:
        gaps = {}
        for row in ROWS:
            if row in PACKAGES and not packages.ENVIRONMENT.is_dir():
                print(f"NOT RUN, its package is not here (make bench-peers): {row.name}", file=sys.stderr, flush=True)
                rows.append({"cut": row.name, "how": "not run", "removed": f"{share:.0%}", "parameters": "–", "gap, nats": "–",
                             f"gap on {ELSEWHERE}, nats": "–", "note": "make bench-peers"})  # fmt: skip
                continue
            gaps[row.name] = gaps_of(lab, row, share)
            rows.append(told(lab, row, share))
        bars += [*against_peers(gaps, share, DEFAULT), *against_peers(gaps, share, SCALED), mix_against_single(lab, share)]
    return Outcome(
        settings=dataclasses.asdict(lab.settings) | {"calibrated on": CALIBRATION, "model": "SmolLM2-135M"}, bars=bars, rows=rows
    )


def gaps_of(lab: Lab, row: Row, share: float) -> tuple[float, float]:
    """Nats above the uncut model in the calibration's domains, and out of them."""
    return lab.gap(row, share, CALIBRATION, MIXED_TEXTS), lab.gap(row, share, CALIBRATION, (ELSEWHERE,))


def told(lab: Lab, row: Row, share: float) -> dict[str, Any]:
    """A row of the table."""
    (inside, outside), found = gaps_of(lab, row, share), lab.measured(row, share, CALIBRATION)
    return {"cut": row.name, "how": row.how, "removed": f"{share:.0%}", "parameters": found["parameters"], "gap, nats": inside,
            f"gap on {ELSEWHERE}, nats": outside, "note": found["note"]}  # fmt: skip


def known(lab: Lab) -> Outcome:
    """What is measured by now, the best first, and the bars against those peers that are."""
    rows, bars = [], []
    for share in lab.settings.shares:
        here = [row for row in ROWS if lab.place(row, share, CALIBRATION)[0].exists()]
        rows += sorted((told(lab, row, share) for row in here), key=lambda row: row["gap, nats"])
        if OSSCAR in here and any(row.best_of for row in here):
            gaps = {row.name: gaps_of(lab, row, share) for row in here}
            bars += [bar for mine in (DEFAULT, SCALED) if mine in here for bar in against_peers(gaps, share, mine)]
        if all(lab.place(DEFAULT, share, source)[0].exists() for source in (MIX, SINGLE)):
            bars.append(mix_against_single(lab, share))
    return Outcome(
        settings=dataclasses.asdict(lab.settings) | {"calibrated on": CALIBRATION, "not measured yet": "left out"}, bars=bars, rows=rows
    )


def against_peers(gaps: dict[str, tuple[float, float]], share: float, row: Row) -> list[Bar]:
    """A recipe's gap as a share of the best tool's, in and out of the calibration's domains, and of OSSCAR's."""
    mine = gaps[row.name]
    best = [min(gaps[row.name][place] for row in (*PEERS, *PACKAGES) if row.best_of and row.name in gaps) for place in (0, 1)]
    start = f"{row.name}, {share:.0%} removed: "
    return [
        Bar(name=start + "gap / the best tool's", value=mine[0] / best[0], limit="<= 0.5"),
        Bar(name=start + "gap / OSSCAR's", value=mine[0] / gaps[OSSCAR.name][0], limit="<= 0.75"),
        Bar(name=start + f"gap / the best tool's on {ELSEWHERE}", value=mine[1] / best[1], limit="<= 0.8"),
    ]


def mix_against_single(lab: Lab, share: float) -> Bar:
    """The default recipe calibrated on the mix against the same on one text, mean over all texts, ``sotu`` in neither."""
    mixed, single = (lab.gap(DEFAULT, share, source, EMBEDDED_TEXTS) for source in (MIX, SINGLE))
    return Bar(name=f"{share:.0%} removed: mean gap over {len(EMBEDDED_TEXTS)} texts, mix / {SINGLE}", value=mixed / single, limit="<= 0.7")


def given(words: Sequence[str], key: str) -> list[str]:
    """What follows a key in the words that begin with it."""
    return [word.removeprefix(key) for word in words if word.startswith(key)]


def main(words: Sequence[str]) -> None:
    """Measure the rows whose names hold one of the words, on each calibration text named after ``on:``."""
    blocks = given(words, "blocks:") or [str(FULL.calibration_blocks)]
    lab = Lab(dataclasses.replace(FULL, calibration_blocks=int(blocks[-1])))
    sources = given(words, "on:") or [CALIBRATION]
    names = [word for word in words if ":" not in word]
    lab.uncut()
    asked = [row for row in ROWS if any(word.lower() in row.name.lower() for word in names)]
    if not packages.ENVIRONMENT.is_dir() and (missing := [row.name for row in asked if row in PACKAGES]):
        print(f"NOT RUN, their packages are not here (make bench-peers): {'; '.join(missing)}", file=sys.stderr, flush=True)
        asked = [row for row in asked if row not in PACKAGES]
    for row, source, share in itertools.product(asked, sources, SHARES):
        lab.measured(row, share, source)
    show("quality, as far as measured", known(lab), as_json=False, quick=False)


if __name__ == "__main__":
    main(sys.argv[1:])
