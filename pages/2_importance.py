"""Importance | :material/grid_on: | See what each layer, head, neuron and embedding channel is worth, and what the draft cuts."""

import streamlit as st

from app import agreement_view, cached, importance_views, scoring, state
from app.subject import subject_of
from app.teacher import card_of
from app.ui import command_box, page_header, user_errors
from core.specs import NO_PINS, Targets

VIEWS = {
    "Layers": importance_views.layers, "Heads": importance_views.heads, "Neurons": importance_views.neurons, "Embedding": importance_views.channels,
    "Agreement": agreement_view.agreement,
}  # fmt: skip

page_header("Importance", "What each part of the model is worth on your text. What the draft cuts is hollow or crossed.")
draft = state.draft()
card = card_of(draft)
with user_errors():
    scores = cached.find_scores(draft)

if scores is None:
    with st.container(border=True):
        st.subheader("Not measured yet", anchor=False)
        st.markdown(
            "Here you will see which layers, heads, neurons and embedding channels matter on your text. It is computed once and kept."
        )
        scoring.panel(draft)
        scoring.others(draft)
    st.stop()

view = st.segmented_control(
    "View", list(VIEWS), default="Layers", required=True, key="view", bind="query-params", label_visibility="collapsed"
)
with user_errors():
    VIEWS[view or "Layers"](subject_of(draft, card, scores))
command_box(draft.run_spec(kind="score" if (draft.targets, draft.pins) == (Targets(), NO_PINS) else "prune"))
