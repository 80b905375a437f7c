"""Documents become blocks of tokens: cut into sections, mixed, tokenised, joined by a separator, and packed without padding.

One section of every document comes before the second of any, so that a few blocks already show many documents; and the stream
of tokens does not depend on how many blocks are wanted, so that more blocks begin with the same ones. Only as many
sections are tokenised as the blocks need.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.data.deal import shuffled
from core.errors import UserError
from core.files import content_hash, file_hash, read_json

SECTION_CHARACTERS_PER_TOKEN = 6
"""Characters of a section for each token of a block: English has 4 to 5 a token, so a section fills a block and a bit."""

DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>")
"""Tokens that stood between documents in pretraining, for vocabularies that have one; a chat model's own end-of-sequence token
ends a turn instead, and what follows it is not taken for a new document. SmolLM2-135M-Instruct loses 2.56 nats a token on the 120 tokens
after <|endoftext|>, and 2.82 after <|im_end|>."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A tokenizer as far as packing needs it."""

    encode: Callable[[str], list[int]]
    """Text to ids, without special tokens."""
    separator: str | None
    """What stands between documents: one of ``DOCUMENT_ENDS``, else the end-of-sequence token, else nothing."""
    separator_id: int | None
    vocab_size: int | None
    """Rows of the model's embedding, where config.json says so."""
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Blocks made of a set's documents."""

    blocks_NT: np.ndarray
    """int32 ``[N, T]``."""
    documents_NT: np.ndarray
    """int32 ``[N, T]``: for each token the number of the section that it stands in, in their order; a separator belongs to what it ends.
    Sections follow each other without any relation, so each is a document of its own to whoever reads a block."""
    documents: int
    """Documents that these blocks show."""
    found_tokens: int
    """Tokens that were there to be packed, as far as was read."""


def tokenizer_fingerprint(folder: Path) -> str:
    """Name a tokenizer by its files. Needs no tokenizer library.

    Raises:
        UserError: the folder has no tokenizer.
    """
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "spiece.model")
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise UserError(
            f"{folder} has no tokenizer (tokenizer.json, tokenizer.model or vocab.json). Copy the tokenizer files of the model there."
        )
    # Transformers rewrites tokenizer_config.json at every save; of it only the separator matters.
    files = found[:1] if found[0].name == "tokenizer.json" else found
    return content_hash([*(f"{path.name} {file_hash(path)}" for path in files), _end_of_sequence(folder)])


def load_encoder(folder: Path) -> Encoder:
    """Load a folder's tokenizer: by the light library where there is a tokenizer.json, else by transformers.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    fingerprint = tokenizer_fingerprint(folder)
    vocab_size = _config(folder, "config.json").get("vocab_size")
    if (folder / "tokenizer.json").is_file():
        encode, separator, separator_id = _light(folder)
    else:
        encode, separator, separator_id = _heavy(folder)
    return Encoder(encode=encode, separator=separator, separator_id=separator_id, vocab_size=vocab_size, fingerprint=fingerprint)


def _light(folder: Path) -> tuple[Callable[[str], list[int]], str | None, int | None]:
    """Encoder, separator and its id by the ``tokenizers`` library."""
    from tokenizers import Tokenizer

    try:
        # The library raises bare Exception for a bad file, so the file is checked to be JSON with a model first.
        if not isinstance(read_json(folder / "tokenizer.json").get("model"), dict):
            raise UserError(f"{folder / 'tokenizer.json'} holds no tokenizer. Copy the model's tokenizer.json there again.")
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise UserError(f"{folder / 'tokenizer.json'} is damaged ({error}). Copy the model's tokenizer.json there again.") from None
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    end = _end_of_sequence(folder)
    names = (*DOCUMENT_ENDS, tokenizer.id_to_token(end) if isinstance(end, int) else end)
    separator = next((name for name in names if name and tokenizer.token_to_id(name) is not None), None)
    separator_id = tokenizer.token_to_id(separator) if separator else None
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids, separator, separator_id


def _heavy(folder: Path) -> tuple[Callable[[str], list[int]], str | None, int | None]:
    """Encoder, separator and its id by transformers."""
    from core.model.checkpoint import load_tokenizer

    tokenizer = load_tokenizer(folder)
    vocabulary = tokenizer.get_vocab()
    separator = next((name for name in (*DOCUMENT_ENDS, tokenizer.eos_token) if name in vocabulary), None)
    return lambda text: tokenizer.encode(text, add_special_tokens=False), separator, vocabulary.get(separator)


def _end_of_sequence(folder: Path) -> str | int | None:
    """The end-of-sequence token as the tokenizer names it, or its id as the model's config does."""
    token = _config(folder, "tokenizer_config.json").get("eos_token") or _config(folder, "special_tokens_map.json").get("eos_token")
    if isinstance(token, dict):
        token = token.get("content")
    if token is not None:
        return str(token)
    number = _config(folder, "config.json").get("eos_token_id")
    number = number[0] if isinstance(number, list) and number else number
    return number if isinstance(number, int) else None


