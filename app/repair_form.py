"""How a cut is repaired, chosen by the user."""

import streamlit as st

from core.specs import RepairSpec

REPAIR_NAMES = {"none": "None", "closed": "Closed form", "scaled": "Closed form and scales", "thorough": "Thorough"}
REPAIR_HELP = (
    "Fits the surviving weights to the uncut model before any training; size and shapes stay. "
    "Closed form: least squares, a few forward passes. Scales: a factor for every unit is then learnt from the uncut model's predictions. "
    "Thorough: each layer learns a little too, some fifty forward passes. "
    "What either gives back is measured, before and after; docs/benchmarks.md says what it gave on the embedded model."
)
REPAIR_BLOCKS_HELP = (
    "The calibration blocks, then as many of the training blocks as it takes. Few tokens are the limit of a fit: more give more back, "
    "at a cost that grows with them."
)


def settings() -> RepairSpec:
    """Draw the form; return what it describes. Both pages that hold it share their choice."""
    method = st.segmented_control(
        "Repair of the cut", list(REPAIR_NAMES), format_func=REPAIR_NAMES.__getitem__, default="closed", required=True,
        key="w_repair", persist_state="session", help=REPAIR_HELP,
    )  # fmt: skip
    if method == "none":
        return RepairSpec(method=method)
    blocks = st.number_input(
        "Blocks the repair fits on", min_value=1, value=RepairSpec().blocks, key="w_repair_blocks", persist_state="session", width=240,
        help=REPAIR_BLOCKS_HELP,
    )  # fmt: skip
    return RepairSpec(method=method, blocks=blocks)
