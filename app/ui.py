"""Small parts that every page is built from, so that a title, an error and an empty page look the same everywhere."""

import contextlib
from collections.abc import Iterator

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import state
from core.errors import UserError
from core.report.command import command_of
from core.specs import RunSpec


def page_header(title: str, help: str) -> None:
    """Title of a page, and below it one line that says what the page is for."""
    st.title(title, anchor=False)
    st.caption(help)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Show a ``UserError`` as its sentence and end the page there. Anything else stays a traceback: it is ours to mend."""
    try:
        yield
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        st.stop()


def tell(text: str, icon: str) -> None:
    """Say something in passing when the page is next drawn whole; a toast of a dialog would go with the dialog."""
    state.remember("told", [*state.recall("told", []), (text, icon)])


def told() -> None:
    """Show what was said by ``tell``, once."""
    for text, icon in state.recall("told", []):
        st.toast(text, icon=f":material/{icon}:")
    state.remember("told", None)


def empty_state(icon: str, title: str, text: str, action_label: str | None = None, key: str | None = None) -> bool:
    """Say what will stand here once there is something, and offer the one step that gets it.

    Args:
        icon: name of a Material symbol, such as ``grid_on``.
        title: what is missing, in a few words.
        text: what will be seen here and what it takes.
        action_label: label of the button; None leaves it out.
        key: key of the button.

    Returns:
        Whether the button was pressed.
    """
    with st.container(border=True, horizontal_alignment="center", gap="small"):
        st.space("small")
        st.subheader(f":gray[:material/{icon}:] {title}", anchor=False, text_alignment="center")
        st.markdown(text, width=560, text_alignment="center")
        pressed = bool(action_label) and st.button(str(action_label), key=key, type="primary")
        st.space("small")
    return pressed


def beside(width: int) -> tuple[DeltaGenerator, DeltaGenerator]:
    """A wide part and, on its right, one of so many pixels that stays as wide when the window is narrow."""
    row = st.container(horizontal=True, gap="medium")
    return row.container(width="stretch"), row.container(width=width)


def folded(label: str, icon: str, key: str) -> DeltaGenerator | None:
    """A fold that is made only once it is opened; None while it is closed.

    Text in fixed-width letters costs the browser a third of a second for its highlighter alone, whether it is seen or not.
    """
    fold = st.expander(label, icon=f":material/{icon}:", key=state.FOLD + key, on_change="rerun")
    return fold if fold.open else None


def command_box(command: RunSpec | str) -> None:
    """The command that does the same as this page, ready to copy: in words, or the one that starts a run."""
    if fold := folded("The same from the command line", "terminal", "command"):
        fold.code(command if isinstance(command, str) else command_of(command), language="bash", wrap_lines=True)


def as_table(frame: pd.DataFrame, name: str, alt: str) -> None:
    """A switch that shows a chart's numbers as a table, for those who read or copy rather than look."""
    if st.toggle("Show as table", key=f"table_{name}"):
        st.dataframe(frame, hide_index=True, alt=alt, height=min(400, 36 * (len(frame) + 1) + 2))


def plain(text: str) -> str:
    """A user's words as text: nothing in them is read as Markdown."""
    return "".join("\\" + char if char in "\\`*_{}[]()#+-.!|~>$:<" else char for char in text).replace("\n", " ")
