"""Which draft, which run, which page: the only file that names a key of the session or of the URL.

The draft (model, text, ranking, targets) lies on disk under the hash of its content, and its name stands in the URL, so a
reload, a second tab and a copied link all show the same thing. The session keeps names only, never arrays.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import streamlit as st

from core.files import read_json, write_json
from core.specs import EMBEDDED_MODEL, DataSpec, RankSpec, RunSpec, ScoreSpec, Spec, Targets
from core.workspace import ROOT, room

DRAFT, RUN = "draft", "run"
"""Parameters of the URL; the session remembers them too, because the navigation bar drops them."""
UNDO, REDO, LOST = "s_undo", "s_redo", "s_lost_draft"
SESSION = "s_"
"""Prefix of what the session holds for this file alone."""
WIDGET = "w_"
"""Prefix of every bound widget's key."""
MEMORY = "m_"
"""Prefix of what ``remember`` keeps."""
MAX_UNDO = 100


@dataclass(frozen=True, kw_only=True)
class Draft(Spec):
    """What the user is working at: everything that decides a run, but for how it is retrained."""

    model: str = EMBEDDED_MODEL
    data: DataSpec = field(default_factory=DataSpec)
    score: ScoreSpec = field(default_factory=ScoreSpec)
    rank: RankSpec = field(default_factory=RankSpec)
    targets: Targets = field(default_factory=Targets)

    def run_spec(self, **settings: Any) -> RunSpec:
        """The run that carries this draft out."""
        return RunSpec(model=self.model, data=self.data, score=self.score, rank=self.rank, targets=self.targets, **settings)


class Binding(TypedDict):
    """The two arguments that tie a widget to the draft."""

    key: str
    on_change: Callable[[], None]


def draft() -> Draft:
    """The current draft: the one that the URL names, else the session's, else the default."""
    name = _named(DRAFT)
    if name is None:
        return Draft()
    found = _stored(name)
    if found is None:
        st.session_state[LOST] = name
        _name(DRAFT, None)
    return found or Draft()


def lost_draft() -> str | None:
    """The name of a draft that a link asked for and this workspace does not hold, told once."""
    name: str | None = st.session_state.pop(LOST, None)
    return name


def update_draft(**changes: Any) -> None:
    """Replace fields of the draft, store it, and remember the step for ``undo``; a new model or text begins anew."""
    old = draft()
    new = replace(old, **changes)
    if new == old:
        return
    same_subject = (new.model, new.data, new.score) == (old.model, old.data, old.score)
    st.session_state[UNDO] = [*st.session_state.get(UNDO, []), _store(old)][-MAX_UNDO:] if same_subject else []
    st.session_state[REDO] = []
    _name(DRAFT, _store(new))


def update_targets(**changes: int | None) -> None:
    """Replace some of the targets and keep the others."""
    update_draft(targets=replace(draft().targets, **changes))


def undo() -> None:
    """Go back to the draft before the last change."""
    _step(UNDO, REDO)


def redo() -> None:
    """Take the last undone change again."""
    _step(REDO, UNDO)


def can_undo() -> bool:
    """Whether there is a change to take back."""
    return bool(st.session_state.get(UNDO))


def can_redo() -> bool:
    """Whether a change was taken back."""
    return bool(st.session_state.get(REDO))


def run_id() -> str | None:
    """The run that the pages show, or None."""
    return _named(RUN)


def set_run_id(name: str | None) -> None:
    """Show another run, or none."""
    _name(RUN, name)


def go(page_name: str) -> None:
    """Open a page by its short name (``importance`` for pages/2_importance.py), keeping draft and run in the URL."""
    named = {key: name for key in (DRAFT, RUN) if (name := _named(key))}
    st.switch_page(page_path(page_name), query_params=named)


def page_path(page_name: str) -> Path:
    """The script of a page."""
    return next((ROOT / "pages").glob(f"?_{page_name}.py"))


def bind(name: str, value: Any, change: Callable[[Any], object]) -> Binding:
    """Tie a widget to a value that lives elsewhere: it shows ``value``, and what the user sets goes to ``change``.

    Use: ``st.slider("Layers", 1, 30, **bind("layers", 24, set_layers))``.
    """
    key = WIDGET + name
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value

    def changed() -> None:
        change(st.session_state[key])

    return {"key": key, "on_change": changed}


def remember(name: str, value: Any) -> None:
    """Keep a plain value (a chart's selection, what was typed) for this tab."""
    st.session_state[MEMORY + name] = value


def recall(name: str, default: Any = None) -> Any:
    """What was remembered under this name, or ``default`` if nothing, or None, was."""
    value = st.session_state.get(MEMORY + name)
    return default if value is None else value


def chart_points(key: str) -> list[tuple[int, int]]:
    """The (x, y) cells that were selected in a chart, without repetition, in order."""
    chart = st.session_state.get(key) or {"selection": {"points": []}}
    return sorted({(round(point["x"]), round(point["y"])) for point in chart["selection"]["points"]})


def chart_numbers(key: str) -> list[int]:
    """The numbers that the selected marks of a chart carry, without repetition, in order."""
    chart = st.session_state.get(key) or {"selection": {"points": []}}
    carried = [point.get("customdata") for point in chart["selection"]["points"]]
    plain = [next(iter(one.values())) if isinstance(one, dict) else one[0] if isinstance(one, list) else one for one in carried if one]
    return sorted({int(number) for number in plain})


def _named(key: str) -> str | None:
    """The name under ``key``: the URL's if it has one, else the session's, which is then put back into the URL."""
    name = st.query_params.get(key) or st.session_state.get(SESSION + key)
    _name(key, name)
    return name


def _name(key: str, name: str | None) -> None:
    st.session_state[SESSION + key] = name
    if name is None:
        st.query_params.pop(key, None)
    elif st.query_params.get(key) != name:
        st.query_params[key] = name


def _step(source: str, target: str) -> None:
    names = list(st.session_state.get(source, []))
    if not names:
        return
    st.session_state[target] = [*st.session_state.get(target, []), _store(draft())]
    _name(DRAFT, names.pop())
    st.session_state[source] = names


def _store(value: Draft) -> str:
    path = room("drafts") / f"{value.identity()}.json"
    if not path.exists():
        write_json(path, value.to_dict())
    return path.stem


def _stored(name: str) -> Draft | None:
    """The draft of that name, or None if there is no such file or it is not a draft (a link may hold anything)."""
    try:
        data = read_json(room("drafts") / f"{Path(name).name}.json")
        sound = isinstance(data, dict) and isinstance(data.get("model", ""), str)
        return Draft.from_dict(data).check() if sound else None
    except (OSError, ValueError, TypeError):
        return None
