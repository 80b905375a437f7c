"""What a search has measured so far, as one file of its run that pages read while it works. No torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.files import read_json, write_json
from core.specs import RankSpec, Targets

FILE = "candidates.json"

FIGURES = ("kl_nats", "loss_nats", "loss_se_nats", "perplexity", "top1_agreement")
"""What a row keeps of what was measured."""

Row = dict[str, Any]
"""One measured candidate: ``number`` (in the order of measuring, from 1), ``targets``, ``rank`` (if it is not the search's own), ``parameters``, ``flops`` (a token), ``estimate``
(nats, before it was measured), ``parts`` (by axis, what is now thought to cost how much), ``kl_nats``, ``loss_nats``, ``perplexity``,
``top1_agreement`` on the blocks of the comparison; finalists also ``repaired`` (the same figures of the repaired model), ``heldout`` and,
after retraining, ``retrained`` (a list of ``steps`` and the same figures)."""


def read(folder: Path) -> dict[str, Any]:
    """The ledger of a run: ``pool`` (how many candidates there are), ``seconds`` spent, ``teacher`` and ``rows``; empty if there is none yet."""
    try:
        found = read_json(folder / FILE)
    except (OSError, ValueError):
        return {"pool": 0, "seconds": 0.0, "teacher": {}, "rows": []}
    return dict(found)


def write(folder: Path, **content: Any) -> None:
    """Replace the ledger, whole or not at all."""
    write_json(folder / FILE, content)


def standing(row: Row, rounds: int | None = None) -> tuple[int, bool, float]:
    """How a candidate compares with others, lower is better: those that were retrained longer come first, then those that were repaired, then
    the lower divergence.

    Args:
        row: the candidate.
        rounds: look only at so many rounds of retraining.
    """
    retrained, repaired = (row.get("retrained") or [])[:rounds], row.get("repaired")
    return (-len(retrained), not repaired, float((retrained[-1] if retrained else repaired or row)["kl_nats"]))


def best(rows: Sequence[Row]) -> Row | None:
    """The best of the measured candidates."""
    return min(rows, key=standing, default=None)


def front(rows: Sequence[Row]) -> list[Row]:
    """Those than which no other is at least as good in quality, parameters and FLOPs, and better in one; best quality first."""

    def worth(row: Row) -> tuple[float, float, float]:
        return (row["kl_nats"], row["parameters"], row["flops"])

    def beaten(row: Row) -> bool:
        own = worth(row)
        return any(all(a <= b for a, b in zip(worth(other), own, strict=True)) and worth(other) != own for other in rows)

    return sorted((row for row in rows if not beaten(row)), key=worth)


def rank_of(row: Row, usual: RankSpec) -> RankSpec:
    """How a candidate's units were ranked: by the search's ranking ``usual`` unless another was tried on it."""
    return RankSpec.from_dict(row["rank"]) if row.get("rank") else usual


def targets_of(row: Row) -> Targets:
    """The sizes of a candidate."""
    return Targets.from_dict(row["targets"])
