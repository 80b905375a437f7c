"""What a search shall look for and may spend, and what is known of it before it starts."""

from dataclasses import replace
from typing import Any

import streamlit as st

from app import cached, repair_form
from app.state import Draft
from core.model.card import Card
from core.report import format as fmt
from core.specs import RunSpec, SearchSpec, Targets

MORE: dict[str, tuple[str, str, int]] = {
    "rankings": (
        "Other rankings",
        "Of the candidates to measure, how many try other criteria on the best sizes, at most half. 0 keeps to the draft's ranking.",
        1,
    ),
    "finalists": ("Finalists", "The best candidates, which are repaired, compared again, and measured on the held-out text.", 1),
    "blocks": ("Blocks to compare on", "The last of the training text; the held-out text stays unseen until the end.", 1),
    "retrain_steps": (
        "Retraining steps",
        "Steps for which finalists learn from the teacher before the worse half goes; twice as many each round. 0 leaves it out. Slow on a CPU.",
        20,
    ),
    "seed": ("Seed", "The same seed searches the same way.", 1),
    "workers": ("Workers", "Processes that measure, repair and retrain side by side; more than one needs Ray (docs/scale.md).", 1),
}


def settings(draft: Draft, card: Card) -> RunSpec:
    """Draw the form; return the run that it describes."""
    form, about = st.columns([3, 2], gap="large")
    with form:
        percent = st.slider(
            "Budget: parameters that may stay, %", 20, 95, 80, 5, key="w_search_keep", persist_state="session",
            help="Candidates have at most this share of the model's parameters, and at least 95 % of it.",
        )  # fmt: skip
        values: dict[str, Any] = {"keep": percent / 100}
        values["evaluations"] = st.number_input(
            "Candidates to measure", value=24, min_value=1, step=4, key="w_search_evaluations", persist_state="session",
            help="Each costs one forward pass over the blocks to compare on. Every measurement makes the estimate of the others better.",
        )  # fmt: skip
        with st.expander("More settings", icon=":material/tune:"), st.grid(3, min_column_width=140):
            for name, (label, help_, step) in MORE.items():
                values[name] = st.number_input(
                    label, value=getattr(SearchSpec(), name), step=step, help=help_, key=f"w_search_{name}", persist_state="session"
                )
            values["minutes"] = st.number_input(
                "Minutes at most", value=None, min_value=0.5, step=5.0, placeholder="no limit", key="w_search_minutes", persist_state="session",
                help="After this time no further candidate is begun, and the best so far is kept.",
            )  # fmt: skip
        repair = repair_form.settings()
    spec = replace(draft, targets=Targets()).run_spec(kind="search", search=SearchSpec(**values), repair=repair)
    with about, st.container(border=True):
        st.subheader("Before it starts", anchor=False)
        if rows := facts(spec, card):
            st.table(rows, border="horizontal", alt="What the search will do")
    return spec


def complaints(spec: RunSpec, card: Card) -> list[str]:
    """Everything that keeps the search from starting, a sentence each."""
    pool = 0 if (found := spec.problems()) else cached.pool_size(card.config, spec.search, spec.rank, spec.pins)
    return [*found, pool] if isinstance(pool, str) else found


def facts(spec: RunSpec, card: Card) -> dict[str, str]:
    """What the search will do; empty if it cannot."""
    pool = 0 if spec.problems() else cached.pool_size(card.config, spec.search, spec.rank, spec.pins)
    if isinstance(pool, str) or not pool:
        return {}
    sized, ranked = min(spec.search.sized, pool), spec.search.ranked
    measured = sized + ranked
    told = fmt.plural(sized, "size") + (f" and {fmt.plural(ranked, 'other ranking')} of the best" if ranked else "")
    finalists = fmt.plural(min(spec.search.finalists, measured), "finalist")
    fitted = min(spec.repair.blocks, spec.data.calibration_blocks + spec.data.train_blocks - spec.search.blocks)
    return {
        "Model": f"{card.name}, {fmt.count(card.cost.parameters)} parameters",
        "Budget": f"{fmt.count(spec.search.keep * card.cost.parameters)} parameters",
        "Sizes to choose from": fmt.count(pool),
        "Measured by masks": f"{told}, each on {fmt.count(spec.search.blocks * spec.data.seq_len)} tokens",
        "Then repaired": "none" if spec.repair.method == "none" else f"{finalists}, on {fmt.count(fitted * spec.data.seq_len)} tokens",
        "At last on held-out text": finalists,
    }
