"""Which draft, which run, which page: the only file that names a key of the session or of the URL.

The draft (model, text, ranking, targets, pins) lies on disk under the hash of its content, and its name stands in the URL, so a
reload, a second tab and a copied link all show the same thing. The session keeps names only, never arrays.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict
from urllib.parse import urlencode

import streamlit as st
from streamlit.errors import StreamlitAPIException

from app import history
from core.errors import UserError
from core.files import read_json, write_json
from core.specs import EMBEDDED_MODEL, DataSpec, Goal, Pins, RankSpec, RunSpec, ScoreSpec, Spec, Targets
from core.workspace import ROOT, room

DRAFT, RUN = "draft", "run"
"""Parameters of the URL; the session remembers them too, because the navigation bar drops them."""
VERSION, UNDONE, LOST = "s_version", "s_undone", "s_lost_draft"
SESSION = "s_"
"""Prefix of what the session holds for this file alone."""
WIDGET = "w_"
"""Prefix of every bound widget's key."""
MEMORY = "m_"
"""Prefix of what ``remember`` keeps."""
SHOWN = "s_shown"
"""Key of a bound widget -> what it was last told to show."""
HELD = "h_"
"""Prefix of what stood in a bound widget before it was set, and when that was."""
MOST_HELD = 16
ECHO_SECONDS = 0.5
"""A person who wants back what stood in a widget before it was set takes longer."""
STRIP, KNOBS, OUTCOME, GOAL, STATIONS, ADVICE, COMMAND, AHEAD = (
    "strip",
    "knobs",
    "outcome",
    "goal",
    "stations",
    "advice",
    "command",
    "ahead_part",
)
"""Parts that can be drawn anew alone."""
AFTER_TARGETS = (STRIP, OUTCOME, GOAL, STATIONS)
"""The parts that say what the targets come to, in the order in which they shall follow a slider."""
MOST_SHOWN = 40
"""Characters that are repeated of a name in a link, which may be anything."""
FOLD = "fold_"
"""Prefix of a fold's key."""


@dataclass(frozen=True, kw_only=True)
class Draft(Spec):
    """What the user is working at: everything that decides a run, but for how it is retrained."""

    model: str = EMBEDDED_MODEL
    data: DataSpec = field(default_factory=DataSpec)
    score: ScoreSpec = field(default_factory=ScoreSpec)
    rank: RankSpec = field(default_factory=RankSpec)
    targets: Targets = field(default_factory=Targets)
    pins: Pins = field(default_factory=Pins)
    goal: Goal = field(default_factory=Goal)
    """A limit that the targets were found for; the targets alone decide a run."""

    def run_spec(self, **settings: Any) -> RunSpec:
        """The run that carries this draft out."""
        return RunSpec(model=self.model, data=self.data, score=self.score, rank=self.rank, targets=self.targets, pins=self.pins, **settings)


class Binding(TypedDict):
    """The arguments that tie a widget to the draft."""

    key: str
    on_change: Callable[[], None]
    persist_state: Literal["page"]


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
    """Why the draft that a link asked for is not shown, told once; None if it is."""
    name: str | None = st.session_state.pop(LOST, None)
    return None if name is None else f"This link names the draft {_short(name)}, which {_trouble(name)} The default is shown."


def _trouble(name: str) -> str:
    """What is wrong with a draft that cannot be shown; the end of a sentence."""
    try:
        data = read_json(_file(name))
        Draft.from_dict(data if isinstance(data, dict) else {"draft": data}).check()
    except UserError as error:
        return f"this version cannot use: {' '.join(str(error).split())}"
    except OSError:
        return "is not in this workspace."
    except (ValueError, TypeError):
        pass
    return "cannot be read."


def _short(name: str) -> str:
    return name if len(name) <= MOST_SHOWN else name[:MOST_SHOWN] + "…"


def update_draft(**changes: Any) -> None:
    """Replace fields of the draft, store it, and write the step into its history; a new model or text begins anew."""
    old = draft()
    new = replace(old, **changes)
    if new == old:
        return
    same_subject = (new.model, new.data, new.score) == (old.model, old.data, old.score)
    parent = _begun(old) if same_subject else None
    st.session_state[UNDONE] = []
    _name(DRAFT, _store(new))
    st.session_state[VERSION] = history.add(new.identity(), parent)


def _begun(old: Draft) -> str:
    """The version of a draft that is about to change: its first, if it has none yet."""
    present = version()
    return present.key if present else history.add(_store(old), None)


def replace_draft(**changes: Any) -> None:
    """``update_draft`` for a widget in a part of a page: all of the page follows, not that part alone."""
    update_draft(**changes)
    st.rerun()


def redraw(*more: str) -> None:
    """End the callback of a widget that moved the targets: only the parts that show what they come to, and ``more``, are drawn anew.

    A whole page takes twice as long. Where any of the parts is not on the page, all of it is drawn.
    """
    opened = [part for part in (ADVICE, COMMAND) if st.session_state.get(FOLD + part)]  # a closed fold shows nothing of the draft
    try:
        st.rerun([*AFTER_TARGETS, *opened, *more])
    except StreamlitAPIException:
        st.rerun()


