"""What can be done with the draft from every page: undo, redo, its versions, a link to it; and the list of shortcuts."""

import time
from collections.abc import Callable

import streamlit as st

from app import history, state

SHOWN = 12
"""Versions in the list, the newest; those with a name always stay."""

SHORTCUTS = {
    "Alt+1 … Alt+5": "Go to the pages in the order of the work", "Ctrl+Z": "Undo the last change of the draft",
    "Ctrl+Shift+Z": "Redo it", "Ctrl+Enter": "Start what the page offers: scoring, a run", "Alt+K": "Pin what is selected to keep",
    "Alt+X": "Pin what is selected to prune", "Alt+U": "Clear the pins of what is selected", "Alt+H": "This list",
}  # fmt: skip


def show() -> None:
    """Draw the row of buttons."""
    with st.container(gap=None):
        # Never disabled: a press that disabled its own button would lose the keyboard's place.
        for name, act, keys in (("undo", state.undo, "Ctrl+Z"), ("redo", state.redo, "Ctrl+Shift+Z")):
            st.button(name.title(), key=name, icon=f":material/{name}:", on_click=_step, args=(name, act), shortcut=keys, type="tertiary")
        row = st.container(horizontal=True, gap="xsmall")
    with row:
        versions = st.popover("Versions", icon=":material/history:", type="tertiary", key="versions", on_change="rerun")
        link = st.popover("Link", icon=":material/link:", type="tertiary", key="link", on_change="rerun")
        if st.button("Keys", key="help_keys", icon=":material/keyboard:", shortcut="Alt+H", type="tertiary"):
            _keys()
    if versions.open:
        with versions:
            _versions()
    if link.open:
        with link:
            _link()


def _step(name: str, act: Callable[[], bool]) -> None:
    """Undo or redo; where there is nothing to, say so."""
    if not act():
        st.toast(f"There is nothing to {name}.", icon=f":material/{name}:")


def _versions() -> None:
    """The versions of the draft, newest first: go back to any, and from there on another branch grows."""
    present = state.version()
    if present is None:
        st.markdown("Every change of the draft is kept here. You can go back to any, and go on from there.")
        return
    known = history.family(history.read(), present.key)
    numbers = {version.key: number for number, version in enumerate(known, start=1)}
    st.text_input(
        "Name of this version", placeholder="such as: gentle cut",
        **state.bind("version_name", present.name, lambda name: history.rename(present.key, name)),
    )  # fmt: skip
    shown = [version for version in known if version.name or numbers[version.key] > len(known) - SHOWN or version == present]
    for version in reversed(shown):
        _version(version, numbers, present)
    if len(shown) < len(known):
        st.caption(f"{len(known) - len(shown)} older versions are not shown.")


def _version(version: history.Version, numbers: dict[str, int], present: history.Version) -> None:
    """One version: what it changed, from which one it was made, and when."""
    number, here = numbers[version.key], version == present
    parent = numbers.get(version.parent or "")
    branch = f", from {parent}" if parent and parent != number - 1 else ""
    when = time.strftime("%d %b %H:%M", time.localtime(version.when))
    title = f"**{version.name}**: " if version.name else ""
    st.button(
        f"{number}. {title}{_changed(version)}{branch} :gray[{when}]", key=f"version_{version.key}", type="tertiary", disabled=here,
        icon=f":material/{'my_location' if here else 'radio_button_unchecked'}:", on_click=state.go_to, args=(version,),
    )  # fmt: skip


def _changed(version: history.Version) -> str:
    parent = history.read().get(version.parent or "")
    after, before = state.stored_draft(version.draft), state.stored_draft(parent.draft) if parent else None
    return history.said(before, after) if after else "no longer in this workspace"


def _link() -> None:
    """The address of what is shown."""
    st.markdown("This address shows the same page, draft and run to whoever uses this dashboard.")
    st.code(state.link() or "The address is known once a browser shows the page.", language=None, wrap_lines=True)


@st.dialog("Keys", icon=":material/keyboard:")
def _keys() -> None:
    """List the shortcuts."""
    st.table(SHORTCUTS, border="horizontal", alt="Keyboard shortcuts")
    st.markdown(
        "Every gesture on a chart has a control beside it: what is selected stands in a text field, and the arrow keys go from head to head. "
        "Every chart can be shown as a table."
    )
