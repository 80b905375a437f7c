"""The form for distillation: what is learnt from and how, with the loss and the layer map as pictures and the teacher's store with its size."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import streamlit as st

from app import cached, charts
from app.state import Draft
from core.distill.cache import cache_bytes
from core.distill.matching import AUTO, Pairs, advised, conflicts, kinds_of, pairs_of, stored_as
from core.errors import UserError
from core.model.card import Card
from core.report import format as fmt
from core.report.distill_figures import map_picture, mix_of, mix_picture
from core.report.run_figures import TERM_NAMES
from core.specs import LOSSES, SCHEDULES, SHARDINGS, STATES, TRACKERS, DataSpec, DistillSpec

MAIN: dict[str, tuple[str, str]] = {
    "steps": ("Steps", "Optimiser steps. 60 give a first impression on a laptop; thousands give a good model."),
    "batch_blocks": ("Blocks a step", "Text blocks in one forward pass. More steadies the gradient and takes more memory."),
    "learning_rate": ("Learning rate", "Peak of the schedule. 1e-4 to 1e-3 suit most pruned models."),
    "temperature": ("Temperature", "Softens teacher and student before they are compared. 1 compares them as they are."),
    "kl_weight": ("Teacher weight", "Weight of the distance from the teacher's predictions."),
    "ce_weight": ("CE weight", "Weight of the true next token beside the teacher's distribution. The Minitron paper found 0 best."),
}
MORE: dict[str, tuple[str, str]] = {
    "accumulation": ("Accumulation", "Forward passes whose gradients are added up before a step: a larger batch in the same memory."),
    "warmup_frac": ("Warm-up part", "Part of the steps in which the learning rate rises from 0."),
    "weight_decay": ("Weight decay", "Pulls weights towards 0. Usually 0 for a short distillation."),
    "max_grad_norm": ("Gradient clip", "Longer gradients are cut to this norm."),
    "checkpoint_every": ("Checkpoint every", "Steps between two states from which the run can resume."),
    "evaluate_every": ("Measure every", "Steps between two measurements on held-out text."),
    "patience": (
        "Patience",
        "Measurements without a lower held-out loss after which training ends, with the best weights; 0 never ends early.",
    ),
    "sample_prompts": ("Prompts on the way", "Prompts that the student continues at each measurement."),
    "correction_steps": (
        "Teacher correction",
        "Steps that adapt the teacher to the text first. 0 unless the text is unlike what it was made from.",
    ),
    "seed": ("Seed", "The same seed gives the same run."),
}
KNOBS: dict[str, tuple[str, str, str]] = {
    "jsd": ("beta", "Teacher's share", "Of the mixture that teacher and student are both compared with."),
    "skew_kl": ("skew", "Teacher's share", "Of the mixture that the teacher is compared with."),
    "top_k": ("top_k", "Tokens", "The teacher's likeliest tokens that are told apart; all others count as one."),
    "sampled": ("samples", "Draws", "Tokens drawn from the teacher at each position."),
}
"""Loss -> the field that belongs to it alone, its label and what it means."""
FORMATS = {"learning_rate": "%.0e", "seed": "%d"}
INCREMENTS = {
    "steps": 20, "learning_rate": 1e-4, "temperature": 0.5, "ce_weight": 0.1, "kl_weight": 0.1, "warmup_frac": 0.05, "weight_decay": 0.01,
    "beta": 0.1, "skew": 0.05, "intermediate_weight": 0.1,
}  # fmt: skip
LABELS = {name: label for name, (label, _) in (MAIN | MORE).items()} | {
    "beta": "Teacher's share", "skew": "Teacher's share", "top_k": "Tokens", "samples": "Draws", "intermediate_weight": "States' weight",
    "layer_map": "Layer map", "intermediate": "Intermediate states", "teacher_cache": "The teacher", "loss": "Distance",
    "sharding": "Several processes", "report_to": "Trackers",
}  # fmt: skip
"""Field -> its label on the form."""

NONE, ADVISED, CHOSEN = "None", "As advised", "Chosen"
STORES = {
    "auto": "As it pays",
    "off": "Ask it each time",
    "float32": "Store exactly",
    "bfloat16": "Store at half size",
}
TRACKER_NAMES = {"tensorboard": "TensorBoard", "wandb": "Weights & Biases", "mlflow": "MLflow", "trackio": "Trackio"}
SHARED = {"none": "Share nothing (DDP)", "student": "Share the student (FSDP2)", "both": "Share the student and the teacher"}


def settings(draft: Draft, card: Card) -> DistillSpec:
    """Draw the form; return what it says, right or wrong."""
    values = _numbers(MAIN)
    values |= _logits()
    values |= _states(draft, card)
    spec = DistillSpec(**values)
    layers = _layers(draft, card)
    kinds = kinds_of(spec, *layers)
    if len(mix_of(spec, kinds)) > 1:
        charts.show(mix_picture(spec, kinds), "mix")
    _map(spec, draft, card)
    values |= _store(spec, draft.data, card, kinds)
    with st.expander("More settings", icon=":material/tune:"):
        values |= _more()
    return DistillSpec(**values)


def _numbers(shown: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Number fields in a grid; they take any number, for what is wrong with it is said beside them."""
    with st.grid(3, min_column_width=110):
        return {name: _number(name, label, help_) for name, (label, help_) in shown.items()}


