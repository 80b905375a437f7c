"""The end of a run: model card, report, the copy elsewhere, and what is cleared away."""

import shutil
from pathlib import Path

from core.files import read_json, replacing, require_free, tree_bytes, write_text
from core.model.checkpoint import full_config
from core.model.source import resolve
from core.progress import Progress
from core.prune.card import model_card, results_table
from core.report.html import write_report
from core.runs.folder import Run
from core.runs.preflight import check_output


def save_step(run: Run, progress: Progress) -> None:
    """Write model card, report and, if asked for, the copy in the output folder; clear away what nobody needs any more."""
    final = next((run.path / name for name in ("model", "pruned") if (run.path / name).exists()), None)
    progress.step("save", 0, 1)
    if final is not None:
        write_card(run, final, progress)
        if run.spec.output is not None:
            export(final, Path(run.spec.output).expanduser())
    for name in ("checkpoints", "teacher-checkpoints", "teacher", "states"):
        shutil.rmtree(run.path / name, ignore_errors=True)
    write_report(run, run.path / "report.html")
    progress.step("save", 1, 1)


def write_card(run: Run, folder: Path, progress: Progress) -> None:
    """Write the final model's card, with what was measured."""
    before = full_config(resolve(run.spec.model, progress))
    write_text(
        folder / "README.md", model_card(before, read_json(folder / "config.json"), run.spec.to_dict(), results_table(run.results()))
    )


def export(folder: Path, target: Path) -> None:
    """Copy a checkpoint into an empty folder, whole or not at all."""
    check_output(target)
    require_free(target, tree_bytes(folder))
    target.rmdir()
    with replacing(target) as temporary:
        shutil.copytree(folder, temporary)
