"""The versions of drafts: every change is a line in the workspace, so undo, branches and names survive a reload and a restart.

A version says which draft it is and from which version it was made; a draft is named by its content, so two versions may hold the
same draft. Lines are only ever added, so tabs do not disturb each other.
"""

import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from core.files import writing_to
from core.report.format import listed
from core.report.tables import spec_differences
from core.specs import Spec
from core.workspace import room

TAIL_BYTES = 400_000
"""How much of the file is looked at: some three thousand versions."""

WORDS = {
    "targets.num_hidden_layers": "layers", "targets.hidden_size": "hidden size", "targets.intermediate_size": "neurons",
    "targets.num_attention_heads": "heads", "targets.num_key_value_heads": "KV heads", "rank.depth": "layers by", "rank.heads": "heads by",
    "rank.neurons": "neurons by", "rank.channels": "channels by", "rank.batch": "over blocks by", "rank.sequence": "over tokens by",
}  # fmt: skip
"""Field of a draft -> what it is called in a list of changes; others are called by their own name."""


@dataclass(frozen=True)
class Version:
    """One state of a draft."""

    key: str
    draft: str
    """The draft's name."""
    parent: str | None
    """The version that it was made from; None for the first."""
    when: float
    """Seconds since 1970."""
    name: str = ""
    """What a person called it."""


def file() -> Path:
    """Where versions are written."""
    return room("drafts") / "history.jsonl"


def add(draft: str, parent: str | None) -> str:
    """Write a new version down.

    Returns:
        Its key.
    """
    key = secrets.token_hex(5)
    _write({"version": key, "draft": draft, "parent": parent, "when": time.time()})
    return key


def rename(key: str, name: str) -> None:
    """Give a version a name, or take it away."""
    _write({"version": key, "name": name.strip()})


def _write(line: Mapping[str, object]) -> None:
    with writing_to(file()), file().open("a", encoding="utf-8") as target:
        target.write(json.dumps(line, ensure_ascii=False) + "\n")


def read() -> dict[str, Version]:
    """The latest versions by key, oldest first; lines that cannot be understood are passed over."""
    try:
        stamp = file().stat()
    except FileNotFoundError:
        return {}
    return _read(str(file()), stamp.st_mtime_ns, stamp.st_size)


@st.cache_resource(max_entries=8, show_spinner=False)
def _read(path: str, changed: int, size: int) -> dict[str, Version]:
    """The versions in a file as it is now; nobody writes to them."""
    with Path(path).open("rb") as source:
        source.seek(max(size - TAIL_BYTES, 0))
        lines = source.read().decode("utf-8", "replace").splitlines()
    found: dict[str, Version] = {}
    for line in lines:
        try:
            row = json.loads(line)
            key = row["version"]
            if "draft" in row:
                found[key] = Version(key, row["draft"], row["parent"], float(row["when"]))
            elif key in found:
                old = found[key]
                found[key] = Version(key, old.draft, old.parent, old.when, str(row["name"]))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def newest(versions: Mapping[str, Version], draft: str) -> Version | None:
    """The latest version that holds a draft."""
    return next((version for version in reversed(list(versions.values())) if version.draft == draft), None)


def children(versions: Mapping[str, Version], key: str) -> list[Version]:
    """What was made from a version, oldest first."""
    return [version for version in versions.values() if version.parent == key]


def family(versions: Mapping[str, Version], key: str) -> list[Version]:
    """All versions that have their first one in common with this one, oldest first."""
    root = key
    while (parent := versions[root].parent) in versions:
        root = str(parent)
    inside = {root}
    for version in versions.values():  # a parent always stands before its children
        if version.parent in inside:
            inside.add(version.key)
    return [version for version in versions.values() if version.key in inside]


def said(before: Spec | None, after: Spec) -> str:
    """What one step changed, in a few words."""
    if before is None:
        return "the beginning"
    rows = spec_differences([before.to_dict(), after.to_dict()])
    pins = [name for name, _ in rows if name.startswith("pins.")]
    words = [
        f"{WORDS.get(name, name.rpartition('.')[2].replace('_', ' '))} {_value(name, new)}" for name, (_, new) in rows if name not in pins
    ]
    return listed(words[:3] + ([f"{len(words) - 3} more"] if len(words) > 3 else []) + (["pins"] if pins else [])) or "nothing"


def _value(name: str, value: object) -> str:
    if value is None:
        return "as in the model" if name.startswith("targets.") else "none"
    return listed([str(item) for item in value]) if isinstance(value, Iterable) and not isinstance(value, str) else str(value)
