"""Model & data | :material/database: | Choose the model to cut, and the text that shows what matters in it."""

import streamlit as st

from app import cached, charts, forms, preview, score_form, scoring, state
from app.ui import command_box, folded, page_header, user_errors
from core.report.architecture_figures import parameter_bar
from core.report.format import count, size

page_header("Model & data", "Choose the model to cut, and the text that shows what matters in it.")
draft = state.draft()

forms.model_choice(draft)
if cached.must_fetch(draft.model):
    scoring.fetch_offer(draft)
    st.stop()
with user_errors():
    card = cached.card(draft.model)

with st.container(border=True):
    st.subheader(card.name, anchor=False)
    with st.grid(5, min_column_width=130):
        st.metric("Parameters", count(card.cost.parameters))
        st.metric("Without embedding", count(card.cost.non_embedding_parameters))
        st.metric("Weights on disk", size(card.weights_bytes))
        st.metric("Weights, bfloat16", size(card.cost.weight_bytes()))
        st.metric("KV cache a token", size(card.cost.kv_bytes_per_token))
    st.markdown("**Where the parameters are**")
    charts.show(parameter_bar(card.parts), "parts")

build, cuttable = st.columns([1, 2], gap="large")
with build:
    st.subheader("Build", anchor=False)
    st.table(forms.build_rows(card), border="horizontal", hide_index=True, hide_header=True, alt="Dimensions of the model")
with cuttable:
    st.subheader("What can be cut", anchor=False)
    st.table(forms.cuttable_rows(card), border="horizontal", hide_index=True, alt="What can be cut, and by which rule")

st.subheader("Text", anchor=False)
forms.data_choice(draft)
if fold := folded("A look at the text", "article", "text"):
    with fold:
        preview.show(draft, card)

st.subheader("Importance", anchor=False)
score_form.choice(draft, card)
scoring.panel(draft)
command_box(draft.run_spec(kind="score"))
