"""What each kind of run does, step by step. Every step looks first at what is on disk already, so a resumed run goes on where it was.

This is the one module of ``core.runs`` that brings torch: the worker imports it when it has the device.
"""

import gc
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.data.blocks import build
from core.distill.checks import check_processes
from core.distill.matching import conflicts, member_conflicts
from core.distill.trainer import distill
from core.distill.watch import Measure
from core.errors import UserError
from core.evaluate.generate import check_prompts
from core.evaluate.preview import Previewer
from core.files import read_json, replacing, require_free, tree_bytes, write_text, writing_to
from core.model.checkpoint import copy_companions, full_config, load_model, load_tokenizer
from core.model.cost import cost_of
from core.model.device import pick
from core.model.dims import dims_of
from core.model.source import read_config, resolve
from core.plan.plan import Plan, make_plan, plan_problems
from core.plan.stages import stage_problems_of
from core.progress import Progress, Silent
from core.prune.card import model_card, results_table
from core.prune.export import prune_checkpoint
from core.prune.repair.repair import repair_checkpoint
from core.prune.rounds import plan_in_rounds
from core.report.html import write_report
from core.runs import machine
from core.runs.family import make_members
from core.runs.findings import (
    add_generations,
    add_speeds,
    blocks_of,
    describe,
    first_losses,
    glance,
    load,
    measure_all,
    recovered,
    references,
    size_of,
    speaking,
    teacher_of,
    update_results,
)  # fmt: skip
from core.runs.folder import Run
from core.runs.following import Following
from core.runs.searching import finals_step, search_step
from core.score.criteria import problems as criterion_problems
from core.score.scoring import score
from core.score.share import meet, place
from core.score.store import load as load_scores
from core.search.space import possible
from core.specs import NO_PINS

Step = Callable[[Run, Progress], None]

ROLES = {"pruned": "pruned", "model": "distilled"}
"""Name of a model's folder inside a run -> the part it plays."""


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
    if spec.kind == "family":
        found += stage_problems_of(config, spec.stages) or member_conflicts(spec, config)
    if spec.teacher and load_tokenizer(teacher_of(run, progress)).get_vocab() != load_tokenizer(folder).get_vocab():
        found.append(f"teacher: {spec.teacher} has another tokenizer than {spec.model}. Name one of the same family of models.")
    if found:
        raise UserError("\n".join(found))
    if spec.kind == "search":
        possible(config, spec.search, spec.rank, spec.pins)
    if spec.kind not in ("preview", "search") and (context := config.get("max_position_embeddings")):
        check_prompts(load_tokenizer(folder), spec.evaluate.prompts, spec.evaluate.max_new_tokens, context)
    if spec.output is not None:
        check_output(Path(spec.output).expanduser())


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


def score_step(run: Run, progress: Progress) -> None:
    """Make sure that the importance is in the store."""
    scores = score(
        resolve(run.spec.model, progress), blocks_of(run, progress), run.spec.score, progress, run.spec.device, name=run.spec.model
    )
    update_results(run, scores=scores.key)


def follow(run: Run) -> None:
    """As one of several processes, do a share of the scoring and of the training of a run that the first process leads.

    Raises:
        UserError: another process has ended, or this one's share cannot be done.
    """
    spec, folder = run.spec, resolve(run.spec.model)
    score(folder, build(spec.data, folder, Silent()), spec.score, Following(run), spec.device, name=spec.model)
    if spec.kind == "distill":
        meet()
        if to_be_trained(run):
            train(run, Silent())


def plan_step(run: Run, progress: Progress) -> None:
    """Choose what is kept."""
    path, spec = run.path / "plan.npz", run.spec
    if not path.exists():
        folder = resolve(spec.model, progress)
        if spec.rank.rounds > 1:
            model, blocks = load_model(folder, pick(spec.device)), blocks_of(run, progress)
            plan = plan_in_rounds(
                model,
                full_config(folder),
                blocks.calibration_NT,
                spec.score,
                spec.targets,
                spec.rank,
                progress,
                spec.pins,
                blocks.calibration_documents_NT,
            )
        else:
            plan = make_plan(load_scores(run.results()["scores"]), full_config(folder), spec.targets, spec.rank, spec.pins)
        plan.save(path)
    progress.step("plan", 1, 1)


