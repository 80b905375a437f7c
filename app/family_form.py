"""The form for a family: how many members, how large each is, and who teaches them."""

from typing import Any

import pandas as pd
import streamlit as st

from app import cached
from app.state import Draft
from core.model.card import Card
from core.plan.stages import between, members_of, stage_problems_of, targets_of
from core.report import format as fmt
from core.specs import LINEAGES, NO_PINS, Targets, stage_problems

MOST = 6
LINEAGE = {"previous": "The member before it", "first": "The uncut model"}


def settings(draft: Draft, card: Card) -> dict[str, Any]:
    """Draw the form; return the fields of the run that it sets: stages and lineage, and no targets or pins of a single cut."""
    left, right = st.columns(2)
    members = left.number_input("Members", 1, MOST, 2, key="w_members", persist_state="session",
                                help="Models between the uncut one and the draft, which is the last of them.")  # fmt: skip
    with right:
        lineage = st.segmented_control("Each is taught by", LINEAGES, format_func=LINEAGE.__getitem__, default="previous", required=True, key="w_lineage",
                                       persist_state="session", help="The Minitron paper found the uncut model the better teacher.")  # fmt: skip
    stages = tuple(_stage(number, stage, draft) for number, stage in enumerate(between(card.config, draft.targets, members), start=1))
    if not complaints(stages, card):
        _table(stages, card)
    if draft.pins != NO_PINS:
        st.caption(":material/push_pin: The draft's pins are left out: each member is scored anew, and its units have other numbers.")
    return {"stages": stages, "lineage": lineage, "targets": Targets(), "pins": NO_PINS}


def complaints(stages: tuple[str, ...], card: Card) -> list[str]:
    """Everything that keeps the members from being made, a sentence each."""
    unread = [problem for stage in stages for problem in stage_problems(stage)]
    return unread or stage_problems_of(card.config, stages)


def _stage(number: int, stage: str, draft: Draft) -> str:
    """One member's sizes in writing; another draft or number of members proposes them anew."""
    return st.text_input(f"Member {number}", stage, key=f"w_stage_{number}_{stage}_{draft.identity()}",
                         help="What changes from the member before it: name=size, with commas between.")  # fmt: skip


def _table(stages: tuple[str, ...], card: Card) -> None:
    """A row a member."""
    rows = []
    for number, dims in enumerate(members_of(card.config, stages), start=1):
        parameters = cached.cost(card.config, targets_of(card.config, stages[:number])).parameters
        rows.append({
            "Member": number, "Layers": dims.layers, "Hidden size": dims.hidden, "Heads": f"{dims.heads} in {dims.kv_heads} groups", "FFN": dims.ffn,
            "Parameters": fmt.count(parameters), "Change": fmt.delta(parameters / card.cost.parameters - 1),
        })  # fmt: skip
    st.table(pd.DataFrame(rows), border="horizontal", hide_index=True, alt="Members of the family, largest first")
