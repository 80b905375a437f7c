"""What a run is refused for before any work is done."""

from pathlib import Path

from core.distill.checks import check_processes, shared_vocabulary
from core.distill.matching import conflicts, member_conflicts
from core.distill.trackers import tracker_problems
from core.errors import UserError
from core.evaluate.generate import check_prompts
from core.files import writing_to
from core.model.checkpoint import full_config, load_tokenizer
from core.model.dims import dims_of
from core.model.source import read_config, resolve
from core.plan.plan import plan_problems
from core.plan.stages import stage_problems_of
from core.progress import Progress
from core.runs.findings import teacher_of
from core.runs.folder import Run
from core.score.criteria import problems as criterion_problems
from core.score.share import place
from core.search.space import possible
from core.specs import NO_PINS, RunSpec


def preflight(run: Run, progress: Progress) -> None:
    """Refuse at once what would fail later: impossible targets or pins, prompts too long, an output folder that is taken or cannot be written."""
    spec, folder = run.spec, resolve(run.spec.model, progress)
    if spec.kind == "distill":
        check_processes(spec.distill, place()[1], run.path / "checkpoints")
    config = read_config(str(folder))
    pins = NO_PINS if spec.kind == "search" else spec.pins  # whether they fit depends on the candidate
    found = plan_problems(config, spec.targets, spec.rank, pins)
    if spec.kind in ("preview", "search", "prune", "distill"):
        found += criterion_problems(
            spec.rank, spec.score, removed=dims_of(config).layers - (spec.targets.num_hidden_layers or dims_of(config).layers)
        )
    if spec.kind == "distill":
        teacher_layers = dims_of(read_config(str(teacher_of(run, progress)))).layers
        layers = spec.targets.num_hidden_layers or dims_of(config).layers
        found += conflicts(spec.distill, layers, teacher_layers, planned=not spec.teacher)
    if spec.kind in ("distill", "family") and spec.distill.steps:
        found += tracker_problems(spec.distill.report_to)
    if spec.kind == "family":
        found += stage_problems_of(config, spec.stages) or member_conflicts(spec, config)
    if spec.teacher:
        found += _teacher_problems(spec, folder, teacher_of(run, progress))
    if found:
        raise UserError("\n".join(found))
    if spec.kind == "search":
        possible(config, spec.search, spec.rank, spec.pins)
    if spec.kind not in ("preview", "search") and (context := config.get("max_position_embeddings")):
        check_prompts(load_tokenizer(folder), spec.evaluate.prompts, spec.evaluate.max_new_tokens, context)
    if spec.output is not None:
        check_output(Path(spec.output).expanduser())


def _teacher_problems(spec: RunSpec, folder: Path, teacher: Path) -> list[str]:
    """Why a teacher of its own name cannot teach what is cut from ``folder``, or be compared with it."""
    if load_tokenizer(teacher).get_vocab() != load_tokenizer(folder).get_vocab():
        return [f"teacher: {spec.teacher} has another tokenizer than {spec.model}. Name one of the same family of models."]
    try:
        shared_vocabulary((folder, teacher), (full_config(folder)["vocab_size"], full_config(teacher)["vocab_size"]))
    except UserError as error:
        return [f"teacher: {error}"]
    return []


def check_output(folder: Path) -> None:
    """Check that a folder can receive a model.

    Raises:
        UserError: it is a file, holds something already, or cannot be written.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"The output folder {folder} exists and is not empty. Choose another, or move what is in it.")
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".coppice"
        probe.touch()
        probe.unlink()
