"""Imports point one way, and the dashboard's process stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GROUND = ("errors", "files", "workspace", "progress", "specs", "options")
ROOMS = ("model", "data", "score", "plan", "prune", "distill", "evaluate", "report", "runs")
TOP = ("terminal", "cli", "__main__")
ORDER = {name: i for i, name in enumerate((*GROUND, *ROOMS, *TOP))}
HEAVY = {"torch", "transformers", "datasets"}


def imports(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "core").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_core_imports_only_what_stands_left_of_it(path: Path) -> None:
    own = path.relative_to(ROOT / "core").parts[0].removesuffix(".py")
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] not in ("app", "pages", "streamlit"), name
        if parts[0] == "core" and len(parts) > 1 and parts[1] in ORDER and own in ORDER:
            assert ORDER[parts[1]] <= ORDER[own], f"{own} may not import {parts[1]}"


@pytest.mark.parametrize("folder", ["app", "pages"])
def test_the_dashboard_names_no_heavy_library(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        assert not {name.split(".")[0] for name in imports(path)} & HEAVY, path


def test_the_dashboard_and_the_light_half_of_core_load_no_torch() -> None:
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (*(ROOT / "app").rglob("*.py"), *(ROOT / "core" / "report").glob("*.py"), *(ROOT / "core" / "plan").glob("*.py"))
        if path.stem not in ("main", "__init__")
    )
    light = [
        *modules,
        "core.cli",
        "core.score.store",
        "core.evaluate.store",
        "core.data.blocks",
        "core.model.card",
        "core.runs.control",
        "core.runs.worker",
        "core.distill.matching",
        "core.distill.cache",
    ]
    code = f"import sys, importlib\nfor name in {light!r}: importlib.import_module(name)\nsys.exit(', '.join({HEAVY!r} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "pages").glob("*.py")), ids=lambda path: path.name)
def test_a_page_is_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 150