def prune_step(run: Run, progress: Progress) -> None:
    """Cut. What will be repaired is cut too, so that the repair's effect can be measured."""
    target = run.path / ("pruned" if run.spec.repair.method == "none" else "cut")
    if not (run.path / "pruned").exists() and not target.exists():
        prune_checkpoint(resolve(run.spec.model, progress), Plan.load(run.path / "plan.npz"), target, run.spec.to_dict(), progress)
    progress.step("prune", 1, 1)


def repair_step(run: Run, progress: Progress) -> None:
    """Cut once more, this time with the surviving weights fitted to the uncut model."""
    spec = run.spec
    if not (run.path / "pruned").exists():
        folder, blocks, plan = resolve(spec.model, progress), blocks_of(run, progress), Plan.load(run.path / "plan.npz")
        done = repair_checkpoint(
            folder, plan, blocks.first(spec.repair.blocks), spec.repair, run.path / "pruned", spec.to_dict(), progress, pick(spec.device)
        )
        update_results(run, repair=done)
    progress.step("repair", 1, 1)


def preview_step(run: Run, progress: Progress) -> None:
    """Measure the plan as masks on the uncut model."""
    blocks, plan = blocks_of(run, progress), Plan.load(run.path / "plan.npz")
    previewer = Previewer(resolve(run.spec.model, progress), blocks.heldout, device=run.spec.device, progress=progress)
    sizes = {"teacher": size_of(cost_of(previewer.config)), "draft": size_of(cost_of(previewer.config, plan.dims))}
    heldout = {"draft": previewer.plan(plan), "teacher": previewer.teacher()}
    update_results(run, **{role: sizes[role] | {"heldout": heldout[role]} for role in sizes})
    progress.step("measure", 1, 1)


def measure_step(run: Run, progress: Progress) -> None:
    """Measure the teacher and the pruned model before any training; if it was repaired, also what it was before."""
    if "pruned" in run.results():
        return
    teacher, student = load(run, "teacher", progress), load(run, "pruned", progress)
    blocks, reference = blocks_of(run, progress), references(run, teacher, progress)
    found = {"teacher": describe(run, teacher), "pruned": describe(run, student)}
    if (run.path / "cut").exists():
        before = load(run, "cut", progress)
        found["cut"] = describe(run, before) | {"heldout": measure_all(run, before, blocks, reference, progress)}
    for role, model in (("teacher", teacher), ("pruned", student)):
        found[role]["heldout"] = measure_all(run, model, blocks, reference, progress)
    if not run.spec.distill.steps or run.spec.kind == "prune":  # else speed is measured at the end, of all three models together
        add_speeds(found, {"teacher": teacher, "pruned": student}, run, progress)
    glances = {role: first_losses(one["heldout"]) for role, one in found.items()}
    update_results(run, **found, glance=glances, machine=machine.describe(str(teacher.device)))
    shutil.rmtree(run.path / "cut", ignore_errors=True)
    add_generations(run, {"teacher": teacher, "pruned": student})


def distill_step(run: Run, progress: Progress) -> None:
    """Let the pruned model learn from the teacher, watching it on a few held-out blocks."""
    meet()  # now every process can read the cut model
    if to_be_trained(run):
        train(run, progress, glance(run, blocks_of(run, progress), progress))
    trained = run.path / "trained"
    if trained.exists():
        copy_companions(run.path / "pruned", trained)
        trained.rename(run.path / "model")


def to_be_trained(run: Run) -> bool:
    """Whether the run asks for training that is not finished yet."""
    return run.spec.distill.steps > 0 and not (run.path / "model").exists() and not (run.path / "trained").exists()


def train(run: Run, progress: Progress, measure: Measure | None = None) -> None:
    """Train the pruned model, together with the other processes if there are some; the first writes it into ``trained``."""
    spec = run.spec
    distill(
        run.path / "pruned", teacher_of(run, progress), blocks_of(run, progress).train_NT, spec.distill, run.path / "trained", progress=progress,
        measure=measure, sample=speaking(run) if measure else None, plan=None if spec.teacher else Plan.load(run.path / "plan.npz"),
        device=spec.device, checkpoints=run.path / "checkpoints", saving=run.saving,
    )  # fmt: skip


def evaluate_step(run: Run, progress: Progress) -> None:
    """Measure the distilled model, and say how much of the damage was made good."""
    if "distilled" in run.results() or not (run.path / "model").exists():
        return
    blocks, models = blocks_of(run, progress), {"teacher": load(run, "teacher", progress), "distilled": load(run, "model", progress)}
    results, reference = run.results(), references(run, models["teacher"], progress)
    heldout = measure_all(run, models["distilled"], blocks, reference, progress)
    found = {role: results[role] for role in ("teacher", "pruned")} | {
        "distilled": describe(run, models["distilled"]) | {"heldout": heldout}
    }
    add_speeds(found, {**models, "pruned": load(run, "pruned", progress)}, run, progress)
    update_results(run, **found, recovered=recovered(found["teacher"], results.get("cut", found["pruned"]), found["distilled"]))
    add_generations(run, {"distilled": models["distilled"]})


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


