"""A family on its run's page: how far each member is, what all of them are worth against their size, and which was made from which."""

from typing import Any

import pandas as pd
import streamlit as st

from app import charts, live
from app.run_list import short_name
from core.report import format as fmt
from core.report.lineage import Descendant, lineage_picture
from core.report.run_figures import quality_picture
from core.report.tables import domains_of, loss_of, members_of, recovered_of
from core.runs.folder import Run, member_id
from core.specs import RunSpec

WAITING = "to come"


def members(run: Run) -> None:
    """Everything about the members, as things stand now."""
    made, results = _made(run), run.results()
    st.subheader("Members", anchor=False)
    st.caption("Each member is a run of its own, with its own curves and words: choose it above.")
    st.table(
        pd.DataFrame(rows(run.spec, made)), border="horizontal", hide_index=True, alt="Members of the family, largest first, and how far each is"
    )  # fmt: skip
    if domains := domains_of(results) if results.get("members") else []:
        st.markdown(f"**Quality against size**, on {domains[0]}")
        charts.show(quality_picture(members_of(results), domains[0], palette=live.palette()), "family_quality")
    st.markdown("**Which was made from which**")
    charts.show(lineage_picture(tree(run.spec, made)), "family_tree")


def _made(run: Run) -> list[tuple[str, dict[str, Any]]]:
    """State and results of every member's run, from the first."""
    runs = [Run(run.path.parent / member_id(run.id, number)) for number in range(1, len(run.spec.stages) + 1)]
    return [(one.status().state, one.results()) if one.path.exists() else (WAITING, {}) for one in runs]


def rows(spec: RunSpec, made: list[tuple[str, dict[str, Any]]]) -> list[dict[str, str]]:
    """A row a member: what was asked for, how far it is, and what was measured on it."""
    found = []
    for number, (stage, (state, results)) in enumerate(zip(spec.stages, made, strict=True), start=1):
        small, domains = results.get("distilled") or results.get("pruned") or {}, domains_of(results)
        role = "distilled" if results.get("distilled") else "pruned"
        found.append({
            "Member": str(number), "State": state, "Sizes": stage.replace(",", ", "), "Parameters": fmt.count(small.get("parameters")),
            **{f"Loss on {domain}": fmt.nats(loss_of(results, role, domain)) for domain in domains},
            "Gap recovered": fmt.percent(recovered_of(results, domains[0]) if domains else None),
        })  # fmt: skip
    columns = {name: fmt.MISSING for row in found for name in row}
    return [{name: row.get(name, missing) for name, missing in columns.items()} for row in found]


def tree(spec: RunSpec, made: list[tuple[str, dict[str, Any]]]) -> list[Descendant]:
    """The uncut model and every member, each made from the one before."""
    teacher: dict[str, Any] = next((results["teacher"] for _, results in made if results.get("teacher")), {})
    models = [Descendant(key="0", parent=None, name=short_name(spec.model), parameters=teacher.get("parameters"))]
    for number, (state, results) in enumerate(made, start=1):
        small, domains = results.get("distilled") or results.get("pruned") or {}, domains_of(results)
        models.append(Descendant(
            key=str(number), parent=str(number - 1), name=f"Member {number}", parameters=small.get("parameters"),
            recovered=recovered_of(results, domains[0]) if domains else None, made=state == "done",
        ))  # fmt: skip
    return models
