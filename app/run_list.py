"""The history of runs: found by search, starred, named, noted, opened, compared, deleted and brought back."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import streamlit as st

from app import cached, comparison, run_view, state
from app.cached import KnownRun
from app.ui import plain, tell
from core.errors import UserError
from core.files import tree_bytes
from core.model.embedded import MODEL_NAME
from core.report import format as fmt
from core.report.lineage import Descendant
from core.report.tables import domains_of, recovered_of
from core.runs import control
from core.runs.folder import Run
from core.runs.remarks import MOST_NAME, MOST_NOTE, Remarks, remark, remarks, title
from core.specs import EMBEDDED_MODEL

KINDS = {
    "probe": "Timing", "score": "Importance", "preview": "Draft measured", "search": "Search", "prune": "Pruning", "distill": "Distillation",
    "family": "Family", "evaluate": "Evaluation", "generate": "Answers",
}  # fmt: skip
PAGE = 20
"""Runs that are drawn at first, and added by each press of the button below them."""
CHOSEN = "chosen_runs"


def matching(runs: Sequence[KnownRun], words: str, kinds: Sequence[str], states: Sequence[str], starred: bool) -> list[KnownRun]:
    """Runs that hold all the words (in name, id, model or note), starred ones first; no kinds or states means any."""
    wanted, found = words.lower().split(), []
    for known in runs:
        said = remarks(known.run)
        text = " ".join((title(known.run), known.run.id, known.spec.model, said.note)).lower()
        fits = (not kinds or known.spec.kind in kinds) and (not states or known.status.state in states) and (said.star or not starred)
        if fits and all(word in text for word in wanted):
            found.append((not said.star, known))
    return [known for _, known in sorted(found, key=lambda one: one[0])]


def row(known: KnownRun) -> None:
    """One run: mark, star, name, how it stands, what it found, and what can be done with it."""
    run, said = known.run, remarks(known.run)
    with st.container(border=True), st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _chooser(known)
        st.button(
            ":orange[Starred]" if said.star else "Star", key=f"star_{run.id}", type="tertiary", icon=":material/star:" if said.star else ":material/star_border:",
            on_click=_saying, args=(run, dataclasses.replace(said, star=not said.star)),
        )  # fmt: skip
        with st.container(width="stretch", gap=None):
            icon, colour = run_view.STATES[known.status.state]
            st.markdown(f"**{plain(title(run))}**  :{colour}-badge[:material/{icon}: {known.status.state}]")
            st.caption(_facts(known) + (f"  \n:material/notes: {plain(said.note)}" if said.note else ""))
        if st.button("Open", key=f"open_{run.id}", icon=":material/open_in_new:", type="tertiary"):
            state.set_run_id(run.id)
            state.go("importance" if known.spec.kind == "score" else "distill")
        if st.button("Name and note", key=f"edit_{run.id}", icon=":material/edit:", type="tertiary"):
            edit(run)
        st.button(
            "Delete", key=f"delete_{run.id}", icon=":material/delete:", type="tertiary", disabled=known.status.live,
            help="Stop it first." if known.status.live else None, on_click=_asking, args=((run.id,),),
        )  # fmt: skip


def _chooser(known: KnownRun) -> None:
    """The mark by which several runs are compared or deleted at once."""
    chosen: list[str] = st.session_state.setdefault(CHOSEN, [])

    def changed() -> None:
        st.session_state[CHOSEN] = [name for name in chosen if name != known.run.id] + (
            [known.run.id] if st.session_state[f"pick_{known.run.id}"] else []
        )

    st.checkbox(
        f"Choose {title(known.run)}", value=known.run.id in chosen, key=f"pick_{known.run.id}", on_change=changed, label_visibility="collapsed", width="content"
    )  # fmt: skip


def _facts(known: KnownRun) -> str:
    """When, what, how large, how good, how much room it takes."""
    results = known.run.results()
    when = time.strftime("%d %b %Y, %H:%M", time.localtime(known.status.created))
    small = results.get("distilled") or results.get("pruned") or {}
    facts = [when, KINDS[known.spec.kind], short_name(known.spec.model)]
    facts += [f"{fmt.count(small['parameters'])} parameters"] if small.get("parameters") else []
    for domain in domains_of(results)[:1]:
        part = recovered_of(results, domain)
        facts += [f"{fmt.percent(part)} of the gap recovered"] if part is not None else []
    return " · ".join([*facts, fmt.size(disk_bytes(known))])


def short_name(model: str) -> str:
    """A model's name without where it lies; one that a run made is called by the run."""
    path = Path(model)
    made = path.name in ("model", "pruned") and (path.parent / "spec.json").exists()
    return MODEL_NAME if model == EMBEDDED_MODEL else title(Run(path.parent)) if made else path.name


def disk_bytes(known: KnownRun) -> int:
    """Bytes of a run's folder; counted again when its status was written anew."""
    return _disk_bytes(str(known.run.path), known.status.state, known.status.updated if not known.status.live else None)


@st.cache_data(max_entries=512, ttl=60, show_spinner=False)
def _disk_bytes(path: str, state_: str, updated: float | None) -> int:
    return tree_bytes(Path(path))


def _saying(run: Run, said: Remarks) -> None:
    try:
        remark(run, said)
    except UserError as error:
        tell(str(error), "error")


