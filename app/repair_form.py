"""How a cut is repaired, chosen by the user."""

import streamlit as st

from core.specs import RepairSpec

REPAIR_NAMES = {"none": "None", "closed": "Closed form", "scaled": "Closed form and scales", "thorough": "Thorough"}
REPAIR_HELP = (
    "Fits the surviving weights to the uncut model before any training; size and shapes stay. "
    "Closed form: least squares, a few forward passes. Scales: a factor for every unit is then learnt from the uncut model's predictions. "
    "Thorough: each layer learns a little too, some forty forward passes. "
    "What it gives back is measured in every run, before and after."
)
REPAIR_BLOCKS_HELP = (
    "The calibration blocks, then as many of the training blocks as it takes. Few tokens are the limit of a fit: more give more back, "
    "at a cost that grows with them."
)

GAPS = {"none": (0.816, 2.094), "closed": (0.403, 0.886), "scaled": (0.347, 0.703)}
"""Nats above the uncut model once 20 and 35 % of all parameters are gone, by repair; SmolLM2-135M on 128 blocks, ``python -m bench.quality``."""


def settings() -> RepairSpec:
    """Draw the form; return what it describes. Both pages that hold it share their choice."""
    method = st.segmented_control(
        "Repair of the cut", list(REPAIR_NAMES), format_func=REPAIR_NAMES.__getitem__, default="closed", required=True,
        key="w_repair", persist_state="session", help=REPAIR_HELP,
    )  # fmt: skip
    if effect := effect_of(method):
        st.caption(effect)
    if method == "none":
        return RepairSpec(method=method)
    blocks = st.number_input(
        "Blocks the repair fits on", min_value=1, value=RepairSpec().blocks, key="w_repair_blocks", persist_state="session", width=240,
        help=REPAIR_BLOCKS_HELP,
    )  # fmt: skip
    return RepairSpec(method=method, blocks=blocks)


def effect_of(method: str) -> str:
    """What a repair was measured to give back; empty if that is not known."""
    if method not in GAPS:
        return ""
    costs = [f"{gap:.2f}" if method == "none" else f"{cut:.2f} → {gap:.2f}" for cut, gap in zip(GAPS["none"], GAPS[method], strict=True)]
    return f"Measured on SmolLM2-135M, 128 blocks: 20 % of the parameters, all from the FFN, cost {costs[0]} nats a token on unseen text, 35 % {costs[1]}."
