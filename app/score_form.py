"""The form of what importance is measured: the frequent choice in sight, the rest folded away, each with what it buys and costs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import streamlit as st

from app import state
from app.state import Draft, bind, update_draft
from core.model.card import Card
from core.report.format import size
from core.score.sites import covariance_bytes
from core.specs import ScoreSpec

HELP = {
    "ppl_blocks": "Every layer is left out in turn on so many blocks, which tells the loss, the divergence and the angle without it. "
    "Costs about half a forward pass a layer and block. 0 saves that; layers are then ranked by block importance alone.",
    "gradient_blocks": "Taylor and Fisher importance of heads, neurons and channels: what the loss would do without each. "
    "Costs about three forward passes over so many blocks. 0 leaves it out.",
    "pre_activation": "Neurons by X W1, before their activation, as the paper prints it. Costs another forward pass over the text.",
    "windows": "Lengths of runs of neighbouring layers whose loss after removal is measured; take the number of layers that you mean to remove. "
    "Costs about half a forward pass for every run and block for removing layers.",
    "greedy": "So many layers are removed one after the other, each time the one whose loss hurts least. "
    "Costs about as much as the removal of single layers, once for every layer that goes. 0 leaves it out.",
    "ridge": "Steadies leverage and Optimal Brain Surgeon: a share of the mean variance of a layer's units. Only looked at with covariances.",
    "shards": "Parts of the calibration text that are scored each by itself: they tell how sure a ranking is, and several processes share them. "
    "Costs nothing. At most one for every calibration block.",
    "batch_size": "More are faster and take more memory. The scores are the same.",
    "isolate_documents": "A block of tokens is packed with several documents. On: each is read as if it stood alone. Off: attention looks back into "
    "the documents before it, and the first word of one is predicted from the last of another.",
}
LABELS = {
    "ppl_blocks": "Blocks for removing layers", "gradient_blocks": "Gradient blocks", "windows": "Lengths of runs",
    "greedy": "Layers to remove greedily", "shards": "Shards", "batch_size": "Blocks at a time", "ridge": "Ridge",
    "covariances": "Covariances", "pre_activation": "Neurons before their activation", "isolate_documents": "Documents apart",
}  # fmt: skip
COVARIANCES = (
    "Ridge leverage, Optimal Brain Surgeon and the contributions to the output: what the other units could not stand in for. "
    "Costs about two forward passes over the text, and about {} of memory for this model."
)


def choice(draft: Draft, card: Card) -> None:
    """Choose what of the importance is measured, and how."""
    score = draft.score
    _number(score, "ppl_blocks", width=240)
    with st.expander("Further measurements", icon=":material/science:"):
        with st.grid(3, min_column_width=220):
            _number(score, "gradient_blocks", step=score.shards)
            _windows(score, card.dims.layers)
            _number(score, "greedy")
            _number(score, "shards", least=1)
            _number(score, "batch_size", least=1)
            _number(score, "ridge", least=1e-6, step=0.01, format="%g")
        with st.container(horizontal=True, gap="large"):
            memory = size(covariance_bytes(card.config), estimated=True)
            st.toggle(LABELS["covariances"], help=COVARIANCES.format(memory), **_bound(score, "covariances"))
            for name in ("pre_activation", "isolate_documents"):
                st.toggle(LABELS[name], help=HELP[name], **_bound(score, name))
    for name, problem in state.recall("score_complaints", []):
        st.error(f"{LABELS[name]} {problem} Nothing was changed.", icon=":material/error:")


def _number(score: ScoreSpec, name: str, *, least: float = 0, **more: Any) -> None:
    st.number_input(LABELS[name], min_value=least, help=HELP[name], **({"step": 1} | more), **_bound(score, name))


def _windows(score: ScoreSpec, layers: int) -> None:
    """Lengths of runs, out of those that leave a layer."""
    lengths = sorted({*range(1, layers), *score.windows})
    st.multiselect(
        LABELS["windows"], lengths, placeholder="None", help=HELP["windows"],
        **bind("windows", list(score.windows), lambda chosen: _set(windows=tuple(sorted(chosen)))),
    )  # fmt: skip


def _bound(score: ScoreSpec, name: str) -> state.Binding:
    return bind(f"score_{name}", getattr(score, name), _setter(name))


def _setter(name: str) -> Callable[[Any], object]:
    return lambda value: _set(**{name: value})


def _set(**changes: Any) -> None:
    """Change the draft if what comes out can be measured, else say why not; the draft then keeps what it has."""
    score = dataclasses.replace(state.draft().score, **changes)
    state.remember("score_complaints", score.own_problems())
    if not score.own_problems():
        update_draft(score=score)