@st.dialog("Name and note", icon=":material/edit:")
def edit(run: Run) -> None:
    """Give a run a name and a note."""
    said = remarks(run)
    st.text_input(
        "Name", said.name, max_chars=MOST_NAME, placeholder=title(run), key="edit_name", help="Leave it empty for the usual title."
    )
    st.text_area("Note", said.note, max_chars=MOST_NOTE, key="edit_note", placeholder="What was tried, and what came of it.")

    def save() -> None:
        _saying(run, Remarks(name=st.session_state["edit_name"] or "", star=said.star, note=st.session_state["edit_note"] or ""))

    if st.button("Save", type="primary", icon=":material/check:", key="edit_save", on_click=save):
        st.rerun()


ASKED = "asked_delete"


def _asking(names: tuple[str, ...]) -> None:
    st.session_state[ASKED] = names


def asked_to_delete() -> None:
    """Ask once about the runs whose deletion was wished for."""
    names: tuple[str, ...] = st.session_state.pop(ASKED, ())
    if runs := [known for known in cached.known_runs() if known.run.id in names]:
        confirm(runs)


@st.dialog("Move to the trash?", icon=":material/delete:")
def confirm(runs: Sequence[KnownRun]) -> None:
    """Say what goes before it goes."""
    st.markdown("\n".join(f"- **{plain(title(known.run))}**, {fmt.size(disk_bytes(known))}" for known in runs))
    st.caption("With models, checkpoints and results. You can bring them back from the trash; the room is free once you empty it.")
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Keep", key="keep"):
            st.rerun()
        if st.button("Move to the trash", key="delete", type="primary", icon=":material/delete:", on_click=_delete, args=(runs,)):
            st.rerun()


def _delete(runs: Sequence[KnownRun]) -> None:
    """Move runs to the trash; those that cannot go are named and stay."""
    gone = 0
    for known in runs:
        try:
            control.throw_away(known.run)
            gone += 1
        except UserError as error:
            tell(str(error), "error")
    st.session_state[CHOSEN] = []
    if gone:
        tell(f"{fmt.plural(gone, 'run')} in the trash.", "delete")


def actions(runs: Sequence[KnownRun]) -> None:
    """What can be done with the runs that are marked."""
    here = {known.run.id: known for known in runs}
    chosen = [here[name] for name in st.session_state.get(CHOSEN, []) if name in here]
    comparable = [known.run.id for known in chosen if known.spec.kind in ("prune", "distill") and known.status.state == "done"]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            f"{fmt.plural(len(chosen), 'run')} marked." if chosen else "Mark runs to compare up to four, or to delete several at once."
        )
        if st.button("Compare", icon=":material/compare_arrows:", key="compare_chosen", disabled=not 1 <= len(comparable) <= 4,
                     help="One to four finished prunings or distillations."):  # fmt: skip
            comparison.choose(comparable)
            state.go("compare")
        st.button("Delete", icon=":material/delete:", key="delete_chosen", disabled=not chosen or any(known.status.live for known in chosen),
                  help="Runs that are live must be stopped first.", on_click=_asking, args=(tuple(known.run.id for known in chosen),))  # fmt: skip


def trash() -> None:
    """Deleted runs: bring one back, or be rid of them all."""
    folders = control.trash()
    if not folders:
        return
    with st.expander(f"Trash: {fmt.plural(len(folders), 'run')}, {fmt.size(sum(map(tree_bytes, folders)))}", icon=":material/delete:"):
        for folder in folders:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"{plain(title(Run(folder)))} :gray[{folder.name}]", width="stretch")
                st.button("Restore", key=f"restore_{folder.name}", icon=":material/undo:", type="tertiary", on_click=_trying(control.restore), args=(folder.name,))  # fmt: skip
        st.button(
            "Empty the trash",
            key="empty_trash",
            icon=":material/delete_forever:",
            on_click=_empty,
            help="This cannot be undone.",
        )


def _empty() -> None:
    tell(f"{fmt.size(control.empty_trash())} are free again.", "delete_forever")


def _trying(action: Callable[[str], object]) -> Callable[[str], None]:
    def tried(name: str) -> None:
        try:
            action(name)
        except UserError as error:
            tell(str(error), "error")

    return tried


def unreadable() -> None:
    """Folders that look like runs and are none: a sentence for each, and a way on."""
    for path, why in cached.broken_runs():
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/broken_image: **{plain(path.name)}** cannot be read. {plain(why)}", width="stretch")
            st.button("Move to the trash", key=f"scrap_{path.name}", icon=":material/delete:", type="tertiary", on_click=_trying(control.scrap), args=(path.name,))  # fmt: skip


def lineage(runs: Sequence[KnownRun]) -> list[Descendant]:
    """The runs that make models, and the models that they were made from."""
    makers = [known for known in runs if known.spec.kind in ("prune", "distill")]
    models: dict[str, Descendant] = {}
    for known in reversed(makers):
        parent = _maker(known.spec.model, makers)
        if parent is None:
            models.setdefault(known.spec.model, Descendant(key=known.spec.model, parent=None, name=short_name(known.spec.model),
                                                           parameters=(known.run.results().get("teacher") or {}).get("parameters")))  # fmt: skip
        results = known.run.results()
        small, domains = results.get("distilled") or results.get("pruned") or {}, domains_of(results)
        models[known.run.id] = Descendant(
            key=known.run.id, parent=parent or known.spec.model, name=title(known.run), parameters=small.get("parameters"),
            recovered=recovered_of(results, domains[0]) if domains else None, made=known.status.state == "done",
        )  # fmt: skip
    return list(models.values())


def _maker(model: str, runs: Sequence[KnownRun]) -> str | None:
    """The run in whose folder a model lies."""
    path = Path(model).expanduser()
    return next((known.run.id for known in runs if known.run.path in path.parents), None)
