"""Story mode: finished runs told to people who decide. It reads, and starts, stops or deletes nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import streamlit as st

from app import charts, comparison, live, run_list, samples
from core.report import format as fmt
from core.report.run_figures import role_title
from core.report.story import Choice, choices, numbers, story_picture, told
from core.report.tables import domains_of
from core.runs.folder import Run


def stories() -> dict[str, tuple[Mapping[str, Run], list[Choice]]]:
    """Name of an original model -> the finished runs on it that were measured on the same text, and the choices that they leave."""
    groups: dict[tuple[str, object], dict[str, Run]] = {}
    for run in comparison.finished_runs().values():
        results = run.results()
        domain = next(iter(domains_of(results)), None)
        loss = (results.get("teacher") or {}).get("heldout", {}).get(domain, {}).get("loss_nats")
        if loss is not None:
            groups.setdefault((run.spec.model, (domain, round(loss, 6))), {})[run.id] = run
    found: dict[str, tuple[Mapping[str, Run], list[Choice]]] = {}
    for (model, _), runs in sorted(groups.items(), key=lambda group: -len(group[1])):
        name = run_list.short_name(model)
        if len(options := choices({key: run.results() for key, run in runs.items()})) > 1:
            found[name if name not in found else f"{name}, other text ({len(found)})"] = (runs, options)
    return found


def slider(options: Sequence[Choice]) -> int:
    """The one control: from the original to what costs most."""

    def said(i: int) -> str:
        one = options[i]
        return "nothing: the original" if one.role == "teacher" else f"{fmt.percent(1 - (one.agreement or 0))} of next words change"

    start = next((i for i, one in enumerate(options) if one.role == "distilled"), len(options) - 1)
    value = st.select_slider("How much quality may it cost?", list(range(len(options))), value=start, format_func=said, key="story_cost")
    return int(value)


def hero(choice: Choice) -> None:
    """The sentence and the three figures."""
    _hero()(data={"name": "hero", "told": told(choice), "numbers": [asdict(number) for number in numbers(choice)]}, key="hero")


@st.cache_resource
def _hero() -> Callable[..., object]:
    """The component, registered once."""
    js, css = ((Path(__file__).parent / f"hero.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return st.components.v2.component("coppice_hero", html='<div class="hero"></div>\n', js=js, css=css)


def picture(options: Sequence[Choice], chosen: int) -> None:
    """Where the chosen model lies among the measured ones."""
    drawn = story_picture(options, chosen, palette=live.palette())
    charts.show(drawn, "story")
    st.caption("A star is the original, a filled dot a retrained model, a hollow one a model that was only cut. Every mark was measured.")


def words(run: Run, choice: Choice) -> None:
    """The same prompts through the original and the chosen model."""
    answers = run.generations().get("answers") or {}
    roles = [role for role in dict.fromkeys(("teacher", choice.role)) if answers.get(role)]
    if roles:
        names = {"teacher": "The original"} | {
            role: f"The smaller model, {role_title(role, choice.results).lower()}" for role in roles if role != "teacher"
        }
        st.subheader("In their own words", anchor=False)
        samples.beside(run.generations()["prompts"], {names[role]: (role, answers[role]) for role in roles})
