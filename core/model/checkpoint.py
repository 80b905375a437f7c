"""Checkpoints as Hugging Face models: loaded strictly, saved so that anybody can load them again without our code."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from core.errors import UserError
from core.model.dims import axes_of, dims_of, shape
from core.model.source import check_weights

COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "generation_config.json",
    "added_tokens.json",
)
"""Files that belong to a model beside its weights and config, and that pruning does not change."""

transformers_logging.disable_progress_bar()


def load_model(folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a checkpoint for inference: evaluation mode, no key-value cache unless asked for.

    Raises:
        UserError: the folder is not a whole safetensors checkpoint, or its tensors do not fit its config.
    """
    check_weights(Path(folder))
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except (ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{folder} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    trouble = {kind: sorted(map(str, info[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if info.get(kind)}
    if trouble:
        told = "; ".join(f"{kind.replace('_', ' ')}: {', '.join(names[:3])}" for kind, names in trouble.items())
        raise UserError(f"The weights in {folder} do not fit its config.json ({told}).")
    model.config.use_cache = False
    return model.eval().to(device)


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerBase:
    """Load a checkpoint's tokenizer.

    Raises:
        UserError: there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} has no usable tokenizer: {str(error).strip().splitlines()[0]}") from error


def check_map(model: PreTrainedModel) -> None:
    """Hold the family map against a real model: same tensors, same shapes, both ways.

    Raises:
        UserError: a tensor is on one side only or has another shape; cutting would lose or tear it.
    """
    config = model.config.to_dict()
    dims = dims_of(config)
    mapped = {name: shape(axes, dims) for name, axes in axes_of(config).items()}
    actual = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    if differing := sorted(name for name in mapped.keys() | actual.keys() if mapped.get(name) != actual.get(name)):
        raise UserError(
            f"This {config['model_type']} model has tensors that Coppice does not know and so would lose: {', '.join(differing[:5])}."
        )


def copy_companions(source: Path, target: Path) -> None:
    """Carry tokenizer, chat template and generation settings from one checkpoint folder to another."""
    for pattern in COMPANIONS:
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)


def full_config(folder: Path) -> dict[str, Any]:
    """The config with everything spelled out that transformers fills in, so that a cut can change each of it."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).to_dict()
