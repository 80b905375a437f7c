"""The study as a Markdown document, written anew after every table."""

import math
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.study.ground import MIXED, Ground
from bench.study.settings import DOMAINS
from core.files import write_text
from core.runs import machine


@dataclass(frozen=True)
class Table:
    """One table: a caption that names the unit, column heads and rows of text."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table with its columns aligned; the first is words, the others are figures unless they hold letters."""
        cells = [list(map(str, row)) for row in (self.head, *self.rows)]
        widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(self.head))]
        left = [i == 0 or any(any(map(str.isalpha, row[i])) for row in cells[1:]) for i in range(len(widths))]
        lines = [_line(row, widths, left) for row in cells]
        rule = [("-" * width) if is_left else "-" * (width - 1) + ":" for width, is_left in zip(widths, left, strict=True)]
        return "\n".join([f"*{self.caption}*", "", lines[0], _line(rule, widths, left), *lines[1:]])


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    padded = (cell.ljust(width) if is_left else cell.rjust(width) for cell, width, is_left in zip(cells, widths, left, strict=True))
    return "| " + " | ".join(padded) + " |"


@dataclass(frozen=True)
class Section:
    """One question of the study."""

    title: str
    setting: str
    """What was cut and measured, a sentence or two."""
    tables: Sequence[Table] = field(default_factory=list)

    def markdown(self, number: int, reading: str) -> str:
        """The section with its heading and what the reader should take from it."""
        parts = [f"## {number}. {self.title}", prose(self.setting), *(table.markdown() for table in self.tables)]
        return "\n\n".join([*parts, prose(f"**Reading.** {reading}")] if reading else parts)


def write(path: Path, ground: Ground, sections: list[Section], missing: list[str], readings: dict[str, str], command: str) -> None:
    """Write what there is so far."""
    parts = [_opening(ground, command), *([f"**Not measured yet:** {'; '.join(missing)}."] if missing else [])]
    parts += [section.markdown(number, readings.get(section.title, "")) for number, section in enumerate(sections, start=1)]
    write_text(path, "\n\n".join([*parts, _closing(ground, command)]) + "\n")


def _opening(ground: Ground, command: str) -> str:
    """What this is, in the words of whoever opens it first."""
    uncut = {domain: float(ground.losses(ground.uncut, domain, ground.settings.heldout_blocks).mean()) for domain in DOMAINS}
    told = " and ".join(f"{loss:.3f} nats a token on {domain}" for domain, loss in uncut.items())
    paragraphs = (
        f"A study on the model that comes with Coppice (SmolLM2-135M-Instruct), made by `{command}` on {time.strftime('%Y-%m-%d', time.gmtime())}. "
        f"Nothing is retrained: what is shown is the damage of the cut alone, as in Minitron's table 11 (arXiv 2407.14679).",
        f"**Damage** is the rise of the loss above the uncut model, in nats a token, of the model masked to the plan (masking equals cutting, a "
        f"test holds it). It is measured on held-out text that no criterion saw: {DOMAINS[0]}, which is also the domain of the calibration text "
        f"unless a table says otherwise, and {DOMAINS[1]}, which is another. The uncut model's loss is {told}. Lower is better everywhere. {_noise(ground)}",
    )
    return "\n\n".join(["# Which importance criterion?", *map(prose, paragraphs)])


def _noise(ground: Ground) -> str:
    """How sure a figure is."""
    most = ground.settings.heldout_blocks
    errors = [
        damage.error for (_, blocks), damage in ground.judged.items() if blocks == most and damage.mean and math.isfinite(damage.error)
    ]
    if not errors:
        return ""
    low, middle, high = np.quantile(errors, (0.1, 0.5, 0.9))
    return (
        f"The standard error of the mean of both texts, from block to block, is {middle:.2f} nats in the median ({low:.2f} to {high:.2f} for "
        f"most cuts); two cuts are compared on the same blocks, which is surer than that."
    )


def _closing(ground: Ground, command: str) -> str:
    """Everything that is needed to make the numbers again."""
    settings, about = ground.settings, machine.describe("cpu")
    minutes = sum(ground.costs.values()) / 60
    calibration = {name: int(blocks.calibration_NT.size) for name, blocks in ground.texts.items()}
    rows = [
        ("command", f"`{command}`"),
        ("model", f"SmolLM2-135M-Instruct, weights {ground.weights}"),
        ("calibration", f"{settings.calibration_blocks} blocks of {settings.seq_len} tokens ({calibration[DOMAINS[0]]:,} tokens) of each text"),
        (MIXED, "every second block of either text, as many in all"),
        ("losses without layers", f"the first {settings.ppl_blocks} of these blocks; Taylor and Fisher: {settings.gradient_blocks}"),
        ("held-out", f"{settings.heldout_blocks} blocks of each text, fewer where a table says so; {settings.seq_len - 1} predicted tokens a block"),
        ("seeds", f"data 0; random rankings 0 to {settings.random_seeds - 1}; nothing else is random"),
        ("cuts measured", str(len({identity for identity, _ in ground.judged}))),
        ("processor time", f"{minutes:.0f} minutes for everything, on one or several threads"),
        ("machine", f"{about['cpu']}, {about['cores']} cores, {about['memory_bytes'] / 1e9:.0f} GB, {about['platform']}"),
        ("versions", f"Python {about['python']}, " + ", ".join(f"{name} {version}" for name, version in about["versions"].items())),
    ]  # fmt: skip
    return "## How it was measured\n\n" + Table("Everything that decides the numbers", ("what", "value"), rows).markdown()


def prose(text: str) -> str:
    """A paragraph in lines of a readable length."""
    return textwrap.fill(text, 140, break_long_words=False, break_on_hyphens=False)


def nats(value: float) -> str:
    """A damage in nats a token."""
    return f"{value:.2f}" if abs(value) < 99.5 else f"{value:.0f}"


def percent(share: float) -> str:
    """A share with one decimal."""
    return f"{100 * share:.1f} %"