def _number(name: str, label: str, help_: str) -> Any:
    usual = getattr(DistillSpec(), name)
    return st.number_input(
        label, value=usual, step=INCREMENTS.get(name, type(usual)(1)), format=FORMATS.get(name), help=help_, key=f"w_{name}",
        persist_state="session",
    )  # fmt: skip


def _logits() -> dict[str, Any]:
    """Which distance from the teacher's predictions, and its own knob if it has one."""
    left, right = st.columns([2, 1])
    loss = left.selectbox(
        "Distance from the teacher's predictions", LOSSES, format_func=TERM_NAMES.__getitem__, key="w_loss", persist_state="session",
        help="Forward KL is what the Minitron paper found best. The run shows it beside any other.",
    )  # fmt: skip
    if loss not in KNOBS:
        return {"loss": loss}
    name, label, help_ = KNOBS[loss]
    with right:
        return {"loss": loss, name: _number(name, label, help_)}


def _states(draft: Draft, card: Card) -> dict[str, Any]:
    """Which intermediate states are learnt from too."""
    best = advised(*_layers(draft, card))
    told = " and ".join(TERM_NAMES[kind].lower() for kind in best) if best else "none, for little depth goes"
    mode = st.segmented_control(
        "Intermediate states", [NONE, ADVISED, CHOSEN], default=ADVISED, required=True, key="w_states_mode", persist_state="session",
        help=f"What flows inside the models, compared too. Advised for this cut: {told}.",
    )  # fmt: skip
    if mode == NONE:
        return {"intermediate": ()}
    if mode == ADVISED:
        st.caption(f"For this cut: {told}.")
        return {"intermediate": (AUTO,)} | (_map_field() if best else {})
    left, right = st.columns(2)
    kinds = left.multiselect(
        "States", STATES, default=["output", "embedding"], format_func=TERM_NAMES.__getitem__, key="w_intermediate", persist_state="session"
    )
    with right:
        distance = st.selectbox(
            "Their distance", ["cosine", "mse"], format_func={"cosine": "Cosine", "mse": "Squared error"}.__getitem__, key="w_state_distance",
            persist_state="session", help="The paper found cosine best. Attention relations always use KL.",
        )  # fmt: skip
        weight = _number("intermediate_weight", "States' weight", "1 lets all states together weigh as much as the predictions.")
    return {"intermediate": tuple(kinds), "state_distance": distance, "intermediate_weight": weight} | (_map_field() if kinds else {})


def _map_field() -> dict[str, Any]:
    text = st.text_input(
        "Layer map", key="w_layer_map", persist_state="session", placeholder="student:teacher, such as 13:29, 7:14",
        help="Which layers are compared, counted from 0. Empty: one pair near the end, the paper's best. The word plan: every kept layer.",
    )  # fmt: skip
    return {"layer_map": tuple(part.strip() for part in (text or "").split(",") if part.strip())}


def _map(spec: DistillSpec, draft: Draft, card: Card) -> None:
    """The layer map, where layers are compared."""
    kinds = kinds_of(spec, *_layers(draft, card))
    if set(kinds) - {"embedding"} and not conflicts(dataclasses.replace(spec, teacher_cache="off"), *_layers(draft, card)):
        kept = _kept(draft, card)
        charts.show(map_picture(_pairs(spec, draft, card), *_layers(draft, card), kept), "layer_map")
        if kept is None:
            st.caption("Which layers stay is not known before the model is scored; they are drawn evenly.")


