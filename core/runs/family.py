"""A family of models: each member is cut from the one before it and retrained, and is a run of its own.

Minitron makes its 4B from its 8B and that from the 15B (arXiv 2407.14679, best practices 1 and 8): a model closer in size is the
better start. Who teaches is a choice (``RunSpec.lineage``): the member before, or the uncut model, which the paper found better.
"""

import dataclasses
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.progress import Progress, Silent, Stopped
from core.runs.control import cancel, delete
from core.runs.findings import update_results
from core.runs.folder import Run, create, member_id
from core.runs.worker import DONE, STOPPED, work
from core.specs import RunSpec, Targets, stage_targets


class Member(Silent):
    """Progress of one member, passed on to its family's as a part of the whole."""

    def __init__(self, family: Progress, number: int, count: int) -> None:
        self._family, self._number, self._count = family, number, count

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        """Tell the family how far it is; the figures stay with the member."""
        self._family.step("family", self._number - 1, self._count, member=self._number, member_phase=phase, part=done / max(total, 1))

    def note(self, message: str) -> None:
        """Pass a sentence on."""
        self._family.note(f"Member {self._number}: {message}")


def make_members(run: Run, progress: Progress) -> None:
    """Carry out every member that is not done yet, in order.

    Raises:
        UserError: a member failed; those before it are kept, and resuming goes on with it.
        Stopped: the user asked for it; the member under way can be resumed with the family.
    """
    stages = run.spec.stages
    for number in range(1, len(stages) + 1):
        member = member_of(run, number)
        if member.last_word().state != "done":
            _carry_out(run, member, Member(progress, number, len(stages)))
        _gather(run, number, member)
        progress.step("family", number, len(stages))


def _gather(run: Run, number: int, member: Run) -> None:
    """Put what was measured on a finished member with the family's figures; the last one's are the family's own."""
    found = member.results()
    figures = found.get("distilled", found["pruned"])
    kept = {"run": member.id, "stage": run.spec.stages[number - 1], "parameters": figures["parameters"], "heldout": figures["heldout"]}
    first = {"teacher": found["teacher"]} if number == 1 else {}
    members = [*run.results().get("members", [])[: number - 1], kept]
    update_results(run, members=members, distilled=figures, machine=found.get("machine"), **first)


def member_of(run: Run, number: int) -> Run:
    """The run that makes a family's member, from 1; made anew if there is none that could be carried on."""
    name = member_id(run.id, number)
    member = Run(run.path.parent / name)
    if (member.path / "spec.json").exists() and member.last_word().state == "cancelled":
        delete(member)
    return member if (member.path / "spec.json").exists() else create(member_spec(run, number), name)


def member_spec(run: Run, number: int) -> RunSpec:
    """What makes a member: the family's settings on the model before it."""
    spec, before = run.spec, run.spec.model if number == 1 else str(final_model(member_of(run, number - 1)))
    return dataclasses.replace(
        spec, kind="distill", name=f"{spec.name or 'Family'}, member {number}", model=before, stages=(), targets=_targets(spec, number),
        teacher=spec.model if spec.lineage == "first" and number > 1 else "",
    )  # fmt: skip


def _targets(spec: RunSpec, number: int) -> Targets:
    return stage_targets(spec.stages[number - 1])


def final_model(run: Run) -> Path:
    """The folder of the model that a finished run made: retrained if it was, else as it was cut."""
    return next(folder for name in ("model", "pruned") if (folder := run.path / name).exists())


def _carry_out(run: Run, member: Run, progress: Progress) -> None:
    """Work on a member inside of the family's worker."""
    code = work(member, mirror=progress, has_device=True)
    if code == STOPPED:
        if (request := run.cancel_request()) and not request["keep"]:
            cancel(member, keep=False)
        raise Stopped
    if code != DONE:
        error = member.last_word().error or {}
        raise UserError(
            f"{member.spec.name} failed: {error.get('message', 'see its log')} Members before it are kept; resume to try it again."
        )
