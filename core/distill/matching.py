"""Which of the teacher's intermediate states the student learns from, and at which layers. Needs no torch: forms use it too."""

from collections.abc import Sequence

from core.errors import UserError
from core.model.dims import Config, dims_of
from core.plan.stages import members_of
from core.specs import DistillSpec, RunSpec

AUTO = "auto"
"""Among the kinds: as ``advised``. As the layer map: one pair, near the end."""

PLAN = "plan"
"""As the layer map: every layer that was kept."""

MUCH_DEPTH = 0.25
"""Part of the layers from which on their removal counts as much. The paper (practice 6) names no number: it took the states'
help with half of 32 layers gone and none when only width was cut."""

FROM_END = 3
"""The default pair is the third layer from the end of each: ``(last - 2) -> (last - 2)``, best in table 17 of 2407.14679, where the
last two are too much bent to the next token."""

Pairs = tuple[tuple[int, int], ...]
"""(student's layer, teacher's layer), from 0."""


def advised(layers: int, teacher_layers: int) -> tuple[str, ...]:
    """Kinds of states to learn from: none when little depth went, block outputs and embedding when much did (2407.14679, practices 6 and 7)."""
    return ("output", "embedding") if 1 - layers / teacher_layers >= MUCH_DEPTH else ()


def kinds_of(spec: DistillSpec, layers: int, teacher_layers: int) -> tuple[str, ...]:
    """The kinds of states that are learnt from, ``auto`` among them replaced by what is advised.

    Nothing is advised where there is nothing to weigh states against, or nothing to hear them in: a teacher whose final states shall be stored is not asked.
    """
    possible = spec.kl_weight and spec.intermediate_weight and spec.teacher_cache in ("off", AUTO)
    advice = advised(layers, teacher_layers) if possible else ()
    return tuple(dict.fromkeys(kind for name in spec.intermediate for kind in (advice if name == AUTO else (name,))))


def stored_as(spec: DistillSpec, kinds: Sequence[str], rows: int, blocks: int) -> str:
    """How the teacher's final states are stored while ``rows`` are drawn from so many ``blocks``: ``off``, or the number format.

    ``auto`` stores them exactly where that saves work and takes nothing away; whether the disk has room is asked elsewhere.
    """
    if spec.teacher_cache != AUTO:
        return spec.teacher_cache
    return "float32" if rows > blocks and not kinds and spec.sharding != "both" else "off"


def derived(kept: Sequence[int], teacher_layers: int) -> Pairs:
    """Every kept layer, and the teacher's layer whose output the next kept one was trained to read.

    Args:
        kept: the teacher's layers that the student has, ascending.
        teacher_layers: how many the teacher has.
    """
    readers = [*kept[1:], teacher_layers]
    return tuple((i, reader - 1) for i, reader in enumerate(readers))


def pairs_of(chosen: Sequence[str], layers: int, teacher_layers: int, kept: Sequence[int] | None) -> Pairs:
    """Turn a layer map as it is written (``("13:29",)``, ``("plan",)``, or nothing at all) into pairs.

    Args:
        chosen: ``student:teacher`` each; or ``plan`` alone; empty takes the default pair.
        layers: how many layers the student has.
        teacher_layers: how many the teacher has.
        kept: the teacher's layers that the student has, if it was cut from it.

    Raises:
        UserError: a pair cannot be read or names a layer that is not there.
    """
    if not chosen or tuple(chosen) == (AUTO,):
        last = max(0, layers - FROM_END)
        return ((last, max(0, teacher_layers - FROM_END) if kept is None else derived(kept, teacher_layers)[last][1]),)
    if tuple(chosen) == (PLAN,):
        if kept is None:
            raise UserError("layer_map: 'plan' needs a student that was cut by a plan. Name pairs instead, such as 13:29.")
        return derived(kept, teacher_layers)
    return tuple(_pair(text, layers, teacher_layers) for text in chosen)


def conflicts(spec: DistillSpec, layers: int, teacher_layers: int, *, planned: bool = True) -> list[str]:
    """What of the settings cannot work for students of so many layers, a sentence each; needs neither plan nor model.

    ``planned`` says whether the student is cut from the very teacher it learns from.
    """
    kinds, found = kinds_of(spec, layers, teacher_layers), []
    if kinds and spec.teacher_cache not in ("off", AUTO):
        found.append(
            f"teacher_cache: keeps final states only, and {' and '.join(kinds)} would be learnt from too. Turn one of the two off."
        )
    if kinds:
        try:
            pairs_of(spec.layer_map, layers, teacher_layers, range(layers) if planned else None)
        except UserError as error:
            found.append(str(error))
    return found


def member_conflicts(spec: RunSpec, config: Config) -> list[str]:
    """What of a family's settings cannot work for one of its members, a sentence each that names the first such member.

    ``config`` is the uncut model's; the stages must be possible.
    """
    layers = [dims_of(config).layers, *(dims.layers for dims in members_of(config, spec.stages))]
    found: dict[str, str] = {}
    for number, student in enumerate(layers[1:], start=1):
        before = 0 if spec.lineage == "first" else number - 1
        for problem in conflicts(spec.distill, student, layers[before], planned=before == number - 1):
            found.setdefault(problem, f"Member {number}: {problem}")
    return list(found.values())


def _pair(text: str, layers: int, teacher_layers: int) -> tuple[int, int]:
    student, _, teacher = text.partition(":")
    if not (student.strip().isdecimal() and teacher.strip().isdecimal()):
        raise UserError(f"layer_map: {text!r} is no pair of layers. Write student:teacher, such as 13:29, or 'plan' alone.")
    pair = int(student), int(teacher)
    if pair[0] >= layers or pair[1] >= teacher_layers:
        raise UserError(
            f"layer_map: {text} is out of range: the student has layers 0 to {layers - 1}, the teacher 0 to {teacher_layers - 1}."
        )
    return pair