def family_step(run: Run, progress: Progress) -> None:
    """Make all members, and gather what was measured on them; the last one's figures are the family's."""
    make_members(run, progress)
    members = run.results()["members"]
    found = [Run(run.path.parent / member["run"]).results() for member in members]
    figures = [part.get("distilled", part["pruned"]) for part in found]
    kept = [member | {key: part[key] for key in ("parameters", "heldout")} for member, part in zip(members, figures, strict=True)]
    update_results(run, teacher=found[0]["teacher"], distilled=figures[-1], members=kept, machine=found[0].get("machine"))


def compare_step(run: Run, progress: Progress) -> None:
    """Measure the run's model, against another if one was named."""
    blocks = blocks_of(run, progress)
    teacher = load_model(resolve(run.spec.against[0], progress), pick(run.spec.device)) if run.spec.against else None
    reference = references(run, teacher, progress) if teacher is not None else {}
    models = ({"teacher": teacher} if teacher is not None else {}) | {
        "model": load_model(resolve(run.spec.model, progress), pick(run.spec.device))
    }
    for role, model in models.items():
        found = describe(run, model) | {"heldout": measure_all(run, model, blocks, reference, progress)}
        update_results(run, **{role: found})
    found = {role: run.results()[role] for role in models}
    add_speeds(found, models, run, progress)
    update_results(run, **found, machine=machine.describe(run.spec.device))


def generate_step(run: Run, progress: Progress) -> None:
    """Let each model continue the prompts."""
    models = (run.spec.model, *run.spec.against)
    for done, name in enumerate(models):
        folder = resolve(name, progress)
        role = "teacher" if done == 0 else ROLES.get(folder.name, name)
        add_generations(run, {role: load_model(folder, pick(run.spec.device))})
        progress.step("generate", done + 1, len(models))


def probe_step(run: Run, progress: Progress) -> None:
    """Time the model by itself, on blocks of the length of the run's."""
    model = load_model(resolve(run.spec.model, progress), pick(run.spec.device))
    found = {"model": describe(run, model)}
    add_speeds(found, {"model": model}, run, progress)
    update_results(run, **found, machine=machine.describe(str(model.device)))


class Within:
    """Progress of a step whose parts report under names of their own: all of it is the step's phase."""

    PARTS = ("measure", "speed", "generate")

    def __init__(self, progress: Progress, phase: str) -> None:
        self._progress, self._phase = progress, phase

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        """Pass a step on."""
        self._progress.step(self._phase if phase in self.PARTS else phase, done, total, **metrics)

    def note(self, message: str) -> None:
        """Pass a sentence on."""
        self._progress.note(message)


def phase(name: str, step: Step) -> Step:
    """The step as a phase of a run, with the time it takes added to the run's results."""

    def run_step(run: Run, progress: Progress) -> None:
        began = time.monotonic()
        try:
            step(run, Within(progress, name))
        finally:
            gc.collect()
            if run.path.exists():
                seconds = run.results().get("seconds", {})
                update_results(run, seconds=seconds | {name: seconds.get(name, 0.0) + time.monotonic() - began})

    return run_step


CUT = (
    preflight,
    phase("score", score_step),
    phase("plan", plan_step),
    phase("prune", prune_step),
    phase("repair", repair_step),
    phase("measure", measure_step),
)
STEPS: dict[str, tuple[Step, ...]] = {
    "probe": (phase("speed", probe_step),),
    "score": (phase("score", score_step),),
    "preview": (*CUT[:3], phase("measure", preview_step)),
    "search": (preflight, phase("score", score_step), phase("search", search_step), phase("finals", finals_step)),
    "prune": (*CUT, phase("save", save_step)),
    "distill": (*CUT, phase("distill", distill_step), phase("evaluate", evaluate_step), phase("save", save_step)),
    "family": (preflight, phase("family", family_step), phase("save", save_step)),
    "evaluate": (phase("evaluate", compare_step),),
    "generate": (preflight, phase("generate", generate_step)),
}
"""Kind of run -> its steps."""


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
