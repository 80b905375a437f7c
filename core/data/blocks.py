"""Text to token blocks: calibration, training and held-out sets that never overlap, made once and then read from disk.

``build`` makes them; ``load`` and ``find`` read them without torch, for pages. A set of blocks lies in ``workspace/blocks/`` under
the hash of all that determines it: tokenizer, texts, settings, and the version of this procedure.
"""

import dataclasses
import functools
import itertools
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.data import corpus, deal, pack
from core.data.pack import Encoder, Packed
from core.errors import UserError
from core.files import canonical_json, content_hash, file_hash, read_json, replacing, write_json
from core.model.packages import exclusively
from core.progress import Progress, Silent
from core.specs import DataSpec, TextSpec
from core.workspace import room

FORMAT = 2
"""Version of the procedure; raising it makes all blocks anew."""
PHASE = "data"
SAMPLES = 3
SAMPLE_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Packed token blocks; read-only, and memory-mapped: only what is used is read."""

    calibration_NT: np.ndarray
    """int32 ``[N, T]``."""
    calibration_documents_NT: np.ndarray
    """int32 ``[N, T]``: where one document ends and the next begins, see ``core.data.pack.Packed``."""
    train_NT: np.ndarray
    """int32 ``[N, T]``; training goes through them again when it needs more."""
    heldout: dict[str, np.ndarray]
    """Domain name -> int32 ``[N, T]``; the first is the domain of calibration and training."""
    fingerprint: str
    """The name under which ``load`` finds them."""
    meta: dict[str, Any]
    """What a page shows: ``spec``, ``tokenizer``, ``sets`` (``calibration``, ``train``) and ``heldout`` (by domain) with ``blocks``, ``asked``,
    ``tokens``, ``documents``, ``documents_dealt``, ``source``, ``samples``; ``texts``, ``notes``, ``created``."""

    def first(self, count: int) -> np.ndarray:
        """int32 ``[M, T]``: the calibration blocks, then training blocks; ``count`` of them, or all that there are."""
        return np.concatenate([self.calibration_NT, self.train_NT])[:count]


@dataclass(frozen=True, kw_only=True)
class _Set:
    """One set on its way to disk."""

    text: TextSpec
    asked: int
    documents: list[str]
    packed: Packed


def build(data: DataSpec, model_folder: Path | str, progress: Progress | None = None) -> Blocks:
    """Return the blocks that ``data`` asks for, tokenised for the model in ``model_folder``; made at the first call only.

    Raises:
        UserError: a setting is wrong, a text cannot be read, is too short, or gives away a held-out one.
    """
    progress = progress or Silent()
    folder = Path(model_folder)
    key = fingerprint(data.check(), folder, progress)
    target = room("blocks") / key
    if not target.is_dir():
        with exclusively(f"blocks-{key}", progress):
            if not target.is_dir():
                _make(data, folder, key, target, progress)
    blocks = load(key)
    for note in blocks.meta["notes"]:
        progress.note(note)
    return blocks


def fingerprint(data: DataSpec, model_folder: Path, progress: Progress | None = None) -> str:
    """Name the blocks by all that determines them. Needs no torch, but may fetch an embedded text."""
    texts = [corpus.text_fingerprint(text, progress) for text in (data.text, *data.elsewhere)]
    return content_hash({"format": FORMAT, "data": data.to_dict(), "texts": texts, "tokenizer": pack.tokenizer_fingerprint(model_folder)})


def load(key: str) -> Blocks:
    """Read finished blocks by their fingerprint.

    Raises:
        UserError: there are none, or another version of Coppice made them.
    """
    folder = room("blocks") / key
    if not (folder / "meta.json").is_file():
        raise UserError(f"There are no token blocks {key!r} in {folder.parent}. Start the run again to make them.")
    meta = read_json(folder / "meta.json")
    if meta["format"] != FORMAT:
        raise UserError(f"The token blocks {key!r} were made by another version of Coppice. Start the run again to make them anew.")

    def array(row: dict[str, Any], what: str = "file") -> np.ndarray:
        return np.load(folder / row[what], mmap_mode="r")

    return Blocks(
        calibration_NT=array(meta["sets"]["calibration"]),
        calibration_documents_NT=array(meta["sets"]["calibration"], "documents_file"),
        train_NT=array(meta["sets"]["train"]),
        heldout={name: array(row) for name, row in meta["heldout"].items()},
        fingerprint=key,
        meta=meta,
    )


def find(data: DataSpec, model_folder: Path | str | None = None) -> Blocks | None:
    """The newest blocks made for these settings (and this folder's tokenizer), or None.

    For a preview: local texts are not read again to see whether they have changed since; ``build`` does that.
    """
    tokenizer = pack.tokenizer_fingerprint(Path(model_folder)) if model_folder is not None else None
    wanted = canonical_json(data.to_dict())
    found = []
    for path in room("blocks").glob("*/meta.json"):
        meta = read_json(path)
        known = meta["format"] == FORMAT and canonical_json(meta["spec"]) == wanted
        if known and tokenizer in (None, meta["tokenizer"]["fingerprint"]):
            found.append((meta["created"], path.parent.name))
    return load(max(found)[1]) if found else None


def domains(data: DataSpec) -> list[str]:
    """The names of the held-out sets: that of the text itself, then those of the texts from elsewhere."""
    names: list[str] = []
    for text in (data.text, *data.elsewhere):
        name = corpus.domain(text)
        same = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names


def _make(data: DataSpec, folder: Path, key: str, target: Path, progress: Progress) -> None:
    """Read, deal, pack and write."""
    encoder = pack.load_encoder(folder)
    names = domains(data)
    notes: list[str] = []
    texts: dict[str, list[list[str]]] = {}
    for done, (name, text) in enumerate(zip(names, (data.text, *data.elsewhere), strict=True)):
        progress.step(PHASE, done, 2 * len(names))
        read = [deal.distinct(corpus.documents(part, progress)) for part in corpus.parts(text)]
        texts[name] = [documents for documents, _ in read]
        if repeated := sum(count for _, count in read):
            notes.append(f"{name}: {repeated} repeated documents were left out.")
    sets = _deal_and_pack(data, texts[names[0]], names[0], encoder, notes)
    own = sets["calibration"].documents + sets["train"].documents
    heldout = {names[0]: sets.pop("heldout")}
    for done, (name, text) in enumerate(zip(names[1:], data.elsewhere, strict=True), start=len(names) + 1):
        progress.step(PHASE, done, 2 * len(names))
        deal.refuse_overlap(own, names[0], list(itertools.chain(*texts[name])), name)
        shares = zip(texts[name], deal.evenly(data.heldout_blocks, len(texts[name])), strict=True)
        packed = [pack.pack(part, encoder, seq_len=data.seq_len, blocks=count, seed=data.seed) for part, count in shares]
        heldout[name] = _in_turn(text, data.heldout_blocks, texts[name], packed)
    rows = [(what, made) for what, made in sets.items()] + [(f"held-out {name}", made) for name, made in heldout.items()]
    notes += [note for what, made in rows if (note := _shortage(what, made, data.seq_len))]
    _write(data, key, target, encoder, sets, heldout, notes)
    progress.step(PHASE, 2 * len(names), 2 * len(names))


def _deal_and_pack(data: DataSpec, parts: list[list[str]], name: str, encoder: Encoder, notes: list[str]) -> dict[str, _Set]:
    """The three sets of a text. Each part of a mix is dealt as it would be by itself, and gives an equal number of blocks."""
    asked = {"heldout": data.heldout_blocks, "calibration": data.calibration_blocks, "train": data.train_blocks}
    shares = {what: deal.evenly(count, len(parts)) for what, count in asked.items()}
    each = [
        _deal_part(data, documents, name, {what: share[i] for what, share in shares.items()}, encoder, notes)
        for i, documents in enumerate(parts)
    ]
    sets = {
        what: _in_turn(data.text, count, [documents[what] for documents, _ in each], [packed[what] for _, packed in each])
        for what, count in asked.items()
    }
    if len(parts) > 1:  # the deal keeps the sets of one part apart; the parts might share documents with each other
        deal.refuse_overlap(sets["calibration"].documents + sets["train"].documents, name, sets["heldout"].documents, name)
    return sets


def _deal_part(
    data: DataSpec, documents: list[str], name: str, asked: dict[str, int], encoder: Encoder, notes: list[str]
) -> tuple[dict[str, list[str]], dict[str, Packed]]:
    """Documents and blocks of the three sets. Held-out and calibration get more documents than usual only if they would otherwise fall short."""
    if len(documents) < len(deal.SETS):
        raise UserError(
            f"{name} has {len(documents)} document{'s'[: len(documents) != 1]}, but held-out, calibration and training text need at least one each, since no document is "
            f"dealt to two of them. Give a longer text, raise max_documents ({data.text.max_documents}), or separate the documents (blank lines in .txt, rows in .jsonl)."
        )
    encoder = dataclasses.replace(encoder, encode=functools.cache(encoder.encode))  # the deals have most sections in common
    best: tuple[float, deal.Hand, dict[str, Packed]] | None = None
    for shares in deal.DEALS:
        hand = deal.deal(documents, shares, data.seed)
        packed = {
            what: pack.pack(given, encoder, seq_len=data.seq_len, blocks=asked[what], seed=data.seed)
            for what, given in hand.documents.items()
        }
        met = min(len(made.blocks_NT) / asked[what] if asked[what] else 1.0 for what, made in packed.items())
        if best is None or met > best[0]:
            best = met, hand, packed
        if met == 1:
            break
    assert best is not None
    if best[1].dropped:
        notes.append(f"{name}: {best[1].dropped} documents were left out because they share a paragraph with another set.")
    return best[1].documents, best[2]


def _in_turn(text: TextSpec, asked: int, parts: list[list[str]], packed: list[Packed]) -> _Set:
    """One set of several parts: a block of each, then the next of each."""

    def dealt(parts_NT: list[np.ndarray]) -> np.ndarray:
        rounds = itertools.zip_longest(*parts_NT)
        rows = [row_T for row_T in itertools.chain(*rounds) if row_T is not None]
        return np.stack(rows) if rows else parts_NT[0]

    return _Set(
        text=text,
        asked=asked,
        documents=list(itertools.chain(*parts)),
        packed=Packed(
            blocks_NT=dealt([made.blocks_NT for made in packed]),
            documents_NT=dealt([made.documents_NT for made in packed]),
            documents=sum(made.documents for made in packed),
            found_tokens=sum(made.found_tokens for made in packed),
        ),
    )


def _shortage(what: str, made: _Set, seq_len: int) -> str | None:
    """A note if there are fewer blocks than asked for.

    Raises:
        UserError: there is not even one.
    """
    count = len(made.packed.blocks_NT)
    if count == 0:
        raise UserError(
            f"{made.text.source} is too short for the {what} set: {made.packed.found_tokens} tokens were found in the set's {len(made.documents)} documents, "
            f"{seq_len} are needed for one block. Use a shorter seq_len, fewer blocks, or more text (max_documents is {made.text.max_documents})."
        )
    if count == made.asked:
        return None
    end = "training goes through them more than once" if what == "train" else "the figures rest on these"
    return f"{what}: {made.text.source} gives {count} blocks of {seq_len} tokens, {made.asked} were asked for; {end}."


def _write(
    data: DataSpec, key: str, target: Path, encoder: Encoder, sets: dict[str, _Set], heldout: dict[str, _Set], notes: Iterable[str]
) -> None:
    """Write arrays and meta as one folder."""
    with replacing(target) as folder:
        folder.mkdir()
        meta = {
            "format": FORMAT,
            "fingerprint": key,
            "created": time.time(),
            "spec": data.to_dict(),
            "tokenizer": {"fingerprint": encoder.fingerprint, "separator": encoder.separator, "separator_id": encoder.separator_id},
            "sets": {name: _row(folder / f"{name}.npy", made) for name, made in sets.items()},
            "heldout": {name: _row(folder / _file_name(name, i), made) for i, (name, made) in enumerate(heldout.items())},
            "notes": list(notes),
        }
        write_json(folder / "meta.json", meta)


def _file_name(name: str, number: int) -> str:
    """A file name for a domain; the number keeps apart what the letters do not."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "text"
    return f"heldout-{slug}{f'-{number}' if slug != name else ''}.npy"


def _row(path: Path, made: _Set) -> dict[str, Any]:
    """Write a set's tokens, and beside them which document each belongs to; return its row of the meta data."""
    documents = path.with_name(f"documents-{path.name}")
    np.save(path, made.packed.blocks_NT)
    np.save(documents, made.packed.documents_NT)
    return {
        "file": path.name,
        "documents_file": documents.name,
        "fingerprint": content_hash([file_hash(path), file_hash(documents)]),
        "source": made.text.source,
        "blocks": len(made.packed.blocks_NT),
        "asked": made.asked,
        "tokens": int(made.packed.blocks_NT.size),
        "documents": made.packed.documents,
        "documents_dealt": len(made.documents),
        "characters_dealt": sum(map(len, made.documents)),
        "samples": [document[:SAMPLE_CHARACTERS] for document in made.documents[:SAMPLES]],
    }
