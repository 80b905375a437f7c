"""What becomes of the best candidates: they are repaired and compared again, and measured on the held-out text, which played no part in choosing them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from core.evaluate.preview import Previewer
from core.evaluate.store import Figures
from core.model.checkpoint import load_model
from core.model.device import pick
from core.plan.plan import Plan
from core.progress import Progress
from core.search.checkpoints import Checkpoints
from core.search.fleet import Each
from core.search.ledger import FIGURES, Row

PHASE = "finals"

Save = Callable[[], None]
"""Called after every figure that was added to a row."""


def repair(
    finalists: Sequence[Row], plans: Mapping[int, Plan], checkpoints: Checkpoints, comparer: Previewer, heldout: Previewer, save: Save,
    progress: Progress, each: Each,
) -> None:  # fmt: skip
    """Cut and repair each finalist; ``row["repaired"]`` receives its figures on the blocks of the comparison, ``row["heldout"]`` on unseen text.

    Which sizes are better may change with it: what a repair gives back differs with what was cut. What was measured before, by
    this search or another, is not made again.

    Raises:
        UserError: see ``Checkpoints.cut`` and ``core.search.fleet``.
        Stopped: progress asked for it; what was added to the rows stays.
    """
    for row in (row for row in finalists if "repaired" not in row):
        name = checkpoints.identity(plans[row["number"]])
        if (compared := comparer.stored(name)) and (unseen := heldout.stored(name)):
            _add(row, compared, unseen)
            save()
    left = [row for row in finalists if "repaired" not in row]
    progress.step(PHASE, len(finalists) - len(left), len(finalists))
    made = each([partial(checkpoints.cut, row["number"], plans[row["number"]]) for row in left])
    for done, (row, folder) in enumerate(zip(left, made, strict=True), len(finalists) - len(left) + 1):
        model, name = load_model(folder, pick(comparer.device)), checkpoints.identity(plans[row["number"]])
        _add(row, comparer.of(model, name), heldout.of(model, name))
        save()
        progress.step(PHASE, done, len(finalists))


def _add(row: Row, compared: dict[str, Figures], unseen: dict[str, Figures]) -> None:
    (figures,) = compared.values()
    row |= {"heldout": unseen, "repaired": {name: figures[name] for name in FIGURES}}


def hold_out(finalists: Sequence[Row], plans: Mapping[int, Plan], heldout: Previewer, save: Save, progress: Progress) -> None:
    """Add to each finalist's row what it does on the held-out texts, by masks, unless that is known already."""
    for done, row in enumerate(finalists):
        progress.step(PHASE, done, len(finalists))
        if "heldout" not in row:
            row["heldout"] = heldout.plan(plans[row["number"]])
            save()
    progress.step(PHASE, len(finalists), len(finalists))
