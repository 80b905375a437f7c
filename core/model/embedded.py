"""The model and the texts that come with Coppice, so that the main job runs on a machine without any hub.

The model is SmolLM2-135M-Instruct, which one Python package carries as a 4-bit GGUF file; it is converted once into a plain
float32 Hugging Face checkpoint. The texts are of several domains, each one file of documents, read by ``core/model/texts.py``.
What is taken from which package stands in ``core/model/packages.py``.
"""

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import read_json, replacing, require_free, write_json
from core.model.packages import exclusively, unpacked
from core.model.texts import READERS
from core.progress import Progress, Silent
from core.specs import EMBEDDED_TEXTS
from core.workspace import room

MODEL_NAME = "SmolLM2-135M-Instruct"
MODEL_BYTES = 545_000_000
"""Size of the converted checkpoint, rounded up."""
CONFIG = {
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.041666666666666664,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "unk_token_id": None,
    "_model_name_or_path": None,
    "_name_or_path": "HuggingFaceTB/" + MODEL_NAME,
}
"""What GGUF rounded (it keeps 32 bits of the epsilon), lost, or calls otherwise: the values of the published checkpoint."""
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "pad_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
    "model_max_length": 8192,
    "clean_up_tokenization_spaces": False,
}
PRE_TOKENIZER = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
"""GGUF keeps only the name of the split before byte pairs are merged ("smollm": each digit for itself, then GPT-2's
expression), and transformers reads it as plain GPT-2. The difference shows where several spaces or line ends precede a digit."""


def ensure_model(progress: Progress | None = None) -> Path:
    """Return the folder of the embedded model, a plain float32 checkpoint; the first call fetches and converts it.

    Raises:
        UserError: the package cannot be had or is not the expected one, or the disk is full.
    """
    progress = progress or Silent()
    folder = room("models") / MODEL_NAME
    if _is_checkpoint(folder):
        return folder
    with exclusively("embedded-model", progress):
        if not _is_checkpoint(folder):
            shutil.rmtree(folder, ignore_errors=True)
            require_free(folder, MODEL_BYTES)
            with unpacked("model", progress) as members, replacing(folder) as new:
                progress.note("Converting the embedded model to a plain checkpoint (once, less than a minute).")
                progress.step("convert", 0, 1)
                _convert(next(members.rglob("*.gguf")), new)
                progress.step("convert", 1, 1)
    return folder


def _is_checkpoint(folder: Path) -> bool:
    """Whether the folder is whole; it is written as one, so that only a hand can have taken parts away."""
    return all((folder / name).is_file() for name in ("config.json", "model.safetensors", "tokenizer.json"))


def _convert(gguf: Path, target: Path) -> None:
    """Write a GGUF file as a Hugging Face checkpoint: float32 weights, config, generation config, tokenizer, chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    with contextlib.redirect_stderr(io.StringIO()):  # a bar that transformers draws whether it is wanted or not
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    del model.config.quantization_config  # the weights are dequantised: as long as the config denies it, saving is refused
    model.hf_quantizer = None
    ids = {name: CONFIG[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(target)
    (target / "model.safetensors").chmod(0o644)  # safetensors creates it for its owner's eyes only
    _correct(target / "config.json", CONFIG)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
    _correct(target / "tokenizer.json", {"pre_tokenizer": PRE_TOKENIZER})
    write_json(target / "tokenizer_config.json", TOKENIZER_CONFIG)


def _correct(path: Path, values: dict[str, Any]) -> None:
    """Set keys of a JSON file; None takes a key away."""
    merged = read_json(path) | values
    write_json(path, {key: value for key, value in merged.items() if value is not None or key not in values})


def ensure_text(name: str, progress: Progress | None = None) -> Path:
    """Return the file of an embedded text, a JSON object ``{"title", "text"}`` a line; the first call makes it.

    Raises:
        UserError: there is no such text, its package cannot be had or is not the expected one, or the disk is full.
    """
    progress = progress or Silent()
    if name not in EMBEDDED_TEXTS:
        raise UserError(f"There is no embedded text {name!r}; there are {', '.join(EMBEDDED_TEXTS)}.")
    path = room("texts") / f"{name}.jsonl"
    if path.is_file():
        return path
    with exclusively(f"embedded-{name}", progress):
        if not path.is_file():
            with unpacked(name, progress) as members, replacing(path) as new, new.open("w", encoding="utf-8") as file:
                for title, text in READERS[name](members, progress):
                    file.write(json.dumps({"title": title, "text": text}, ensure_ascii=False) + "\n")
    return path
