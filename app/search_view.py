"""A search while it works and after: the front, all candidates across their dimensions, the table, and why the best one is.

What is picked in one of the three is picked in all. ``results`` is a fragment, see ``live.watch``.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from app import cached, charts, state
from app.charts import Area
from app.forms import TEXT_NAMES
from app.ui import user_errors
from core.model.dims import Dims
from core.report import format as fmt
from core.report.picture import Picture
from core.report.search_figures import (
    COSTS,
    REPAIRED,
    RETRAINED,
    candidate_table,
    front_picture,
    marks_of,
    parallel_picture,
    shape_said,
    why,
)
from core.runs.folder import Run, find
from core.search import ledger
from core.search.ledger import Row

PICKED = "search_picked"


def results(run_id: str, seconds: float | None) -> None:
    """Draw what was measured so far."""
    run = find(run_id)
    book, found = ledger.read(run.path), run.results()
    rows: list[Row] = book["rows"]
    if not rows:
        st.caption(":material/bubble_chart: Candidates appear here, one by one, once the importance is known.")
        return
    with user_errors():
        source = cached.card(run.spec.model).dims
    picked = [number for number in state.recall(PICKED, []) if number <= len(rows)]
    _verdict(run, rows, source, book["pool"], finished=seconds is None)
    _actions(run, rows, source, picked)
    cost = st.segmented_control(
        "Against", list(COSTS), format_func=COSTS.__getitem__, default="parameters", required=True, key="w_search_cost"
    )
    st.caption("Every candidate measured. Drag a box, or tick rows of the table, to pick some; they are picked in all three.")
    for title, name, picture in (
        ("Quality against size", "front", front_picture(rows, found.get("pool", []), source, cost, picked)),
        ("All dimensions of every measured candidate", "parallel", parallel_picture(rows, source, picked)),
    ):
        st.markdown(f"**{title}**")
        charts.show(picture, name, partial(pick_in, picture))
    _table(rows, source, picked)


def pick_in(picture: Picture, area: Area) -> None:
    """Pick the candidates whose marks lie in a part of a picture."""
    pick([number for number, x, y in marks_of(picture) if area.x0 <= x <= area.x1 and area.y0 <= y <= area.y1])


def pick(numbers: Sequence[int]) -> None:
    """Remember which candidates were picked."""
    state.remember(PICKED, sorted(set(numbers)))


def _verdict(run: Run, rows: Sequence[Row], source: Dims, pool: int, *, finished: bool) -> None:
    """The best one and the reasons."""
    top = ledger.best(rows)
    assert top is not None
    st.subheader(f"{'Best' if finished else 'Best so far'}: candidate {top['number']}", anchor=False)
    st.markdown("  \n".join(why(rows, source, pool)))
    if heldout := top.get("heldout"):
        teacher = run.results().get("teacher", {}).get("heldout", {})
        st.caption(f"{'Repaired' if top.get('repaired') else 'As cut'}, on text that played no part in the choice:")
        st.table(_heldout(heldout, teacher), border="horizontal", hide_index=True, alt="The best candidate on held-out text")


def _heldout(heldout: Mapping[str, Any], teacher: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "Held-out text": TEXT_NAMES.get(name, name), "Perplexity": fmt.number(figures["perplexity"]),
            "Teacher": fmt.number(teacher.get(name, {}).get("perplexity")), "KL to the teacher": fmt.nats(figures["kl_nats"]),
            "Same next token": fmt.percent(figures["top1_agreement"]),
        }
        for name, figures in heldout.items()
    ]  # fmt: skip


def _actions(run: Run, rows: Sequence[Row], source: Dims, picked: Sequence[int]) -> None:
    """From a candidate to a draft."""
    top = ledger.best(rows)
    offered = [row for row in rows if row["number"] in picked] if len(picked) == 1 else [top] if top else []
    with st.container(horizontal=True, vertical_alignment="center"):
        for row in offered:
            if st.button(
                f"Take candidate {row['number']} as the draft", key="take_candidate", type="primary", icon=":material/arrow_forward:",
                help=shape_said(row, source),
            ):  # fmt: skip
                spec = run.spec
                state.update_draft(
                    model=spec.model,
                    data=spec.data,
                    score=spec.score,
                    rank=ledger.rank_of(row, spec.rank),
                    pins=spec.pins,
                    targets=ledger.targets_of(row),
                )
                state.go("targets")
        if picked:
            st.caption(f"Picked: {fmt.listed([str(number) for number in picked])}")
            st.button("Pick none", key="pick_none", type="tertiary", icon=":material/close:", on_click=pick, args=([],))


def _table(rows: Sequence[Row], source: Dims, picked: Sequence[int]) -> None:
    """All measured candidates; ticking rows picks them."""
    frame = candidate_table(rows, source)
    key = f"search_table_{len(rows)}_{'-'.join(map(str, picked))}"

    def ticked() -> None:
        pick([int(frame["Candidate"].iloc[place]) for place in st.session_state[key]["selection"]["rows"]])

    st.dataframe(
        frame, hide_index=True, key=key, on_select=ticked, selection_mode="multi-row", height=min(420, 36 * (len(frame) + 1) + 2),
        selection_default={"selection": {"rows": [i for i, number in enumerate(frame["Candidate"]) if number in picked]}},
        column_config={
            "KL, nats": st.column_config.NumberColumn(format="%.3f"), REPAIRED: st.column_config.NumberColumn(format="%.3f"),
            RETRAINED: st.column_config.NumberColumn(format="%.3f"), "Estimated KL, nats": st.column_config.NumberColumn(format="≈ %.3f"),
            "Perplexity": st.column_config.NumberColumn(format="%.1f"), "Same next token": st.column_config.NumberColumn(format="percent"),
            "Parameters": st.column_config.NumberColumn(format="compact"), "FLOPs a token": st.column_config.NumberColumn(format="compact"),
        },
        alt="All measured candidates, the best first",
    )  # fmt: skip
