"""From what a user types to a checkpoint folder that is known to be whole: the embedded model, a local folder, a hub id.

Safetensors only: a pickle can run code when it is opened. Nothing here imports torch.
"""

import json
import struct
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import content_hash, file_hash, read_json, write_json
from core.model.embedded import MODEL_NAME, ensure_model
from core.progress import Progress, Silent
from core.specs import EMBEDDED_MODEL
from core.workspace import room

PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""What is fetched of a hub repository: configuration, weights, tokenizer."""

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def resolve(model: str, progress: Progress | None = None) -> Path:
    """Return the checked checkpoint folder of ``model``, fetching it if need be.

    Args:
        model: ``embedded``, the path of a local folder, or a hub id such as ``HuggingFaceTB/SmolLM2-135M``.

    Raises:
        UserError: there is no such model, it cannot be fetched, or its weights are absent, pickled or broken.
    """
    if model == EMBEDDED_MODEL:
        return check_weights(ensure_model(progress or Silent()))
    folder = Path(model).expanduser()
    return check_weights(folder.absolute() if folder.is_dir() else _snapshot(model))


def read_config(model: str) -> dict[str, Any]:
    """Read a model's config.json, and of a hub model nothing else.

    Raises:
        UserError: there is none, or it is not JSON.
    """
    path = config_path(model)
    try:
        config = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path.parent} has no config.json, so it is not a Hugging Face model folder.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}). Fetch the model again.") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no JSON object. Fetch the model again.")
    return config


def config_path(model: str) -> Path:
    """Where ``model``'s config.json lies; that of a hub model is fetched."""
    if model == EMBEDDED_MODEL:
        folder = room("models") / MODEL_NAME
        if not (folder / "config.json").exists():
            raise UserError("The embedded model is not here yet. Fetch it with: python -m core fetch")
        return folder / "config.json"
    folder = Path(model).expanduser()
    return folder.absolute() / "config.json" if folder.is_dir() else _snapshot(model, patterns=("config.json",)) / "config.json"


def _snapshot(model: str, patterns: tuple[str, ...] = PATTERNS) -> Path:
    """Fetch a hub repository, or take it from the local cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model:
        raise UserError(f"There is no folder {model!r}. Give an existing model folder, a hub id such as owner/name, or 'embedded'.")
    try:
        return Path(snapshot_download(model, allow_patterns=list(patterns)))
    except HFValidationError:
        raise UserError(f"{model!r} is neither an existing folder nor a well-formed hub id (owner/name).") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{model!r} is no local folder, and the hub did not give it: {reason} Check the name and the network, or give a folder."
        ) from error


def check_weights(folder: Path) -> Path:
    """Return ``folder`` if its weights are whole safetensors files.

    Raises:
        UserError: config.json or weights are missing, pickled, or cut short.
    """
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} has no config.json, so it is not a Hugging Face model folder.")
    files = weight_files(folder)
    if not files and any(match for pattern in PICKLES for match in folder.glob(pattern)):
        raise UserError(
            f"{folder} holds its weights only as pickle files, which may run code when opened. Convert them once where you trust them: "
            "python -c \"from transformers import AutoModelForCausalLM as M; M.from_pretrained('OLD').save_pretrained('NEW')\""
        )
    if not files:
        raise UserError(f"{folder} has a config.json but no weights. Put its .safetensors files beside it.")
    for file in files:
        read_header(file)
    return folder


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up a checkpoint, in order.

    Raises:
        UserError: the index names a file that is not there.
    """
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return sorted(folder.glob("*.safetensors"))
    files = [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    if missing := [file.name for file in files if not file.exists()]:
        raise UserError(f"{folder} lacks weight files that its index names: {', '.join(missing)}. Fetch the model again.")
    return files


def read_header(file: Path) -> dict[str, Any]:
    """Tensor names -> dtype, shape and place of a safetensors file, from its first bytes.

    Raises:
        UserError: the file is cut short or is no safetensors file.
    """
    broken = UserError(f"{file} is cut short or damaged ({file.stat().st_size:,} bytes). Fetch or copy it again.")
    with file.open("rb") as handle:
        size = handle.read(8)
        length = struct.unpack("<Q", size)[0] if len(size) == 8 else 0
        if not 0 < length < 100_000_000:
            raise broken
        try:
            header = json.loads(handle.read(length))
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise broken from None
    header.pop("__metadata__", None)
    if file.stat().st_size != 8 + length + max((row["data_offsets"][1] for row in header.values()), default=0):
        raise broken
    return header


def fingerprint(folder: Path) -> str:
    """Name a checkpoint by its configuration and weights. Remembered by size and time of each file, since hashing gigabytes takes seconds."""
    files = [folder / "config.json", *weight_files(folder)]
    seen = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    memory = room("fingerprints") / f"{content_hash([str(folder.absolute()), seen])}.json"
    if not memory.exists():
        write_json(memory, content_hash([[file.name, file_hash(file)] for file in files]))
    return str(read_json(memory))
