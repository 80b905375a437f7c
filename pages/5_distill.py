"""Prune & distill | :material/content_cut: | Cut the model as planned, let it regrow from the teacher, and watch."""

import streamlit as st

from app import cached, checks, comparison, family_view, live, post_mortem, preflight, run_view, state
from app.teacher import card_of
from app.ui import command_box, empty_state, folded, page_header, user_errors
from core.report import format as fmt
from core.runs import control
from core.runs.remarks import title
from core.specs import Targets

NEW = "new"
"""In the URL instead of a run's id: the form for the next one."""


def shown(run_id: str, seconds: float | None) -> None:
    """All of a run that changes while it lives, as one fragment: each one more would cost the browser a redraw every few seconds."""
    run_view.header(run_id, seconds)
    run = runs[run_id]
    status = run.status()
    post_mortem.card(run, status)
    if status.state == "done" and st.button("Compare the result", icon=":material/compare_arrows:", type="primary"):
        comparison.choose([member["run"] for member in run.results()["members"]] if run.spec.kind == "family" else [run_id])
        state.go("compare")
    if run.spec.kind == "distill":
        run_view.curves(run_id, seconds)
    if run.spec.kind == "family":
        family_view.members(run)
    run_view.words(run_id, seconds)


page_header("Prune & distill", "Cut the model as planned, let it regrow from the uncut one, and watch it come back.")

runs = {known.run.id: known.run for known in cached.known_runs() if known.spec.kind not in ("generate", "probe")}
active = next((run_id for run_id, run in runs.items() if run.status().live), NEW)
wanted = state.run_id() or active
if wanted != NEW and wanted not in runs:
    st.warning(f"The run {wanted} is not in this workspace; it may have been deleted.", icon=":material/link_off:")
    wanted = NEW
if wanted != NEW:
    state.set_run_id(wanted)

# Without a key, so that it always begins anew at the run that is shown, whoever chose that.
choices = [NEW, *runs]
chosen = st.selectbox(
    "Run", choices, index=choices.index(wanted),
    format_func=lambda name: "New run from the current draft" if name == NEW else run_view.label(runs[name]),
)  # fmt: skip
if chosen != wanted:
    state.set_run_id(chosen)
    st.rerun()

if chosen != NEW:
    run = runs[chosen]
    st.subheader(title(run), anchor=False)
    live.watch(shown, run)
    if not run.status().error and (fold := folded("Log", "article", "log")):
        with fold:
            post_mortem.log(run)
    command_box(run.spec)
    st.stop()

draft = state.draft()
card = card_of(draft)
if draft.targets == Targets():
    if empty_state("content_cut", "Nothing to cut yet", "Choose on the targets page how small the model shall be; then start here.",
                   "Choose targets", "to_targets"):  # fmt: skip
        state.go("targets")
    st.stop()

form, check = st.columns([3, 2], gap="large")
with form:
    st.subheader("How", anchor=False)
    spec = preflight.settings(draft, card)
with check, st.container(border=True):
    st.subheader("Before it starts", anchor=False)
    problems = preflight.complaints(spec, card)
    if not problems:
        after = cached.cost(card.config, preflight.final_targets(spec, card)).parameters
        st.metric(
            "Parameters",
            f"{fmt.count(card.cost.parameters)} → {fmt.count(after)}",
            fmt.delta(after / card.cost.parameters - 1),
            delta_color="off",
            delta_arrow="off",
        )
        st.table(preflight.facts(spec, card), border="horizontal", alt="What the run will do and take")
        checks.show(checks.checks(spec, card))
    for problem in problems:
        st.error(problem, icon=":material/error:")
    if st.button(
        "Start", type="primary", icon=":material/play_arrow:", shortcut="Ctrl+Enter", disabled=bool(problems), width="stretch", key="start"
    ):
        with user_errors():
            started = control.start(spec)
        state.set_run_id(started.id)
        if started.id in runs:
            st.toast("This very run is under way already, perhaps from another tab. Here it is.", icon=":material/tab:")
        else:
            st.toast("The run has started.", icon=":material/play_arrow:")
        st.rerun()
command_box(spec)
