"""What all specs are: frozen dataclasses of plain data, which know their own problems."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Self, get_args, get_type_hints

from core.errors import UserError
from core.files import canonical_json, content_hash


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Base of all specs: JSON in, JSON out, unknown fields refused."""

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON-able data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build a spec from ``to_dict``'s data.

        Raises:
            UserError: a field is unknown.
        """
        hints = _hints(cls)  # type: ignore[arg-type]
        if unknown := sorted(set(data) - set(hints)):
            raise UserError(f"{cls.__name__} has no field {', '.join(map(repr, unknown))}. Its fields are: {', '.join(hints)}.")
        return cls(**{name: _restore(hints[name], value) for name, value in data.items()})

    def identity(self) -> str:
        """Name the spec by its content: equal specs, equal names."""
        return content_hash(canonical_json(self.to_dict()).encode())

    def problems(self) -> list[str]:
        """List everything that is wrong with the values, a sentence each; empty if nothing is."""
        found = [f"{name}: {problem}" for name, problem in self.own_problems()]
        for child in vars(self).values():
            for part in child if isinstance(child, tuple) else (child,):
                found += part.problems() if isinstance(part, Spec) else []
        return found

    def own_problems(self) -> list[tuple[str, str]]:
        """Pairs of field and problem for this spec alone."""
        return []

    def check(self) -> Self:
        """Return the spec itself.

        Raises:
            UserError: it has problems; the message lists them all.
        """
        if problems := self.problems():
            raise UserError("\n".join(problems))
        return self


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Type hints of a spec's fields; making them out of their text takes longer than all the rest of reading a spec."""
    return get_type_hints(kind)


def _restore(hint: Any, value: Any) -> Any:
    """Turn JSON data back into what the field's type hint says: specs from dicts, tuples from lists."""
    candidates = [hint, *get_args(hint)]
    spec = next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, Spec)), None)
    if spec is not None and isinstance(value, dict):
        return spec.from_dict(value)
    if isinstance(value, list | tuple):
        return tuple(_restore(spec or object, item) for item in value)
    return value


def positive(**values: float | None) -> list[tuple[str, str]]:
    """Complain of every value that is not above zero."""
    return [(name, f"must be above 0, got {value}.") for name, value in values.items() if value is not None and not value > 0]


def one_of(allowed: tuple[str, ...], **values: str) -> list[tuple[str, str]]:
    """Complain of every value that is not in ``allowed``."""
    return [(name, f"must be one of {', '.join(allowed)}; got {value!r}.") for name, value in values.items() if value not in allowed]
