"""The command that does what a screen shows: only what differs from the defaults is spelled out."""

import shlex
from functools import reduce
from typing import Any

from core.options import Option, options
from core.specs import RunSpec


def command_of(spec: RunSpec) -> str:
    """The command line that starts a run of this spec; what its kind does not look at is left out."""
    words = ["python", "-m", "core", spec.kind]
    for option in options(spec.kind):
        value = _value(spec, option)
        if value != option.default and option.type is bool:
            words.append(f"--{option.flag}")  # no switch is on by default
        elif value != option.default:
            for item in (value or [""]) if option.many else [value]:
                words += [f"--{option.flag}", str(item)]
    return shlex.join(words)


def _value(spec: RunSpec, option: Option) -> Any:
    """What the spec says of an option, in the option's own form: a text by its source."""
    value = reduce(getattr, option.path.split("."), spec)
    return tuple(getattr(item, "source", item) for item in value) if option.many else value  # type: ignore[attr-defined]
