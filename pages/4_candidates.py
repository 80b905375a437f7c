"""Search | :material/travel_explore: | Find the best sizes under a budget: all are estimated, the best are measured."""

import streamlit as st

from app import cached, live, run_view, search_form, search_view, state
from app.teacher import card_of
from app.ui import command_box, page_header, user_errors
from core.runs import control

NEW = "new"

page_header(
    "Search", "Say how much of the model may stay. All sizes under that budget are estimated, the best are measured, and what wins is kept."
)
runs = {known.run.id: known.run for known in cached.known_runs() if known.spec.kind == "search"}
wanted = state.recall("search_run") or next(iter(runs), NEW)
choices = [NEW, *runs]
chosen = st.selectbox(
    "Search", choices, index=choices.index(wanted) if wanted in choices else 0,
    format_func=lambda name: "New search" if name == NEW else run_view.label(runs[name]),
) if runs else NEW  # fmt: skip
if chosen != wanted:
    state.remember("search_run", chosen)
    state.remember("search_picked", [])
    st.rerun()

if chosen == NEW:
    draft = state.draft()
    card = card_of(draft)
    spec = search_form.settings(draft, card)
    problems = search_form.complaints(spec, card)
    for problem in problems:
        st.error(problem, icon=":material/error:")
    if st.button(
        "Start the search", type="primary", icon=":material/play_arrow:", shortcut="Ctrl+Enter", disabled=bool(problems), key="start_search"
    ):
        with user_errors():
            started = control.start(spec)
        state.remember("search_run", started.id)
        st.rerun()
    command_box(spec)
    st.stop()

run = runs[chosen]
live.watch(run_view.header, run)
if error := run.status().error:
    st.error(f"{error['message']} {error.get('hint', '')}", icon=":material/error:")
live.watch(search_view.results, run)
command_box(run.spec)
