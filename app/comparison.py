"""The parts of the comparison: what runs made, side by side, and the same prompt through all of their models."""

import contextlib
import html
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app import cached, charts, live, post_mortem, run_view, samples
from app.tail import follow
from app.ui import plain
from core.errors import UserError
from core.plan.plan import Plan, keep_masks
from core.report import format as fmt
from core.report.compare_figures import kept_picture, passages_picture
from core.report.html import render
from core.report.measures import COSTS, QUALITIES
from core.report.regrowth_figures import ALONG, Regrowth, regrowth_picture
from core.report.run_figures import ROLES, quality_picture, role_title
from core.report.tables import domains_of, model_rows, quality_rows, recovered_of, spec_differences
from core.runs import control
from core.runs.folder import Run
from core.runs.remarks import remarks, title
from core.specs import EvalSpec, RunSpec

MOST = 4
"""Runs that can be compared at once: more do not fit beside each other."""

COMPARED = "w_compared"

ORDINALS = ("A", "B", "C", "D")


def finished_runs() -> dict[str, Run]:
    """Runs with something to compare, newest first."""
    done = (known.run for known in cached.known_runs() if known.spec.kind in ("prune", "distill") and known.status.state == "done")
    return {run.id: run for run in done if run.results()}


def choose(names: Sequence[str]) -> None:
    """Let the page compare these runs when it is next drawn."""
    st.session_state[COMPARED] = list(names)[:MOST]


def chosen(runs: Mapping[str, Run], preferred: str | None) -> list[Run]:
    """Which runs are compared: what the user chose, else what the address names, else ``preferred``, else the newest."""
    asked = st.session_state.get(COMPARED) or [name for name in st.query_params.get("runs", "").split(",") if name]
    missing(runs, asked)
    default = preferred if preferred in runs else next(iter(runs))
    st.session_state[COMPARED] = [name for name in asked if name in runs][:MOST] or ([default] if COMPARED not in st.session_state else [])
    names = st.multiselect("Runs", list(runs), format_func=lambda name: run_view.label(runs[name]), max_selections=MOST, key=COMPARED,
                           persist_state="session", help="Up to four.")  # fmt: skip
    st.query_params["runs"] = ",".join(names)
    return [runs[name] for name in names]


def missing(runs: Mapping[str, Run], asked: Sequence[str]) -> None:
    """Name the runs that cannot be compared though a link, or this page a moment ago, named them."""
    if gone := [plain(name[:40]) for name in asked if name not in runs]:
        st.warning(
            f"{fmt.listed(gone)}: not among the finished runs of this workspace; perhaps deleted, or not finished yet.",
            icon=":material/link_off:",
        )


def names_of(runs: Sequence[Run]) -> list[str]:
    """Short names, for tables and legends: the title, and a letter where there are several."""
    return [title(run) if len(runs) == 1 else f"{ORDINALS[i]}: {title(run)}" for i, run in enumerate(runs)]


def headline(results: Mapping[str, Any]) -> None:
    """The three answers: how much smaller, how much faster, how much of the quality came back."""
    best = "distilled" if results.get("distilled") else "pruned"
    teacher, small, domains = results.get("teacher") or {}, results.get(best) or {}, domains_of(results)
    rows = {row["model"]: row for row in model_rows(results)}
    decode = [(one.get("tokens_per_second") or {}).get("decode") for one in (teacher, small)]
    with st.grid(4, min_column_width=150):
        st.metric(
            "Parameters",
            fmt.count(small.get("parameters")),
            rows.get(role_title(best, results), {}).get("change"),
            delta_color="off",
            delta_arrow="off",
            border=True,
        )
        faster = decode[1] / decode[0] - 1 if decode[0] and decode[1] else None
        st.metric("Decoding speed", fmt.rate(decode[1], "tok/s"), fmt.delta(faster), delta_color="off", delta_arrow="off", border=True)
        for domain in domains[:2]:
            part = recovered_of(results, domain)
            st.metric(
                f"Gap recovered, {domain}",
                fmt.percent(part),
                "of the loss that pruning added",
                delta_color="off",
                delta_arrow="off",
                border=True,
            )


def sizes(runs: Sequence[Run], names: Sequence[str]) -> None:
    """Size and speed, a row a model."""
    st.table(
        _stacked([model_rows(run.results()) for run in runs], names),
        border="horizontal",
        hide_index=True,
        alt="Size and speed of every model",
    )


def quality(runs: Sequence[Run], names: Sequence[str], domain: str) -> None:
    """Table of how well every model predicts one held-out text."""
    rows = _stacked([quality_rows(run.results(), domain) for run in runs], names)
    st.table(rows, border="horizontal", hide_index=True, alt=f"Quality of every model on {domain}")


def trade(runs: Sequence[Run], names: Sequence[str], domain: str) -> None:
    """Quality against cost on axes that the user chooses, with the front of the best trades."""
    with st.container(horizontal=True):
        across = st.selectbox("Cost", list(COSTS), format_func=lambda key: COSTS[key].title, key="w_across", width=260)
        up = st.selectbox("Quality", list(QUALITIES), format_func=lambda key: QUALITIES[key].title, key="w_up", width=260)
    picture = quality_picture(_figured(runs, names), domain, across=across, up=up, palette=live.palette())
    charts.show(picture, "quality")


def worse(runs: Sequence[Run], names: Sequence[str]) -> None:
    """On which held-out passages the models lost most."""
    picture = passages_picture(_figured(runs, names), palette=live.palette())
    st.caption(f"A mark is one passage, a bar the mean of a text. {picture.alt}")
    if not picture.table.empty:
        charts.show(picture, "passages")


