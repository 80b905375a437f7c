"""The trainer's checkpoints: which of them are whole, which belong to this run, and what happens when one cannot be written.

``transformers`` writes into ``checkpoint-N`` directly, file by file, so whoever is killed in between leaves a torso. A
checkpoint counts only if every file of it is complete to the last byte.
"""

import contextlib
import json
import shutil
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from core.errors import UserError
from core.files import read_json, write_json

RECIPE = "recipe.json"
"""What the checkpoints beside it were made with."""


def all_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, whole or not, oldest step first."""
    found = [path for path in folder.glob("checkpoint-*") if step_of(path) >= 0]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written; -1 if its name holds none."""
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1


def newest_whole(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None. Broken ones that are newer are deleted: nobody could use them."""
    for checkpoint in reversed(all_checkpoints(folder)):
        if is_whole(checkpoint):
            return checkpoint
        shutil.rmtree(checkpoint, ignore_errors=True)
    return None


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint holds everything to go on from it, and no file of it is cut short or damaged."""
    archives = [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *checkpoint.glob("rng_state*.pth")]
    try:
        step = read_json(checkpoint / "trainer_state.json")["global_step"]
        return len(archives) > 2 and step == step_of(checkpoint) and weights_are_whole(checkpoint) and all(map(_archive_is_whole, archives))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def weights_are_whole(folder: Path) -> bool:
    """Whether every safetensors file of a folder, sharded or not, is as long as its own header says."""
    index = folder / "model.safetensors.index.json"
    shards = {folder / name for name in read_json(index)["weight_map"].values()} if index.exists() else {folder / "model.safetensors"}
    return all(map(_tensors_are_whole, shards))


def _tensors_are_whole(file: Path) -> bool:
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 0 < length < file.stat().st_size:
            return False
        header = json.loads(opened.read(length))
    end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    return bool(file.stat().st_size == 8 + length + end)


def _archive_is_whole(file: Path) -> bool:
    """Whether a file that torch wrote (a zip archive) is complete, every checksum right. Nothing in it is unpickled."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except zipfile.BadZipFile:
        return False


def keep_newest(folder: Path, count: int) -> None:
    """Delete all checkpoints but the newest ``count``."""
    for checkpoint in all_checkpoints(folder)[:-count]:
        shutil.rmtree(checkpoint, ignore_errors=True)


def check_recipe(folder: Path, recipe: dict[str, Any], usual: dict[str, Any]) -> None:
    """Make ``folder`` this recipe's, unless checkpoints of another recipe are in it.

    Args:
        folder: where the checkpoints are.
        recipe: what decides the result.
        usual: what a recipe means that was written before a setting existed.

    Raises:
        UserError: they are; going on from them would give a model that nobody asked for.
    """
    recipe = json.loads(json.dumps(recipe))
    there = json.loads(json.dumps(usual)) | (read_json(folder / RECIPE) if (folder / RECIPE).exists() else recipe)
    if all_checkpoints(folder) and there != recipe:
        names = sorted(name for name in there.keys() | recipe.keys() if there.get(name) != recipe.get(name))
        told = ", ".join(f"{name} {there.get(name)} there, {recipe.get(name)} here" for name in names)
        raise UserError(f"The checkpoints in {folder} were made with other settings ({told}). Delete them, or train in another folder.")
    write_json(folder / RECIPE, recipe)


@contextlib.contextmanager
def written_whole(target: Path, what: str) -> Iterator[None]:
    """Remove ``target`` if the block cannot finish writing it, and say so to the user.

    Raises:
        UserError: the disk is full or refuses.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch reports a failed write as a RuntimeError of its archive writer, safetensors as an error of its own.
        if isinstance(error, RuntimeError) and "writ" not in str(error):
            raise
        shutil.rmtree(target, ignore_errors=True)
        free = shutil.disk_usage(target.parent).free
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{what} could not be written to {target} ({reason}; {free / 1e9:.2f} GB free). Free some space, then resume; "
            f"earlier checkpoints are whole."
        ) from error
