"""Compare | :material/compare_arrows: | See what finished runs gained and lost: size, speed, quality, and their own words."""

import streamlit as st

from app import comparison, live, samples, state
from app.ui import command_box, empty_state, page_header, user_errors
from core.report.tables import domains_of, sentence
from core.runs.folder import find

page_header("Compare", "What was gained and what was lost: size, speed, quality, and the same prompt through every model.")

runs = comparison.finished_runs()
if not runs:
    if empty_state("compare_arrows", "No finished run yet", "Size, speed and quality of teacher, pruned and distilled model stand here side by side "
                   "once a run has finished.", "Prune & distill", "to_distill"):  # fmt: skip
        state.go("distill")
    st.stop()

compared = comparison.chosen(runs, state.run_id())
if not compared:
    st.info("Choose a run.", icon=":material/checklist:")
    st.stop()
names = comparison.names_of(compared)
run = compared[0]
results = run.results()

if len(compared) == 1:
    st.markdown(sentence(results))
    comparison.headline(results)
else:
    st.caption("  \n".join(names))

st.subheader("Size and speed", anchor=False)
comparison.sizes(compared, names)

st.subheader("Quality", anchor=False)
domains = list(dict.fromkeys(domain for one in compared for domain in domains_of(one.results())))
if domains:
    domain = st.segmented_control("Held-out text", domains, default=domains[0], required=True, key="w_domain",
                                  help="Text that neither calibration nor training saw; the first is of the training's own domain.")  # fmt: skip
    comparison.quality(compared, names, domain)
    st.subheader("Quality against cost", anchor=False)
    comparison.trade(compared, names, domain)
    if len(compared) > 1:
        st.subheader("How they regrew", anchor=False)
        comparison.regrown(compared, names, domain)
    st.subheader("Where it got worse", anchor=False)
    comparison.worse(compared, names)
else:
    st.caption("Nothing was measured on held-out text in these runs.")

if len(compared) > 1:
    st.subheader("What differs in the recipe", anchor=False)
    comparison.recipe(compared, names)
    st.subheader("What each kept", anchor=False)
    comparison.kept(compared, names)

st.subheader("The same prompt", anchor=False)
which = run
if len(compared) == 1:
    samples.show(run.generations(), run.results())
else:
    comparison.answers(compared, names)
    chosen = st.segmented_control("Ask, and report on", names, default=names[0], required=True, key="w_prompt_run")
    which = compared[names.index(chosen)]

with st.form("ask", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
    text = st.text_input("Your own prompt", placeholder="Once upon a time", key="w_own_prompt", width="stretch")
    asked = st.form_submit_button("Ask the models", icon=":material/send:")
if asked and text.strip():
    with user_errors():
        st.session_state["asked"] = comparison.ask(which, text).id
if answering := st.session_state.get("asked"):
    with user_errors():
        live.watch(comparison.answer, find(answering))

with st.container(horizontal=True):
    st.download_button(
        "Download the report", lambda: comparison.report(which), f"{which.id}.html", "text/html", icon=":material/download:", on_click="ignore",
        help="One HTML file that needs no network and prints well.",
    )  # fmt: skip
    st.link_button(
        "Story mode", "./?demo=1", icon=":material/auto_stories:", type="tertiary", help="A read-only page for people who decide."
    )
    if st.button("All runs", icon=":material/history:", type="tertiary", key="to_runs", help="Name, note and delete them there."):
        state.go("runs")
command_box(which.spec)
