"""How long passes over the calibration text will take: as earlier ones of the model went here, else as one timed forward pass tells."""

import streamlit as st

from app import cached
from app.cached import KnownRun
from app.state import Draft
from app.ui import user_errors
from core.report import format as fmt
from core.runs import control
from core.runs.machine import cpu_model
from core.score.passes import PASSES, Pass, forwarded
from core.score.store import Scores, all_scores
from core.specs import DataSpec, RunSpec, ScoreSpec

WATCH_SECONDS = 1.0
OFFERED = "Loads the model and times a few forward passes over one block, here and now. That is about as long as loading it takes."


def show(draft: Draft, todo: list[Pass]) -> None:
    """Say how long the passes take, and by what that is judged; where nothing is known, offer to time the model."""
    before = [scores for scores in all_scores() if scores.meta["model"] == draft.model]
    timed = tokens_per_second(draft)
    rate = timed or _rate(draft, before)
    if rate is None:
        _offer(draft)
        return
    seconds = sum(_as_before(item, draft, before) or _tokens(item, draft, draft.score, draft.data) / rate for item in forwarded(todo))
    by = "by earlier scorings of this model here" if before else f"by one timed forward pass, {fmt.rate(timed, 'tokens/s')}"
    st.caption(f":material/timer: {fmt.duration(seconds, estimated=True)}, going {by}.")


def _offer(draft: Draft) -> None:
    """Offer to time the model; show that it is being timed, or why it could not be."""
    probe = _probe(draft)
    if probe is not None and probe.status.live:
        st.fragment(_watch, run_every=WATCH_SECONDS)(probe.run.id)
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("How long will it take?", key="probe", icon=":material/timer:", type="tertiary", help=OFFERED):
            with user_errors():
                control.start(draft.run_spec(kind="probe"))
            st.rerun()
        st.caption("Not known yet: this model was not timed on this machine.")
    if probe is not None and (error := probe.status.error):
        st.error(f"{error['message']} {error.get('hint', '')}", title="The model could not be timed", icon=":material/error:")


def tokens_per_second(draft: Draft | RunSpec) -> float | None:
    """Tokens a second that the draft's model read when it was last timed on this machine; None if it never was."""
    probe = _probe(draft)
    results = probe.run.results() if probe is not None and probe.status.state == "done" else {}
    here = (results.get("machine") or {}).get("cpu") == cpu_model()
    return float(results["model"]["tokens_per_second"]["prefill"]) if here else None


def _probe(draft: Draft | RunSpec) -> KnownRun | None:
    """The newest timing of the draft's model with blocks of its length."""
    wanted = (draft.model, draft.data.seq_len)
    probes = (known for known in cached.known_runs() if known.spec.kind == "probe")
    return next((known for known in probes if (known.spec.model, known.spec.data.seq_len) == wanted), None)


def _watch(run_id: str) -> None:
    """Say that the model is being timed; draw the page anew when it was."""
    known = next((known for known in cached.known_runs() if known.run.id == run_id), None)
    if known is None or not known.status.live:
        st.rerun()
    said = {"queued": "Waiting: another run is using the device.", "stopping": "Stopping."}.get(
        known.status.state, "Timing a forward pass of the model …"
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f":material/timer: {said}")
        if st.button("Stop", key="stop_probe", icon=":material/stop:", type="tertiary", disabled=known.status.state == "stopping"):
            control.cancel(known.run, keep=False)
            st.rerun(scope="fragment")


def _as_before(item: Pass, draft: Draft, before: list[Scores]) -> float | None:
    """How long a pass took before, scaled to what it would look at now."""
    for scores in before:
        took = cached.pass_seconds(scores.meta["passes"][item.name]) if scores.has(item.name) else None
        if took is not None:
            then = _tokens(item, draft, ScoreSpec.from_dict(scores.meta["score"]), DataSpec.from_dict(scores.meta["data"]))
            return took * _tokens(item, draft, draft.score, draft.data) / then if then else took
    return None


def _rate(draft: Draft, before: list[Scores]) -> float | None:
    """Tokens a second of a forward pass, as an earlier scoring's activations took them, or its covariances, which bring them along; else None."""
    for item in (PASSES["activations"], PASSES["covariances"]):
        if seconds := _as_before(item, draft, before):
            return _tokens(item, draft, draft.score, draft.data) / seconds
    return None


def _tokens(item: Pass, draft: Draft, score: ScoreSpec, data: DataSpec) -> float:
    """What a pass takes, in tokens of forward passes of the draft's model."""
    return data.seq_len * item.forwards(score, data.calibration_blocks, cached.card(draft.model).dims.layers)
