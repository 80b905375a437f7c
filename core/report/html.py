"""A run as one HTML file that needs nothing else: no network, no server, and it prints.

Plotly is inlined once, figures are those of the dashboard in both colour schemes, and every text is escaped, for prompts
and answers may hold anything.
"""

import json
import platform
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from core.files import write_text
from core.report import format as fmt
from core.report.command import command_of
from core.report.curves import Curves
from core.report.picture import Picture
from core.report.run_figures import DARK, LIGHT, ROLES, heldout_picture, quality_picture, references_of, role_title, training_picture
from core.report.run_importance import importance_pictures
from core.report.tables import common_start, domains_of, members_of, model_rows, quality_rows, recovered_of, sentence, spec_rows, title_of
from core.specs import RunSpec

CHROME = {"light": {"ink": "#1f2421", "line": "#dfe3e0"}, "dark": {"ink": "#ecefec", "line": "#343a36"}}
"""What the page's two schemes use for text and lines, so that figures match it."""

LAST_PHASE = "save"

FIGURE_PX = 360
"""Height of a figure that has none of its own."""

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


class ReportedRun(Protocol):
    """What a report needs of a run; ``core.runs.folder.Run`` has it."""

    @property
    def path(self) -> Path: ...
    @property
    def spec(self) -> RunSpec: ...
    def status(self) -> Any: ...
    def events(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]: ...
    def results(self) -> dict[str, Any]: ...
    def generations(self) -> dict[str, Any]: ...


def write_report(run: ReportedRun, path: Path) -> Path:
    """Write the report to ``path`` and return it. See ``render``.

    Raises:
        UserError: the place cannot be written or the disk is full.
    """
    write_text(path, render(run))
    return path


def render(run: ReportedRun, title: str = "", note: str = "") -> str:
    """Make the report's HTML from what the run folder holds, whatever state the run is in.

    Args:
        title: heading, if it shall not be the run's own title.
        note: what somebody wrote about the run.
    """
    status, results, title = run.status(), run.results(), title or title_of(run.spec)
    curves = Curves().extend(run.events(0)[0])
    importance = importance_pictures(results, run.path / "plan.npz")
    sections = (
        [_section("Importance, and what was kept", "importance", [(picture, picture) for picture in importance])] if importance else []
    )
    sections += [_section(title, name, pictures) for title, name, pictures in _run_pictures(title, curves, results)]
    figures = {figure["id"]: figure["schemes"] for section in sections for figure in section["figures"]}
    machine = results.get("machine") or {}
    return ENVIRONMENT.get_template("template.html.j2").render(
        title=title,
        sentence=sentence(results),
        about=_about(status, results),
        note=note,
        problem=status.error,
        models=model_rows(results),
        machine_name=machine.get("name") or machine.get("cpu") or "this machine",
        quality=[(domain, quality_rows(results, domain)) for domain in domains_of(results)],
        recovered={domain: fmt.percent(part) if (part := recovered_of(results, domain)) is not None else None for domain in domains_of(results)},
        sections=sections,
        samples=_samples(run.generations(), run.results()),
        recipe=_recipe(run.spec),
        provenance=_provenance(run, status, results),
        command=command_of(run.spec),
        figures=figures,
        plotly_js=Markup(get_plotlyjs()) if figures else "",
        figures_json=Markup(json.dumps(figures).replace("<", "\\u003c")),
    )  # fmt: skip


def _run_pictures(title: str, curves: Curves, results: Mapping[str, Any]) -> list[tuple[str, str, list[tuple[Picture, Picture]]]]:
    """Sections of figures, each figure in light and dark."""
    references, found = references_of(results), []

    def both(draw: Any) -> tuple[Picture, Picture]:
        return draw(LIGHT), draw(DARK)

    regrowth = []
    if curves.heldout:
        regrowth.append(both(lambda palette: heldout_picture(curves, references, estimated="glance" not in results, palette=palette)))
    if curves.steps:
        regrowth.append(both(lambda palette: training_picture(curves, palette=palette)))
    if regrowth:
        found.append(("Distillation", "distillation", regrowth))
    if results.get("pruned") or results.get("members"):
        shown = members_of(results) or [{"name": title, "results": results}]
        quality = [both(lambda palette, domain=domain: quality_picture(shown, domain, palette=palette)) for domain in domains_of(results)]
        found.append(("Quality against size", "quality", quality))
    return found


