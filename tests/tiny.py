"""Tiny random models of every family. Every dimension has a size of its own, so that no two can be mistaken."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

SIZES = {
    "vocab_size": 97, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 5, "num_attention_heads": 6,
    "num_key_value_heads": 3, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def tiny_config(model_type: str = "llama", **changes: Any) -> Any:
    """A transformers config of a tiny model."""
    return AutoConfig.for_model(model_type, **(SIZES | changes))


def tiny_model(model_type: str = "llama", seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A tiny model with weights large enough that every part matters, and norms that are not all ones."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(model_type, **changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        if parameter.ndim == 1:
            parameter.data += 1
    model.config.use_cache = False
    return model


def save_tiny(folder: Path, model_type: str = "llama", seed: int = 0, **changes: Any) -> Path:
    """A tiny model with a tokenizer that knows every letter, as a checkpoint folder."""
    tiny_model(model_type, seed, **changes).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 97 tokens: three special ones, then the printable characters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[:94]
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<bos>", "<eos>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<pad>")


def random_blocks(count: int, seq_len: int, seed: int = 0, vocab: int = 97) -> np.ndarray:
    """Blocks of random tokens, ``[N, T]`` int32."""
    return np.random.default_rng(seed).integers(3, vocab, (count, seq_len)).astype(np.int32)


def random_documents(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Which document each token belongs to, ``[N, T]`` int32, when a stream of documents of 2 to 12 tokens is cut into blocks."""
    lengths = np.random.default_rng(seed).integers(2, 13, int(np.prod(shape)))
    return np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[: int(np.prod(shape))].reshape(shape)