def regrown(runs: Sequence[Run], names: Sequence[str], domain: str) -> None:
    """How the distilled runs came closer to their teacher, side by side."""
    found = [
        Regrowth(name.partition(":")[0], run.spec, follow(run, live=False), run.results())
        for run, name in zip(runs, names, strict=True)
        if run.spec.kind == "distill"
    ]
    along = st.segmented_control("Aligned by", list(ALONG), format_func=str.capitalize, default="steps", required=True, key="w_along")
    picture = regrowth_picture(found, domain, along=along, palette=live.palette())
    st.caption(picture.alt)
    if not picture.table.empty:
        charts.show(picture, "regrown")


def kept(runs: Sequence[Run], names: Sequence[str]) -> None:
    """How far the runs kept the same units, layer by layer."""
    masks: dict[str, Any] = {}
    for run, name in zip(runs, names, strict=True):
        with contextlib.suppress(UserError):
            masks[name.partition(":")[0]] = keep_masks(Plan.load(run.path / "plan.npz"))
    if len(masks) < 2:
        st.caption("What was kept can be compared where two of the runs still have their plan.")
    elif len({mask["neurons"].shape + mask["heads"].shape + mask["channels"].shape for mask in masks.values()}) > 1:
        st.caption("These runs cut models of different build, so their units cannot be compared one by one.")
    else:
        picture = kept_picture(masks)
        st.caption(picture.alt)
        charts.show(picture, "kept")


def answers(runs: Sequence[Run], names: Sequence[str]) -> None:
    """The prompts that all runs were asked: the teacher's answer, and that of each run's best model."""
    found = [run.generations() for run in runs]
    prompts = [prompt for prompt in found[0].get("prompts") or [] if all(prompt in (one.get("prompts") or []) for one in found)]
    columns: dict[str, tuple[str, list[str]]] = {}
    for run, one, name in zip(runs, found, names, strict=True):
        said = one.get("answers") or {}
        roles = [role for role in ROLES if said.get(role)]
        for role in roles[:1] + roles[-1:]:
            own = role_title(role, run.results())
            title = own if role == "teacher" else f"{name.partition(':')[0]}: {own.lower()}"
            columns.setdefault(title, (role, [said[role][one["prompts"].index(prompt)] for prompt in prompts]))
    if prompts:
        samples.beside(prompts, columns)
    else:
        st.caption("The runs were not asked a common prompt.")


def _figured(runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    """The runs as figures take them."""
    short = [name.partition(":")[0] if len(runs) > 1 else "" for name in names]
    return [{"name": name, "results": run.results()} for run, name in zip(runs, short, strict=True)]


def _stacked(tables_: Sequence[Sequence[Mapping[str, str]]], names: Sequence[str]) -> pd.DataFrame:
    """Rows of several runs under each other; with several, each row says whose it is. A teacher that all measured alike is named once."""
    if len(names) == 1:
        return pd.DataFrame(tables_[0])
    teachers = [row for table in tables_ for row in table if row["model"] == ROLES["teacher"]]
    alike = all(row == teachers[0] for row in teachers)
    rows: list[dict[str, str]] = []
    for name, table in zip(names, tables_, strict=True):
        for row in table:
            common = alike and row["model"] == ROLES["teacher"]
            whole = {"run": fmt.MISSING if common else name.partition(":")[0]} | dict(row)
            if whole not in rows:
                rows.append(whole)
    return pd.DataFrame(rows)


def recipe(runs: Sequence[Run], names: Sequence[str]) -> None:
    """Settings in which the runs differ, and only those."""
    rows = spec_differences([run.spec.to_dict() for run in runs])
    if not rows:
        st.caption("The runs have the same recipe.")
        return
    table = pd.DataFrame(
        [{"setting": setting} | {name: _said(value) for name, value in zip(names, values, strict=True)} for setting, values in rows]
    )
    st.table(table, border="horizontal", hide_index=True, alt="Settings in which the compared runs differ")


def _said(value: Any) -> str:
    return "as in the model" if value is None else str(value)


def ask(run: Run, prompt: str) -> Run:
    """Start a run that continues ``prompt`` with the run's three models.

    Raises:
        UserError: the run's models are no longer there.
    """
    folders = [run.path / name for name in ("pruned", "model") if (run.path / name / "config.json").exists()]
    if not folders:
        raise UserError(f"The models of {title(run)} are no longer in {run.path}. Start the run again to ask them.")
    spec = RunSpec(
        kind="generate",
        model=run.spec.model,
        against=tuple(map(str, folders)),
        evaluate=EvalSpec(prompts=(prompt,)),
        device=run.spec.device,
    )
    return control.start(spec)


def answer(run_id: str, seconds: float | None) -> None:
    """The answers to one's own prompt, or how long they will take (a fragment, see ``live.watch``)."""
    run = run_view.find(run_id)
    status = control.reconcile(run)
    live.settled(status, seconds)
    if status.live:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f":material/hourglass_top: {status.state}: {status.message or 'the models are being asked'}")
            if st.button("Stop asking", key="stop_asking", type="tertiary"):
                control.cancel(run, keep=False)
                st.rerun()
        return
    post_mortem.card(run, status)
    samples.show(run.generations(), run.results())


def report(run: Run) -> str:
    """The HTML report, made when it is asked for; a page that says why where it cannot be, as the browser saves what it gets."""
    try:
        return render(run, title(run), remarks(run).note)
    except UserError as error:
        return f"<!doctype html><html lang=en><meta charset=utf-8><title>No report</title><p>{html.escape(str(error))}</p></html>"