def _section(title: str, name: str, pictures: list[tuple[Picture, Picture]]) -> dict[str, Any]:
    """A heading with its figures, ready for the template."""
    return {
        "title": title,
        "figures": [
            {"id": f"{name}-{i}", "alt": light.alt, "height": light.figure.layout.height or FIGURE_PX, "schemes": {"light": _chromed(light.figure, "light"), "dark": _chromed(dark.figure, "dark")}}
            for i, (light, dark) in enumerate(pictures)
        ],
    }  # fmt: skip


def _chromed(figure: go.Figure, scheme: str) -> dict[str, Any]:
    """A figure's JSON with the page's own text and line colours."""
    ink, line, palette = CHROME[scheme]["ink"], CHROME[scheme]["line"], LIGHT if scheme == "light" else DARK
    copy = go.Figure(figure).update_layout(
        template="none", colorway=[palette.distilled, palette.pruned], paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"color": ink, "size": 13},
        hoverlabel={"bgcolor": "#ffffff" if scheme == "light" else "#1d211e", "font": {"color": ink}},
    )  # fmt: skip
    copy.update_xaxes(gridcolor=line, linecolor=line).update_yaxes(gridcolor=line, linecolor=line)
    data: dict[str, Any] = json.loads(copy.to_json())
    return data


def _samples(generations: Mapping[str, Any], results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every prompt with the answers to it, each split where it leaves the teacher's."""
    answers = generations.get("answers") or {}
    samples = []
    for i, prompt in enumerate(generations.get("prompts") or []):
        teacher = answers["teacher"][i] if "teacher" in answers else None
        row = []
        for role in (role for role in ROLES if role in answers):
            text = answers[role][i]
            shared = len(text) if teacher is None else common_start(teacher, text)
            row.append({"role": role_title(role, results), "same": text[:shared], "rest": text[shared:]})
        samples.append({"prompt": prompt, "answers": row})
    return samples


def _about(status: Any, results: Mapping[str, Any]) -> str:
    """When it ran and how it ended."""
    when = datetime.fromtimestamp(status.created).strftime("%d %B %Y, %H:%M")
    seconds = sum((results.get("seconds") or {}).values())
    last_deed = status.state == "running" and status.phase == LAST_PHASE  # a run writes its report before it is done
    ended = "" if last_deed else f" State: {status.state}."
    return f"Made on {when}" + (f" in {fmt.duration(seconds)}" if seconds else "") + "." + ended


def _provenance(run: ReportedRun, status: Any, results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the numbers come from: run, machine, versions, times."""
    machine = dict(results.get("machine") or {"platform": platform.platform()})
    if "memory_bytes" in machine:
        machine["memory"] = fmt.size(machine.pop("memory_bytes"))
    rows = {"run": run.path.name, "device": status.device} | {name: _plain(value) for name, value in machine.items()}
    times = {f"time, {phase}": fmt.duration(seconds) for phase, seconds in (results.get("seconds") or {}).items()}
    return list((rows | times).items())


def _recipe(spec: RunSpec) -> list[tuple[str, str, bool]]:
    """Every setting: name, value, and whether it differs from the default."""
    usual = dict(spec_rows(RunSpec(kind=spec.kind).to_dict()))
    return [(name, _setting(name, value), value != usual[name]) for name, value in spec_rows(spec.to_dict())]


def _setting(name: str, value: Any) -> str:
    """A setting of the recipe as text."""
    if value is None:
        return "as in the model" if name.startswith("targets.") else "none"
    return _plain(value)


def _plain(value: Any) -> str:
    """Any JSON value as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return "; ".join(_plain(item) for item in value) or "none"
    return str(value)
