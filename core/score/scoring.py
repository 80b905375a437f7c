"""Scoring a checkpoint on its calibration blocks: resumable, shared among processes, and stored so that it is never done twice.

Every pass (``core.score.passes``) is made of units that need nothing of each other: shards or blocks of the calibration set.
A finished unit is a file; whoever resumes takes it up, and a second process computes others.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from core.data.blocks import Blocks
from core.errors import UserError
from core.files import read_arrays
from core.model.checkpoint import check_map, full_config, load_model
from core.model.device import pick
from core.model.dims import dims_of
from core.model.source import fingerprint
from core.progress import Progress
from core.score.jobs import JOBS, Task, Tick
from core.score.passes import Pass, forwarded, wanted
from core.score.share import meet, mine, place
from core.score.shelf import Arrays, Files, Memory
from core.score.store import VERSION, Scores, find, load, pass_file, pass_key, save, save_pass, score_key
from core.specs import ScoreSpec


def score(folder: Path, blocks: Blocks, spec: ScoreSpec, progress: Progress, device: str = "auto", name: str = "") -> Scores:
    """Return the importance of a checkpoint's units on ``blocks``' calibration set, computing what of it is not stored.

    Raises:
        UserError: too few blocks, the model does not fit its family's map, or its activations are not finite.
        Stopped: the user asked for it.
    """
    model_name, text = fingerprint(folder), blocks.meta["sets"]["calibration"]["fingerprint"]
    stored = find(model_name, text, spec)
    meet()  # whoever comes late must not find what another has saved meanwhile, and go on alone
    if stored:
        progress.step("score", 1, 1, cached=True)
        return stored
    check_blocks(blocks.calibration_NT, spec)
    keys = {item.name: pass_key(model_name, text, item, spec) for item in wanted(spec)}
    todo = [item for item in wanted(spec) if not pass_file(keys[item.name]).exists()]
    if todo:
        model = load_model(folder, pick(device))
        check_map(model)
        _compute_all(model, blocks, spec, {item: keys[item.name] for item in todo}, progress)
    key = score_key(model_name, text, spec)
    if place()[0] == 0:
        passes = {item: read_arrays(pass_file(found), "Delete it and score again.") for item, found in keys.items()}
        meta = {"model": name or str(folder), "model_fingerprint": model_name, "data": blocks.meta["spec"]}
        save(key, keys, dims_of(full_config(folder)), meta | _about(passes, blocks.calibration_NT, spec))
    meet()
    return load(key)


def score_model(model: PreTrainedModel, blocks_NT: np.ndarray, spec: ScoreSpec, *, documents_NT: np.ndarray | None = None) -> Scores:
    """Score a loaded model in memory; nothing is stored.

    Args:
        documents_NT: which document each token belongs to, see ``core.data.pack.Packed``; None if every block is one.

    Raises:
        UserError: see ``score``.
    """
    check_blocks(blocks_NT, spec)
    shelf, done = Memory([item.name for item in wanted(spec)]), {}
    task = Task(model, blocks_NT, spec, shelf, documents_NT)
    for item in wanted(spec):
        job = JOBS[item.name]
        for unit in range(job.units(task)):
            if shelf.lacks(item.name, unit):
                shelf.put(item.name, unit, job.measure(task, unit, unheard))
        done[item.name] = job.join(shelf.take(item.name, job.units(task)))
    meta = {"passes": {name: "" for name in done}, "dims": asdict(task.dims), "version": VERSION, **_about(done, blocks_NT, spec)}
    return Scores(Path("memory"), meta, _opened=done)


def check_blocks(blocks_NT: np.ndarray, spec: ScoreSpec) -> None:
    """Refuse settings that are wrong, and too small a calibration set.

    Raises:
        UserError: they are, or it has fewer blocks than shards.
    """
    spec.check()
    if len(blocks_NT) < spec.shards:
        raise UserError(
            f"The calibration set has {len(blocks_NT)} blocks, too few for {spec.shards} shards. Take more text, shorter blocks, or fewer shards."
        )


def _about(passes: dict[str, Arrays], blocks_NT: np.ndarray, spec: ScoreSpec) -> dict[str, Any]:
    """What the meta data tells of all scores."""
    losses = passes.get("removal", {}).get("losses")
    return {
        "score": spec.to_dict(), "blocks": len(blocks_NT), "tokens": int(blocks_NT.size), "created": time.time(),
        "teacher_loss": None if losses is None else float(losses[:, 0].mean()),
        "seconds": sum(float(arrays.get("seconds", 0.0)) for arrays in passes.values()),
    }  # fmt: skip


def _compute_all(model: PreTrainedModel, blocks: Blocks, spec: ScoreSpec, todo: Mapping[Pass, str], progress: Progress) -> None:
    """Compute passes and store each under its key."""
    shelf = Files({item.name: key for item, key in todo.items()})
    task = Task(model, blocks.calibration_NT, spec, shelf, blocks.calibration_documents_NT)
    alone = forwarded(list(todo))
    bar = Bar(progress, total=sum(JOBS[item.name].ticks(task) * len(mine(JOBS[item.name].units(task))) for item in alone))
    for item, key in todo.items():
        job, began = JOBS[item.name], time.monotonic()
        units = job.units(task)
        for unit in mine(units):
            with bar.unit(item.title, job.ticks(task) if item in alone else 0) as tick:
                if shelf.lacks(item.name, unit):
                    shelf.put(item.name, unit, job.measure(task, unit, tick))
        meet()
        if place()[0] == 0:
            arrays = job.join(shelf.take(item.name, units))
            seconds = {"seconds": np.array(time.monotonic() - began)} if item in alone else {}
            save_pass(key, arrays | seconds)
            tell_errors(item, arrays, progress)
            shelf.clear(item.name, units)
        meet()


def tell_errors(item: Pass, arrays: Arrays, progress: Progress) -> None:
    """Say how sure figures are that come from some of the tokens; nothing of exact ones."""
    found = [values for name, values in arrays.items() if name.startswith("loss_errors")]
    if found:
        blocks = len(found[0])
        errors = np.concatenate([np.sqrt((values**2).sum(0)) / blocks for values in found])
        progress.note(f"{item.title}, judged on some of the tokens: standard error {np.median(errors):.2g} nats a token in the median.")
    found = [values for name, values in arrays.items() if name.startswith("error.")]
    if found:
        progress.note(
            f"{item.title} of some of the tokens: standard error of their traces {np.median(np.concatenate(found)):.1%} in the median."
        )


def unheard(*_: Any, **__: Any) -> None:
    """A tick that nobody waits for."""


class Bar:
    """Moves the progress bar, tick by tick; it never goes back, and is at its end after the last unit."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    @contextmanager
    def unit(self, title: str, ticks: int) -> Iterator[Tick]:
        """Give the tick of a unit, which is where a stop is heard; a unit of no ticks was computed with another."""
        end = self.done + ticks

        def tick(count: int = 1, **metrics: Any) -> None:
            self.done = min(self.done + count, self.total - 1)
            self.progress.step("score", self.done, self.total, part=title.lower(), **metrics)

        yield tick
        if ticks:
            self.done = end
            self.progress.step("score", end, self.total, part=title.lower())
