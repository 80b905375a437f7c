"""Entry point of the dashboard: page configuration, navigation, and the strip that every page shares.

Start it with ``streamlit run app/main.py`` or ``python -m streamlit run app/main.py``. A page is one file of pages/: its number
orders it, its name is its address, and the first line of its docstring holds title, icon and a sentence:
``Targets | :material/tune: | Choose how small the model shall be.``
"""

import ast
import functools
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402

from app import sidebar, ui  # noqa: E402


@functools.lru_cache
def said_of(path: Path, changed_ns: int) -> list[str]:
    """Title, icon and sentence of a page script; read once for every version of it, as every run of a page needs them all."""
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.stem
    return [part.strip() for part in said.splitlines()[0].split("|")]


def page_of(path: Path, default: bool = False) -> st.Page:
    """The navigation entry of a page script."""
    title, icon, *rest = said_of(path, path.stat().st_mtime_ns)
    number, _, name = path.stem.partition("_")
    return st.Page(path, title=title, icon=icon, url_path=name, default=default or number == "1", help=" ".join(rest) or None)


st.set_page_config(page_title="Coppice", page_icon=str(ROOT / "app" / "coppice.svg"), layout="wide", initial_sidebar_state=280)
st.html(ROOT / "app" / "contrast.css")
if st.context.theme.type == "dark":
    st.html(ROOT / "app" / "dark.css")
paths = {path.stem.partition("_")[2]: path for path in sorted((ROOT / "pages").glob("[0-9]_*.py"))}
story = paths.pop("story")
if st.query_params.get("demo") == "1":  # read-only: no other page, and no strip, can be reached
    st.navigation([page_of(story, default=True)], position="hidden").run()
else:
    page = st.navigation([page_of(path) for path in paths.values()], position="top")
    sidebar.show(page.url_path or "model")
    ui.told()
    page.run()