def _config(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of the folder; empty if it is not there."""
    try:
        return dict(read_json(folder / name))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise UserError(f"{folder / name} is not a valid JSON object ({error}). Copy it from the original model again.") from None


def sections(document: str, characters: int) -> list[str]:
    """Cut a document at paragraph ends into parts of about ``characters``; nothing but white space is lost."""
    parts: list[str] = []
    size = characters
    for paragraph in re.split(r"\n\s*\n", document):
        for piece in _bounded(paragraph, 2 * characters):
            if size >= characters:
                parts.append(piece)
                size = len(piece)
            else:
                parts[-1] += "\n\n" + piece
                size += len(piece) + 2
    return [part for part in parts if part.strip()]


def _bounded(paragraph: str, limit: int) -> Iterator[str]:
    """A paragraph, cut at spaces where it is longer than ``limit``."""
    while len(paragraph) > limit:
        cut = paragraph.rfind(" ", limit // 2, limit)
        cut = limit if cut < 0 else cut
        yield paragraph[:cut]
        paragraph = paragraph[cut:].lstrip()
    yield paragraph


def _mixed(documents: list[str], characters: int, seed: int) -> Iterator[tuple[int, str]]:
    """Document numbers and sections in seeded order: a round takes one more section of every document that has one left."""
    order = np.random.default_rng(seed).permutation(len(documents))
    parts = {i: shuffled(sections(documents[i], characters), seed) for i in order}
    for number in range(max(map(len, parts.values()), default=0)):
        yield from ((i, parts[i][number]) for i in order if number < len(parts[i]))


def pack(documents: list[str], encoder: Encoder, *, seq_len: int, blocks: int, seed: int) -> Packed:
    """Pack up to ``blocks`` blocks of ``seq_len`` tokens; the last tokens that do not fill one are dropped.

    Raises:
        UserError: the tokenizer gives ids that the model has no embedding for.
    """
    stream: list[int] = []
    lengths: list[int] = []
    shown: set[int] = set()
    needed = blocks * seq_len
    for i, part in _mixed(documents, SECTION_CHARACTERS_PER_TOKEN * seq_len, seed):
        if len(stream) >= needed:
            break
        shown.add(i)
        before = len(stream)
        stream += encoder.encode(part)
        stream += [encoder.separator_id] if encoder.separator_id is not None else []
        lengths.append(len(stream) - before)
    count = min(blocks, len(stream) // seq_len)
    blocks_NT = np.fromiter(itertools.islice(stream, count * seq_len), dtype=np.int32, count=count * seq_len).reshape(count, seq_len)
    numbers = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[: count * seq_len]
    if encoder.vocab_size is not None and count and blocks_NT.max() >= encoder.vocab_size:
        raise UserError(
            f"The tokenizer gives token {blocks_NT.max()}, but the model's config.json has vocab_size {encoder.vocab_size}. "
            "Tokenizer and model do not belong together: copy the model's own tokenizer files into its folder."
        )
    return Packed(blocks_NT=blocks_NT, documents_NT=numbers.reshape(count, seq_len), documents=len(shown), found_tokens=len(stream))
