"""What is selected on the importance page, by a gesture on a chart or from the keyboard, and what can be done with it."""

from collections.abc import Callable, Sequence

import numpy as np
import streamlit as st

from app import cached, state
from app.subject import Subject
from core.errors import UserError
from core.plan.pins import NOUNS, units_of, with_pins, written
from core.report.format import percent, plural

Units = list[tuple[int, ...]]
"""Places in an axis' map: ``(layer, number)`` of heads and neurons, ``(number,)`` of layers and channels."""

EXAMPLES = {"layers": "12, 20-23", "heads": "3.0, 4.1-2", "neurons": "4.100-163", "channels": "7, 64-127"}
ACTIONS: dict[str | None, tuple[str, str, str, str]] = {
    "keep": ("Pin to keep", "push_pin", "Alt+K", "It stays, whatever its importance. As many stay as before."),
    "prune": ("Pin to prune", "content_cut", "Alt+X", "It goes, whatever its importance. As many go as before."),
    None: ("Clear pin", "keep_off", "Alt+U", "Let importance decide again."),
}
"""What a pin may say -> label, icon, shortcut, explanation."""


def chosen(subject: Subject, axis: str) -> Units:
    """The selected units that the model has; its first unit if there are none."""
    shape = subject.masks[axis].shape
    kept = [tuple(unit) for unit in state.recall(f"chosen_{axis}", [])]
    return [unit for unit in kept if len(unit) == len(shape) and all(a < b for a, b in zip(unit, shape, strict=True))] or [
        (0,) * len(shape)
    ]


def choose(axis: str, units: Sequence[tuple[int, ...]]) -> None:
    """Select units; nothing changes if there are none."""
    if units:
        state.remember(f"chosen_{axis}", list(units))
        state.remember(f"complaint_{axis}", None)


def drawer(subject: Subject, axis: str, score: np.ndarray, one: Callable[[tuple[int, ...]], None]) -> None:
    """Beside a chart: the selection as a text to edit, what is known of it, and what can be done with it.

    Args:
        one: draws what is known of a single unit.
    """
    units = chosen(subject, axis)
    _field(subject, axis, units)
    if len(units) == 1:
        one(units[0])
    else:
        _sum(subject, axis, score, units)
    actions(subject, axis, units)


def _field(subject: Subject, axis: str, units: Units) -> None:
    """The selection in writing: the keyboard's way to click and to box."""
    mask = np.zeros(subject.masks[axis].shape, bool)
    mask[tuple(np.array(units).T)] = True

    def typed(text: str) -> None:
        try:
            choose(axis, units_of(text, subject.card.dims, axis))
        except UserError as error:
            state.remember(f"complaint_{axis}", f"“{text}”: {error}")

    where = "layer.number" if mask.ndim == 2 else "numbers"
    st.text_input(
        f"Selected {NOUNS[axis]}s", help=f"Click or box on the chart, or type {where}: {EXAMPLES[axis]}.",
        **state.bind(f"chosen_{axis}", ", ".join(written(mask)), typed),
    )  # fmt: skip
    if complaint := state.recall(f"complaint_{axis}"):
        st.error(complaint, icon=":material/error:")


def _sum(subject: Subject, axis: str, score: np.ndarray, units: Units) -> None:
    """What is known of several units together."""
    place = tuple(np.array(units).T)
    finite = np.where(np.isfinite(score), score, 0.0)
    st.metric("Selected", plural(len(units), NOUNS[axis]))
    st.metric("Pruned by the draft", plural(int((~subject.masks[axis][place]).sum()), NOUNS[axis]))
    st.metric("Share of all importance", percent(float(finite[place].sum() / max(finite.sum(), 1e-30))))


def actions(subject: Subject, axis: str, units: Units) -> None:
    """Pin the units or free them: each is a step of the draft, which can be undone."""
    _pins_said(subject.pinned(axis)[tuple(np.array(units).T)])
    for verb, (label, icon, shortcut, help_) in ACTIONS.items():
        # Enabled even where it changes nothing: a button that its own press disables loses the keyboard's focus.
        st.button(
            label, key=f"pin_{axis}_{verb}", icon=f":material/{icon}:", shortcut=shortcut, help=help_, width="stretch",
            on_click=_pin, args=(axis, units, verb),
        )  # fmt: skip


def _pins_said(pinned_N: np.ndarray) -> None:
    """How many of the units are pinned, and how; nothing if none is."""
    for sign, word, icon, colour in ((1, "pinned to stay", "push_pin", "green"), (-1, "pinned to go", "content_cut", "orange")):
        if count := int((pinned_N == sign).sum()):
            st.badge(word if len(pinned_N) == 1 else f"{count} {word}", icon=f":material/{icon}:", color=colour)  # type: ignore[arg-type]


def _pin(axis: str, units: Units, verb: str | None) -> None:
    draft = state.draft()
    dims = cached.card(draft.model).dims
    state.update_draft(pins=with_pins(draft.pins, dims, axis, units, verb))
