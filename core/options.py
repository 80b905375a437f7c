"""Every field of a run's spec as one option of the command line: flag, type, default and help, all read from the spec itself.

The command line offers these options, and the dashboard prints them beside each form; there is no second list of either.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from core.specs import RunSpec, Spec, TextSpec

FLAGS = {
    "data.text.source": "text",
    "data.seed": "data-seed",
    "score.batch_size": "score-batch-size",
    "rank.batch": "rank-batch",
    "rank.sequence": "rank-sequence",
    "rank.depth": "rank-depth",
    "repair.method": "repair",
    "repair.blocks": "repair-blocks",
    "repair.ridge": "repair-ridge",
    "repair.steps": "repair-steps",
    "repair.learning_rate": "repair-learning-rate",
    "repair.passes": "repair-passes",
    "repair.scale_rate": "repair-scale-rate",
    "repair.batch_size": "repair-batch-size",
    "search.blocks": "search-blocks",
    "search.seed": "search-seed",
    "search.workers": "search-workers",
    "evaluate.batch_size": "evaluate-batch-size",
    "evaluate.prompts": "prompt",
    "stages": "stage",
    "goal.dtype": "weights-dtype",
    "goal.batch": "sequences",
}
"""Fields whose flag is not simply their own name."""

CUTTING = ("score", "rank", "targets", "goal", "pins", "repair")
"""What decides a cut, beside model and text."""

PARTS = {
    "probe": ("model", "data", "device", "name"),
    "score": ("model", "data", "score", "device", "name"),
    "preview": ("model", "data", "score", "rank", "targets", "goal", "pins", "device", "name"),
    "search": ("model", "data", "score", "rank", "pins", "search", "repair", "device", "name"),
    "prune": ("model", "data", *CUTTING, "evaluate", "device", "name", "output"),
    "distill": ("model", "teacher", "data", *CUTTING, "distill", "evaluate", "device", "name", "output"),
    "family": ("model", "stages", "lineage", "data", "score", "rank", "repair", "distill", "evaluate", "device", "name"),
    "evaluate": ("model", "against", "data", "evaluate", "device", "name"),
    "generate": ("model", "against", "evaluate", "device", "name"),
}
"""Kind of run -> the fields of ``RunSpec`` that it looks at."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One field, however deep, as an option."""

    path: str
    """``distill.steps``"""
    flag: str
    """``steps``, without the dashes."""
    type: type
    many: bool
    """Whether it may be given several times."""
    default: Any
    help: str


@functools.cache
def options(kind: str) -> tuple[Option, ...]:
    """The options of a kind of run."""
    return tuple(option for name in PARTS[kind] for option in _options(RunSpec(kind=kind), name, ""))


def _options(spec: Spec, name: str, prefix: str) -> list[Option]:
    """Options of one field of a spec, and of all fields below it."""
    value, path = getattr(spec, name), f"{prefix}{name}"
    if isinstance(value, Spec):
        return [option for field in dataclasses.fields(value) for option in _options(value, field.name, f"{path}.")]
    hint = get_type_hints(type(spec))[name]
    kind = next((part for part in (hint, *get_args(hint)) if part in (bool, int, float, str)), str)
    plain = tuple(item.source if isinstance(item, TextSpec) else item for item in value) if isinstance(value, tuple) else value
    return [
        Option(
            path=path,
            flag=FLAGS.get(path, name.replace("_", "-")),
            type=kind,
            many=isinstance(value, tuple),
            default=plain,
            help=help_of(type(spec), name),
        )
    ]


@cache
def field_docs(spec: type[Spec]) -> dict[str, str]:
    """Field of a spec -> the docstring that stands under it in the source."""
    body = next(node.body for node in ast.parse(inspect.getsource(spec)).body if isinstance(node, ast.ClassDef))
    pairs = [
        (first, second) for first, second in itertools.pairwise(body) if isinstance(first, ast.AnnAssign) and isinstance(second, ast.Expr)
    ]
    return {first.target.id: " ".join(str(second.value.value).split()) for first, second in pairs}  # type: ignore[union-attr, attr-defined]


def help_of(spec: type[Spec], field: str) -> str:
    """What a field means, in one paragraph; empty where its name says it all."""
    return field_docs(spec).get(field, "").replace("``", "")  # type: ignore[arg-type]


def spec_from(kind: str, values: dict[str, Any]) -> RunSpec:
    """Build a run's spec from option paths and values; what is not named keeps its default.

    Raises:
        UserError: a value is not allowed; the message lists all problems.
    """
    data = RunSpec(kind=kind).to_dict()
    for path, value in values.items():
        *parents, name = path.split(".")
        place = data
        for parent in parents:
            place = place[parent]
        if isinstance(value, tuple):
            value = tuple(filter(None, value))  # an empty word is how a command says: none at all
        place[name] = [{"source": source} for source in value] if path == "data.elsewhere" else value
    return RunSpec.from_dict(data).check()
