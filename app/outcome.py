"""What follows the target sliders: the parts of the page that a move of them draws anew."""

import streamlit as st

from app import cached, measured_view, state
from app.advice_view import advice_view
from app.board import board, told
from app.state import Draft
from app.subject import Subject, subject_of
from app.target_form import ways_out
from app.ui import command_box
from core.model.card import Card
from core.plan.sizes import problems
from core.score.store import Scores


@st.fragment(key=state.OUTCOME)
def outcome(card: Card, scores: Scores | None) -> None:
    """Draw what the draft comes to, or what of its targets cannot be built and the ways out.

    Args:
        card: the draft's model; no move of a slider makes it another, nor
        scores: the draft's scores, if there are any.
    """
    draft = state.draft()
    if wrong := problems(card.config, draft.targets):
        _impossible(card, draft, wrong)
        return
    subject = subject_of(draft, card, scores) if scores else None
    known = subject if subject and not subject.complaint else None
    if known is None:
        _unknown(subject)
    board(told(card, draft, cached.outlook(known.scores, draft) if known else None))
    if known:
        measured_view.panel(draft, known)


@st.fragment(key=state.ADVICE)
def advice(card: Card) -> None:
    """What the literature and this project's study say of the cut, once asked."""
    advice_view(card)


@st.fragment(key=state.COMMAND)
def command() -> None:
    """The command that cuts as the page shows, once asked for."""
    command_box(state.draft().run_spec(kind="prune"))


def _impossible(card: Card, draft: Draft, wrong: list[str]) -> None:
    """Each problem in a sentence, and one click for each way out of them."""
    for problem in wrong:
        st.error(problem, icon=":material/error:")
    with st.container(horizontal=True):
        for label, targets in ways_out(card, draft.targets):
            st.button(label, key=f"way_{label}", icon=":material/build:", on_click=state.replace_draft, kwargs={"targets": targets})


def _unknown(subject: Subject | None) -> None:
    """Why it is not known what stays, and where to change that."""
    if subject is None:
        st.info("Which layers, heads and neurons stay is known once importance is computed.", icon=":material/grid_on:")
    else:
        st.warning(subject.complaint, title="What stays is not known", icon=":material/science:")
    said = "Compute importance" if subject is None else "Choose another criterion"
    if st.button(said, key="to_importance", icon=":material/arrow_forward:"):
        state.go("importance")
