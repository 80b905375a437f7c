"""The target sliders: each offers only what can be built, shows the model's own value, and writes into the draft."""

from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from app import state
from app.state import bind, update_targets
from core.model.card import Card
from core.model.dims import Dims, resized
from core.plan.presets import ffn_choices
from core.plan.sizes import head_choices, hidden_choices, nearest_sizes
from core.specs import RankSpec, Targets

HIDDEN_STEP = 8
"""Hidden sizes that are multiples of this are offered as the fast ones, where the heads allow any such."""


@st.fragment(key=state.KNOBS)
def sliders(card: Card) -> None:
    """Draw one slider an axis."""
    draft = state.draft()
    own, now = card.dims, resized(card.dims, draft.targets)
    fast = not state.recall("any_size", False)
    st.slider(
        f"Layers (model: {own.layers})",
        1,
        own.layers,
        **bind("layers", min(now.layers, own.layers), _setter("num_hidden_layers", own.layers)),
    ) if own.layers > 1 else None
    _head_sliders(own, now)
    _choices(
        f"FFN neurons a layer (model: {own.ffn})",
        "ffn",
        ffn_choices(own) if fast else list(range(1, own.ffn + 1)),
        now.ffn,
        _setter("intermediate_size", own.ffn),
    )
    _choices(f"Hidden size (model: {own.hidden})", "hidden", _hidden(card, now, fast), now.hidden, _setter("hidden_size", own.hidden))
    st.toggle("Any size that can be loaded", help="Off: only multiples of 64 neurons and of 8 channels, which run fastest.",
              **bind("any_size", not fast, lambda value: state.remember("any_size", value)))  # fmt: skip
    _rounds(draft.rank)


def _rounds(rank: RankSpec) -> None:
    """Whether a run cuts at once or bit by bit."""
    st.number_input(
        "Rounds of scoring and cutting", 1, step=1, help="1 cuts at once by the importance that you see. More cut a part, score what is left, "
        "and cut again: a run then takes as many scorings. The Minitron paper found no gain from it.",
        **bind("rounds", rank.rounds, lambda value: state.replace_draft(rank=replace(state.draft().rank, rounds=value))),
    )  # fmt: skip
    if rank.rounds > 1:
        st.caption("What stays is shown as one round would choose it; the run will choose anew after every round.")


def _head_sliders(own: Dims, now: Dims) -> None:
    """Key-value heads, and query heads in each of their groups; one slider if every head has its own."""
    if own.group == 1:
        _choices(
            f"Attention heads (model: {own.heads})",
            "heads",
            list(range(1, own.heads + 1)),
            now.heads,
            lambda heads: _set_heads(own, heads, 1),
        )
        return
    group = min(max(now.heads // now.kv_heads, 1), own.group)
    _choices(
        f"Key-value heads (model: {own.kv_heads})",
        "kv_heads",
        list(range(1, own.kv_heads + 1)),
        now.kv_heads,
        lambda kv: _set_heads(own, kv, group),
    )
    _choices(
        f"Query heads a group (model: {own.group})", "group", list(range(1, own.group + 1)), group,
        lambda size: _set_heads(own, now.kv_heads, size),
    )  # fmt: skip


def _choices(label: str, name: str, sizes: list[int], value: int, change: Callable[[int], object]) -> None:
    """A slider over sizes; the present value is always among them, even where it cannot stay."""
    sizes = sorted({*sizes, value})
    if len(sizes) > 1:
        st.select_slider(label, sizes, **bind(name, value, change))
    else:
        st.caption(f"{label}: nothing to cut.")


def _hidden(card: Card, now: Dims, fast: bool) -> list[int]:
    sizes = hidden_choices(card.config, now.heads)
    return [size for size in sizes if size % HIDDEN_STEP == 0 or size == card.dims.hidden] or sizes if fast else sizes


def _setter(key: str, own: int) -> Callable[[int], object]:
    """Set a target; the model's own value is no target."""

    def moved(value: int) -> None:
        update_targets(**{key: None if value == own else value})
        state.redraw()

    return moved


def _set_heads(own: Dims, kv_heads: int, group: int) -> None:
    """Set both; what hidden sizes there are depends on them, so the sliders follow too."""
    heads = kv_heads * group
    update_targets(
        num_attention_heads=None if heads == own.heads else heads, num_key_value_heads=None if kv_heads == own.kv_heads else kv_heads
    )
    state.redraw(state.KNOBS)


def ways_out(card: Card, targets: Targets) -> list[tuple[str, Targets]]:
    """One-click repairs of impossible targets: a label and the targets it leads to."""
    if too_large := {row.key: None for row in card.cuttable if (getattr(targets, row.key) or 0) > row.size}:
        return [("No more than the model has", _with(targets, **too_large))]
    now = resized(card.dims, targets)
    allowed = head_choices(card.dims, now.kv_heads) if now.kv_heads <= card.dims.kv_heads else []
    if allowed and now.heads not in allowed:
        heads = [size for size in nearest_sizes(allowed, now.heads)]
        return [(f"{size} query heads", _with(targets, num_attention_heads=size)) for size in heads]
    sizes = hidden_choices(card.config, now.heads)
    return (
        [(f"Hidden size {size}", _with(targets, hidden_size=size)) for size in nearest_sizes(sizes, now.hidden)]
        if now.hidden not in sizes
        else []
    )


def _with(targets: Targets, **changes: int | None) -> Targets:
    return Targets(**(targets.to_dict() | changes))