def version() -> history.Version | None:
    """The version of the draft that is shown: the one that this tab stands at, else the latest that holds the draft.

    None if there is none, or nobody chose a draft yet: the default's history is that of all who began there.
    """
    versions, name = history.read(), draft().identity()
    if _named(DRAFT) is None:
        return None
    found = versions.get(st.session_state.get(VERSION, ""))
    return found if found is not None and found.draft == name else history.newest(versions, name)


def undo() -> bool:
    """Go back to the version from which the present one was made; whether there is one."""
    present, versions = version(), history.read()
    if present is None or present.parent not in versions:
        return False
    undone = [*st.session_state.get(UNDONE, []), present.key]
    go_to(versions[present.parent])
    st.session_state[UNDONE] = undone
    return True


def redo() -> bool:
    """Go on to the version that was left last by ``undo``, or else to the latest that was made from the present one; whether there is one."""
    following = _following()
    if following is None:
        return False
    undone = [key for key in st.session_state.get(UNDONE, []) if key != following.key]
    go_to(following)
    st.session_state[UNDONE] = undone
    return True


def _following() -> history.Version | None:
    present, versions = version(), history.read()
    if present is None:
        return None
    made = {one.key: one for one in history.children(versions, present.key)}
    undone = st.session_state.get(UNDONE, [])
    return made.get(undone[-1]) if undone and undone[-1] in made else next(reversed(made.values()), None)


def go_to(target: history.Version) -> None:
    """Show another version of the draft; what is changed from there on is a branch."""
    st.session_state[VERSION], st.session_state[UNDONE] = target.key, []
    _name(DRAFT, target.draft)


def stored_draft(name: str) -> Draft | None:
    """A draft by its name; None if this workspace does not hold it."""
    return _stored(name)


def link() -> str | None:
    """The address that shows this page, draft and run to somebody else who uses this workspace; None outside a browser."""
    wanted = {key: value for key, value in st.query_params.to_dict().items() if value}
    return f"{st.context.url}?{urlencode(wanted)}" if st.context.url else None


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
    # Only where it differs: the browser takes what is set as an order, also in place of what was typed since the run began. What a
    # browser does not hold yet, because it missed an interrupted run, it is told by Streamlit wherever the state persists.
    if key not in st.session_state or st.session_state[key] != value:
        _order(key, value)
    else:
        st.session_state.pop(HELD + key, None)
    st.session_state.setdefault(SHOWN, {})[key] = value

    def changed() -> None:
        if not _is_echo(key):
            change(st.session_state[key])

    return {"key": key, "on_change": changed, "persist_state": "page"}


def _order(key: str, value: Any) -> None:
    """Set a widget, and note what the browser holds until it hears of it."""
    if key in st.session_state:
        now = time.monotonic()
        st.session_state[HELD + key] = [*st.session_state.get(HELD + key, []), (now, st.session_state[key]), (now, value)][-MOST_HELD:]
    st.session_state[key] = value


def _is_echo(key: str) -> bool:
    """Whether a widget's value is only what the browser still held when it sent something else, before it heard of an order.

    It is if it was there before the last order, and another widget moved too, or that order was given just now.
    """
    value, now = st.session_state[key], time.monotonic()
    held = [when for when, old in st.session_state.get(HELD + key, []) if old == value]
    shown = st.session_state.get(SHOWN, {})
    others = any(other != key and other in st.session_state and st.session_state[other] != shown[other] for other in shown)
    return bool(held) and (others or now - held[-1] < ECHO_SECONDS)


def remember(name: str, value: Any) -> None:
    """Keep a plain value (a chart's selection, what was typed) for this tab."""
    st.session_state[MEMORY + name] = value


def recall(name: str, default: Any = None) -> Any:
    """What was remembered under this name, or ``default`` if nothing, or None, was."""
    value = st.session_state.get(MEMORY + name)
    return default if value is None else value


def chart_points(key: str) -> list[tuple[float, float]]:
    """The (x, y) places that were selected in a chart, without repetition, in order."""
    chart = st.session_state.get(key) or {"selection": {"points": []}}
    return sorted({(point["x"], point["y"]) for point in chart["selection"]["points"]})


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


def _store(value: Draft) -> str:
    path = room("drafts") / f"{value.identity()}.json"
    if not path.exists():
        write_json(path, value.to_dict())
    return path.stem


def _file(name: str) -> Path:
    """Where a draft of that name lies, if there is one."""
    return room("drafts") / f"{Path(name).name}.json"


def _stored(name: str) -> Draft | None:
    """The draft of that name, or None if there is no such file or it is not a draft (a link may hold anything)."""
    path = _file(name)
    try:
        return _read(str(path), path.stat().st_mtime_ns)
    except (OSError, ValueError, TypeError):
        return None


@st.cache_resource(max_entries=256, show_spinner=False)
def _read(path: str, changed: int) -> Draft | None:
    """The draft in a file as it is now; every run of a page asks for it many times."""
    data = read_json(Path(path))
    return Draft.from_dict(data).check() if isinstance(data, dict) and isinstance(data.get("model", ""), str) else None
