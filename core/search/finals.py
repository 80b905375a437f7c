"""What becomes of the best candidates: they are repaired and compared again, and measured on the held-out text, which played no part in choosing them."""

from collections.abc import Callable, Mapping, Sequence

from core.evaluate.preview import Previewer
from core.model.checkpoint import load_model
from core.model.device import pick
from core.plan.plan import Plan
from core.progress import Progress
from core.search.checkpoints import Checkpoints
from core.search.ledger import FIGURES, Row, targets_of
from core.specs import Targets

PHASE = "finals"

Save = Callable[[], None]
"""Called after every figure that was added to a row."""


def repair(
    finalists: Sequence[Row], plans: Mapping[Targets, Plan], checkpoints: Checkpoints, comparer: Previewer, heldout: Previewer, save: Save,
    progress: Progress,
) -> None:  # fmt: skip
    """Cut and repair each finalist; ``row["repaired"]`` receives its figures on the blocks of the comparison, ``row["heldout"]`` on unseen text.

    Which sizes are better may change with it: what a repair gives back differs with what was cut.

    Raises:
        UserError: see ``Checkpoints.cut``.
        Stopped: progress asked for it; what was added to the rows stays.
    """
    for done, row in enumerate(finalists):
        progress.step(PHASE, done, len(finalists))
        if "repaired" not in row:
            plan = plans[targets_of(row)]
            model, name = load_model(checkpoints.cut(row["number"], plan), pick(comparer.device)), checkpoints.identity(plan)
            (figures,) = comparer.of(model, name).values()
            row |= {"heldout": heldout.of(model, name), "repaired": {name: figures[name] for name in FIGURES}}
            save()
    progress.step(PHASE, len(finalists), len(finalists))


def hold_out(finalists: Sequence[Row], plans: Mapping[Targets, Plan], heldout: Previewer, save: Save, progress: Progress) -> None:
    """Add to each finalist's row what it does on the held-out texts, by masks, unless that is known already."""
    for done, row in enumerate(finalists):
        progress.step(PHASE, done, len(finalists))
        if "heldout" not in row:
            row["heldout"] = heldout.plan(plans[targets_of(row)])
            save()
    progress.step(PHASE, len(finalists), len(finalists))
