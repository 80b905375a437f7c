"""Who gets which document: duplicates out, the rest dealt to held-out, calibration and training so that nothing is in two.

Whole documents are dealt, never parts of one, and a document that shares a paragraph with a set before it is dropped: what
is measured on held-out text is then worth something. Everything here is pure.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from core.errors import UserError

T = TypeVar("T")

SETS = ("heldout", "calibration", "train")
"""The sets in the order of their right to a paragraph that several documents share."""
DEALS = ((1, 1), (2, 2), (3, 3))
"""Documents in ten for held-out and for calibration. The first is taken unless the text is too short for what was asked."""
PARAGRAPH_CHARACTERS = 80
"""Shorter paragraphs (headings, "Thank you.") are no sign of overlap."""
TOLERATED_SHARE = 0.01
"""Part of the paragraphs that two texts may have in common: quotations, set phrases."""

_HELDOUT_SLOTS = (0, 2, 4)
_CALIBRATION_SLOTS = (1, 3, 5)


@dataclass(frozen=True, kw_only=True)
class Hand:
    """What one deal gives each set, and how many documents it dropped for sharing a paragraph."""

    documents: dict[str, list[str]]
    dropped: int


def distinct(documents: Iterable[str]) -> tuple[list[str], int]:
    """The documents without repetitions (but for white space), in their order, and how many there were too many."""
    seen: dict[bytes, str] = {}
    total = 0
    for document in documents:
        seen.setdefault(_hash(document), document)
        total += 1
    return list(seen.values()), total - len(seen)


def shuffled(items: list[T], seed: int) -> list[T]:
    """The items in an order that the seed determines."""
    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]


def evenly(count: int, parts: int) -> list[int]:
    """``count`` shared among some parts: equal but for one, the first parts getting more."""
    return [count // parts + (part < count % parts) for part in range(parts)]


def deal(documents: list[str], shares: tuple[int, int], seed: int) -> Hand:
    """Deal documents to the three sets, ``shares`` in ten to held-out and to calibration, in an order that the seed determines.

    Larger shares only add to what smaller ones give to held-out and calibration.
    """
    slots = dict.fromkeys(_HELDOUT_SLOTS[: shares[0]], "heldout") | dict.fromkeys(_CALIBRATION_SLOTS[: shares[1]], "calibration")
    hands: dict[str, list[str]] = {name: [] for name in SETS}
    for i, document in enumerate(shuffled(documents, seed)):
        hands[slots.get(i % 10, "train")].append(document)
    taken: set[bytes] = set()
    dropped = 0
    for name in SETS:
        kept = [document for document in hands[name] if taken.isdisjoint(paragraphs(document))]
        dropped += len(hands[name]) - len(kept)
        hands[name] = kept
        taken |= {mark for document in kept for mark in paragraphs(document)}
    return Hand(documents=hands, dropped=dropped)


def paragraphs(document: str) -> set[bytes]:
    """Hashes of a document's longer paragraphs, white space aside."""
    return {_hash(part) for part in re.split(r"\n\s*\n|\n", document) if len(part.strip()) >= PARAGRAPH_CHARACTERS}


def refuse_overlap(own: Iterable[str], own_name: str, other: list[str], other_name: str) -> None:
    """Refuse a held-out text that calibration or training text gives away.

    Raises:
        UserError: they share a document, or more than ``TOLERATED_SHARE`` of the paragraphs of the one that has fewer.
    """
    own = list(own)
    if whole := {_hash(document) for document in own} & {_hash(document) for document in other}:
        raise UserError(
            f"The held-out text {other_name!r} shares {len(whole)} whole document{'s'[: len(whole) != 1]} with calibration and training text {own_name!r}. "
            "What is trained on cannot measure the result: choose another held-out text."
        )
    ours, theirs = (set[bytes]().union(*map(paragraphs, texts)) for texts in (own, other))
    share = len(ours & theirs) / max(1, min(len(ours), len(theirs)))
    if share > TOLERATED_SHARE:
        raise UserError(
            f"The held-out text {other_name!r} and calibration and training text {own_name!r} have {share:.1%} of their paragraphs in common; "
            f"at most {TOLERATED_SHARE:.0%} is allowed. Choose another held-out text, or take the common passages out of one of them."
        )


def _hash(text: str) -> bytes:
    """A short hash of a text's words, white space normalised."""
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=16).digest()
