"""Targets | :material/tune: | Choose how small the model shall be, and see at once what that costs and what it keeps."""

import streamlit as st

from app import cached, state
from app.ahead import ahead
from app.goal_form import goal_form
from app.outcome import advice, command, outcome
from app.target_form import sliders
from app.teacher import card_of
from app.ui import page_header
from core.specs import Targets

page_header("Targets", "Choose how small the model shall be. Every number follows at once; nothing is cut yet.")
draft = state.draft()
card = card_of(draft)

with st.container(horizontal=True, vertical_alignment="center"):
    for preset in cached.presets(card.config):
        st.button(
            preset.name, key=f"preset_{preset.name}", help=preset.why, on_click=state.update_draft, kwargs={"targets": preset.targets}
        )
    st.space("stretch")
    st.button(
        "Reset", icon=":material/restart_alt:", key="reset", on_click=state.update_draft, kwargs={"targets": Targets()}, type="tertiary"
    )

goal_form(card)
knobs, results = st.columns([1, 3], gap="large")
with knobs:
    sliders(card)
with results:
    outcome(card, cached.find_scores(draft))
    advice(card)
    if st.button("Go on to prune and distill", key="to_distill", type="primary", icon=":material/arrow_forward:"):
        state.go("distill")
    command()
    ahead(card, cached.find_scores(draft))
