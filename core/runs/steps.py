"""What each kind of run does, step by step. Every step looks first at what is on disk already, so a resumed run goes on where it was.

This module and those of the steps bring torch: the worker imports them when it has the device.
"""

import shutil

from core.data.blocks import build
from core.distill.checks import shared_vocabulary
from core.distill.trainer import distill
from core.distill.watch import Measure
from core.evaluate.preview import Previewer
from core.model.checkpoint import copy_companions, full_config, load_model
from core.model.cost import cost_of
from core.model.device import pick
from core.model.source import resolve
from core.plan.plan import Plan, make_plan
from core.progress import Progress, Silent
from core.prune.export import prune_checkpoint
from core.prune.repair.repair import repair_checkpoint
from core.prune.rounds import plan_in_rounds
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
from core.runs.finishing import save_step
from core.runs.folder import Run
from core.runs.following import Following
from core.runs.phases import Step, phase
from core.runs.preflight import preflight
from core.runs.searching import finals_step, search_step
from core.score.scoring import score
from core.score.share import meet
from core.score.store import load as load_scores

ROLES = {"pruned": "pruned", "model": "distilled"}
"""Name of a model's folder inside a run -> the part it plays."""


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


def family_step(run: Run, progress: Progress) -> None:
    """Make all members."""
    make_members(run, progress)


def compare_step(run: Run, progress: Progress) -> None:
    """Measure the run's model, against another if one was named."""
    blocks = blocks_of(run, progress)
    folders = [resolve(name, progress) for name in (run.spec.model, *run.spec.against[:1])]
    if run.spec.against:
        shared_vocabulary((folders[0], folders[1]), (full_config(folders[0])["vocab_size"], full_config(folders[1])["vocab_size"]))
    teacher = load_model(folders[1], pick(run.spec.device)) if run.spec.against else None
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
