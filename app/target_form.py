"""The target sliders: each offers only what can be built, shows the model's own value, and writes into the draft."""

from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from app import state
from app.state import bind
from core.model.card import Card
from core.model.dims import Dims, resized
from core.plan.presets import ffn_choices
from core.plan.sizes import NAMES, head_choices, hidden_choices, nearest_sizes
from core.specs import RankSpec, Targets

HIDDEN_STEP = 8
"""Hidden sizes that are multiples of this are offered as the fast ones, where the heads allow any such."""


@st.fragment(key=state.KNOBS)
def sliders(card: Card) -> None:
    """Draw one slider an axis."""
    draft, own = state.draft(), card.dims
    labels = {
        "layers": f"Layers (model: {own.layers})", "heads": f"Attention heads (model: {own.heads})",
        "kv_heads": f"Key-value heads (model: {own.kv_heads})", "group": f"Query heads a group (model: {own.group})",
        "ffn": f"FFN neurons a layer (model: {own.ffn})", "hidden": f"Hidden size (model: {own.hidden})",
    }  # fmt: skip
    now = sizes_of(own, draft.targets)
    for name, choices in offered(card, draft.targets).items():
        if name == "layers" and len(choices) > 1:
            st.slider(labels[name], 1, own.layers, **bind(name, min(now[name], own.layers), _mover(own, name)))
        elif len(choices) > 1:
            st.select_slider(labels[name], choices, **bind(name, now[name], _mover(own, name)))
        else:
            st.caption(f"{labels[name]}: nothing to cut.")
    st.toggle("Any size that can be loaded", help="Off: only multiples of 64 neurons and of 8 channels, which run fastest.",
              **bind("any_size", state.recall("any_size", False), lambda value: state.remember("any_size", value)))  # fmt: skip
    _rounds(draft.rank)


def offered(card: Card, targets: Targets) -> dict[str, list[int]]:
    """Slider -> the sizes that it offers; the present one is always among them, even where it cannot stay."""
    own, fast, now = card.dims, not state.recall("any_size", False), sizes_of(card.dims, targets)
    heads = {"heads": own.heads} if own.group == 1 else {"kv_heads": own.kv_heads, "group": own.group}
    choices = {name: list(range(1, most + 1)) for name, most in ({"layers": own.layers} | heads).items()}
    choices["ffn"] = ffn_choices(own) if fast else list(range(1, own.ffn + 1))
    choices["hidden"] = _hidden(card, resized(own, targets), fast)
    return {name: sorted({*sizes, now[name]}) for name, sizes in choices.items()}


def sizes_of(own: Dims, targets: Targets) -> dict[str, int]:
    """Slider -> where it stands; one for all heads where each has its own keys, else two."""
    now = resized(own, targets)
    group = min(max(now.heads // now.kv_heads, 1), own.group)
    heads = {"heads": now.heads} if own.group == 1 else {"kv_heads": now.kv_heads, "group": group}
    return {"layers": now.layers, **heads, "ffn": now.ffn, "hidden": now.hidden}


def moved(own: Dims, targets: Targets, name: str, size: int) -> Targets:
    """The targets after a slider's move; the model's own size is no target."""
    sizes = sizes_of(own, targets) | {name: size}
    kv_heads = sizes.get("kv_heads", sizes.get("heads", 0))
    wanted = {
        "layers": {"num_hidden_layers": sizes["layers"]}, "ffn": {"intermediate_size": sizes["ffn"]}, "hidden": {"hidden_size": sizes["hidden"]},
    }.get(name, {"num_attention_heads": kv_heads * sizes.get("group", 1), "num_key_value_heads": kv_heads})  # fmt: skip
    changes = {key: None if value == getattr(own, NAMES[key]) else value for key, value in wanted.items()}
    return replace(targets, **changes)


def _mover(own: Dims, name: str) -> Callable[[int], None]:
    """What a slider's move does. What hidden sizes there are depends on the heads, so after those the sliders follow too."""

    def move(size: int) -> None:
        state.update_draft(targets=moved(own, state.draft().targets, name, size))
        state.redraw(*(() if name in ("layers", "ffn", "hidden") else (state.KNOBS,)))

    return move


def _rounds(rank: RankSpec) -> None:
    """Whether a run cuts at once or bit by bit."""
    st.number_input(
        "Rounds of scoring and cutting", 1, step=1, help="1 cuts at once by the importance that you see. More cut a part, score what is left, "
        "and cut again: a run then takes as many scorings. The Minitron paper found no gain from it.",
        **bind("rounds", rank.rounds, lambda value: state.replace_draft(rank=replace(state.draft().rank, rounds=value))),
    )  # fmt: skip
    if rank.rounds > 1:
        st.caption("What stays is shown as one round would choose it; the run will choose anew after every round.")


def _hidden(card: Card, now: Dims, fast: bool) -> list[int]:
    sizes = hidden_choices(card.config, now.heads)
    return [size for size in sizes if size % HIDDEN_STEP == 0 or size == card.dims.hidden] or sizes if fast else sizes


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
