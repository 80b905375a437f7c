"""Runs | :material/history: | Find, name, compare and tidy up what was run here."""

import streamlit as st

from app import cached, charts, run_list, run_view, state
from app.ui import command_box, empty_state, page_header
from core.report.lineage import lineage_picture

page_header("Runs", "Everything that was run in this workspace, from here or from the command line.")

runs = cached.known_runs()
run_list.asked_to_delete()
run_list.unreadable()
if not runs:
    if empty_state("history", "No run yet", "Scoring, pruning and distilling leave a run here, with its recipe, its curves and its results.",
                   "Prune & distill", "to_distill"):  # fmt: skip
        state.go("distill")
    run_list.trash()
    st.stop()

with st.container(horizontal=True, vertical_alignment="bottom"):
    words = st.text_input("Search", placeholder="name, model, note", icon=":material/search:", key="w_run_words", width=260)
    kinds = st.multiselect(
        "Kind", list(run_list.KINDS), format_func=run_list.KINDS.__getitem__, key="w_run_kinds", placeholder="any", width=260
    )
    states = st.multiselect("State", list(run_view.STATES), key="w_run_states", placeholder="any", width=220)
    starred = st.toggle("Starred only", key="w_run_starred")

found = run_list.matching(runs, words or "", kinds, states, starred)
run_list.actions(runs)
shown = st.session_state.setdefault("runs_shown", run_list.PAGE)
for known in found[:shown]:
    run_list.row(known)
if not found:
    st.info("No run fits. Take a word or a filter away.", icon=":material/search_off:")
if len(found) > shown and st.button(f"Show {min(run_list.PAGE, len(found) - shown)} more", key="more_runs", icon=":material/expand_more:"):
    st.session_state["runs_shown"] = shown + run_list.PAGE
    st.rerun()
run_list.trash()

if models := run_list.lineage(runs):
    st.subheader("Where models come from", anchor=False)
    picture = lineage_picture(models)
    st.caption(f"A star is a model that was loaded, a dot one that a run made; what is not finished is hollow. {picture.alt}")
    charts.show(picture, "lineage")
command_box("python -m core runs")
