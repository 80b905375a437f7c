"""What becomes of the best candidates: they are measured on the held-out text, which played no part in choosing them."""

from collections.abc import Callable, Mapping

from core.evaluate.preview import Previewer
from core.plan.plan import Plan
from core.progress import Progress
from core.search.ledger import Row, targets_of
from core.specs import Targets

PHASE = "finals"

Save = Callable[[], None]
"""Called after every figure that was added to a row."""


def hold_out(finalists: list[Row], plans: Mapping[Targets, Plan], previewer: Previewer, save: Save, progress: Progress) -> None:
    """Add to each finalist's row what it does on the held-out texts, by masks."""
    for done, row in enumerate(finalists):
        progress.step(PHASE, done, len(finalists))
        row["heldout"] = previewer.plan(plans[targets_of(row)])
        save()
    progress.step(PHASE, len(finalists), len(finalists))
