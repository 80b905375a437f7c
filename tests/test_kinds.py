"""A kind of run is known everywhere that names kinds: a new one cannot be forgotten in a table."""

import pytest

from app import run_list, run_view, sidebar
from core import cli, options
from core.report import tables
from core.runs import steps
from core.specs import RUN_KINDS

TABLES = {
    "steps": steps.STEPS, "options": options.PARTS, "help": cli.WHAT, "titles": tables.VERBS, "phases": run_view.PHASES,
    "strip": sidebar.KINDS, "list": run_list.KINDS,
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_every_table_names_every_kind_of_run(name: str) -> None:
    assert set(TABLES[name]) == set(RUN_KINDS)