def _pairs(spec: DistillSpec, draft: Draft, card: Card) -> Pairs:
    layers, teacher_layers = _layers(draft, card)
    kept = _kept(draft, card)
    if kept is None and spec.layer_map == ("plan",):  # as the run will know them; drawn evenly until then
        kept = [round(i * (teacher_layers - 1) / max(1, layers - 1)) for i in range(layers)]
    return pairs_of(spec.layer_map, layers, teacher_layers, kept)


def _layers(draft: Draft, card: Card) -> tuple[int, int]:
    """Layers of student and teacher."""
    return draft.targets.num_hidden_layers or card.dims.layers, card.dims.layers


def _kept(draft: Draft, card: Card) -> list[int] | None:
    """The layers that the draft keeps, if that is known already."""
    layers, teacher_layers = _layers(draft, card)
    if layers == teacher_layers:
        return list(range(layers))
    scores = cached.find_scores(draft)
    try:
        return None if scores is None else cached.plan(scores, draft).layers.tolist()
    except UserError:
        return None


def store_bytes(spec: DistillSpec, data: DataSpec, card: Card, kinds: Sequence[str] = (), number_format: str | None = None) -> int:
    """Size of the teacher's stored states, at most: of every block that the steps will see. ``kinds`` are the states that are learnt from."""
    rows = max(0, spec.steps) * spec.batch_blocks * spec.accumulation
    number_format, seen = number_format or stored_as(spec, kinds, rows, data.train_blocks), min(data.train_blocks, rows)
    return 0 if number_format == "off" else cache_bytes(seen, data.seq_len, card.dims.hidden, number_format)


def _store(spec: DistillSpec, data: DataSpec, card: Card, kinds: Sequence[str]) -> dict[str, Any]:
    """Whether the teacher's final states are stored, each choice with its size."""
    kept = st.segmented_control(
        "The teacher", list(STORES), default="auto", required=True, key="w_teacher_cache", persist_state="session",
        format_func=STORES.__getitem__,
        help="Stored, its body runs once for each block of text: not again in later epochs, for other students, or when a run repeats.",
    )  # fmt: skip
    exact, half = (fmt.size(store_bytes(spec, data, card, kinds, number_format)) for number_format in ("float32", "bfloat16"))
    st.caption(f"Stored exactly it takes {exact} on disk, at half size {half}." + _consequence(spec, data, card, kinds, kept))
    return {"teacher_cache": kept}


def _consequence(spec: DistillSpec, data: DataSpec, card: Card, kinds: Sequence[str], kept: str) -> str:
    """What the choice of a store means for this run."""
    if kept != "auto":
        return "" if kept == "off" else " Then only its predictions are learnt from."
    if store_bytes(dataclasses.replace(spec, teacher_cache=kept), data, card, kinds):
        return " The text is gone through more than once, so it is stored exactly if the disk has room."
    return " Intermediate states are learnt from, so it is asked." if kinds else " Each block is seen once, so it is asked."


def _more() -> dict[str, Any]:
    """Everything that few will touch."""
    values = _numbers(MORE)
    left, right = st.columns(2)
    values["schedule"] = left.selectbox(
        "Schedule", SCHEDULES, format_func={"cosine": "Cosine", "linear": "Linear", "wsd": "Level, then decay (WSD)"}.__getitem__, key="w_schedule",
        persist_state="session", help="How the learning rate falls to a tenth of its peak.",
    )  # fmt: skip
    values["dtype"] = right.selectbox(
        "Precision", ["auto", "float32", "bfloat16"], key="w_dtype", persist_state="session",
        help="auto takes bfloat16 where the device is made for it, else float32.",
    )  # fmt: skip
    values["keep_best"] = left.checkbox(
        "Keep the best weights", key="w_keep_best", persist_state="session", help="Those of the lowest held-out loss, not the last ones."
    )
    values["gradient_checkpointing"] = right.checkbox(
        "Compute activations twice", key="w_gradient_checkpointing", persist_state="session", help="Less memory, about a third more work."
    )
    values["report_to"] = tuple(
        right.multiselect(
            "Trackers", TRACKERS, format_func=TRACKER_NAMES.__getitem__, key="w_report_to", persist_state="session", placeholder="None",
            help="Programs that follow the training too; each needs its package. TensorBoard's file lies in the run's folder.",
        )
    )  # fmt: skip
    values["sharding"] = left.selectbox(
        "Several processes", SHARDINGS, format_func=SHARED.__getitem__, key="w_sharding", persist_state="session",
        help="For a launcher on several devices (docs/scale.md): what each holds only a part of. It changes nothing of what is learnt.",
    )  # fmt: skip
    return values
