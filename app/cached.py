"""The only place with caches: what the pages read again and again, each bounded, each keyed by all that determines it."""

import contextlib
import dataclasses
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from app.state import Draft
from core.data import blocks
from core.data.blocks import Blocks
from core.errors import UserError
from core.evaluate import store as measurements
from core.model import card as cards
from core.model.card import Card
from core.model.cost import Cost, cost_of
from core.model.dims import Dims, dims_of, resized
from core.model.source import config_path, fingerprint
from core.plan.outlook import Outlook
from core.plan.plan import Plan, keep_masks, make_plan
from core.plan.presets import Preset
from core.plan.presets import presets as find_presets
from core.runs.folder import Run, RunGone, all_runs
from core.runs.status import Status
from core.score import confidence as confidences
from core.score import store
from core.score.agreement import ranks
from core.score.confidence import Agreement, Confidence, rows
from core.score.criteria.registry import find as find_criterion
from core.score.passes import wanted as wanted_passes
from core.score.store import Scores
from core.search.space import candidates
from core.specs import (
    EMBEDDED_MODEL,
    EMBEDDED_TEXTS,
    MIX,
    DataSpec,
    Pins,
    RankSpec,
    RunSpec,
    ScoreSpec,
    SearchSpec,
    Targets,
    TextSpec,
)
from core.workspace import home, room

BEING_MADE_SECONDS = 10
"""How long a run's folder may be without its spec."""

RETRY_SECONDS = 60
"""A model id that the hub did not give is asked for again after this time, not at every click."""


def card(model: str) -> Card:
    """A model's card.

    Raises:
        UserError: there is no such model, or its config is unusable.
    """
    found = _card_or_complaint(model, str(home()), _stamp(model))
    if isinstance(found, str):
        raise UserError(found)
    return found


@st.cache_resource(max_entries=32, ttl=RETRY_SECONDS, show_spinner="Reading the model's configuration")
def _card_or_complaint(model: str, workspace: str, stamp: int | None) -> Card | str:
    try:
        return cards.card(model)
    except UserError as error:
        return str(error)


def _stamp(model: str) -> int | None:
    """When a local model's config.json last changed; None for a hub model, 0 if there is none."""
    if model != EMBEDDED_MODEL and not Path(model).expanduser().is_dir():
        return None
    try:
        return config_path(model).stat().st_mtime_ns
    except (UserError, FileNotFoundError):
        return 0


def must_fetch(model: str) -> bool:
    """Whether this is the embedded model and it is not here yet."""
    return model == EMBEDDED_MODEL and not _stamp(model)


def _place(draft: Draft) -> tuple[str, str | None]:
    """Fingerprint of the draft's weights, and hash of its calibration tokens if blocks of its text as it is now are made.

    Raises:
        UserError: there is no such model.
    """
    folder = card(draft.model).folder
    weights = fingerprint(folder)
    made = _blocks(draft.data, folder)
    if made is None or _changed_since(draft.data.text, made.meta["created"]):
        return weights, None
    return weights, made.meta["sets"]["calibration"]["fingerprint"]


def _blocks(data: DataSpec, folder: Path) -> Blocks | None:
    """The blocks that are made for a text by a model's tokenizer; looked for again only once either could have changed."""
    tokenizer = [(path.name, path.stat().st_mtime_ns) for path in sorted(folder.glob("tokenizer*"))]
    return _found_blocks(data, folder, tokenizer, str(room("blocks")), room("blocks").stat().st_mtime_ns) if tokenizer else None


@st.cache_resource(max_entries=16, show_spinner=False)
def _found_blocks(data: DataSpec, folder: Path, tokenizer: list[tuple[str, int]], place: str, changed: int) -> Blocks | None:
    return blocks.find(data, folder)


def find_scores(draft: Draft) -> Scores | None:
    """The stored scores of the draft's model as its weights are now, on the draft's calibration text as it is now, or None.

    They are looked up by the tokens themselves where blocks were made for the draft's text settings, else by those settings.
    """
    try:
        weights, text = _place(draft)
    except UserError:
        return None
    if text is not None:
        found = store.find(weights, text, draft.score)
        return _scores(str(found.folder)) if found else None
    wanted = _score_settings(draft.data, draft.score)
    for found in store.all_scores():
        settings = _score_settings(DataSpec.from_dict(found.meta["data"]), ScoreSpec.from_dict(found.meta["score"]))
        fresh = not _changed_since(draft.data.text, found.meta["created"]) and found.meta["model_fingerprint"] == weights
        if settings == wanted and fresh and all(store.pass_file(name).exists() for name in found.meta["passes"].values()):
            return _scores(str(found.folder))
    return None


def scores_of_model(draft: Draft) -> list[Scores]:
    """Stored scores of the draft's model as its weights are now, on whatever text and with whatever settings, newest first."""
    try:
        weights = fingerprint(card(draft.model).folder)
    except UserError:
        return []
    return [scores for scores in store.all_scores() if scores.meta["model_fingerprint"] == weights]


@st.cache_data(max_entries=256, show_spinner=False)
def pass_seconds(key: str) -> float | None:
    """How long a stored pass took to compute; None if it is gone."""
    try:
        with np.load(store.pass_file(key)) as file:
            return float(file["seconds"])
    except (OSError, KeyError, ValueError):
        return None


def _score_settings(data: DataSpec, score: ScoreSpec) -> tuple[DataSpec, ScoreSpec]:
    """What of the specs determines a score: all but the batch size and the texts that are only measured on."""
    return dataclasses.replace(data, elsewhere=()), dataclasses.replace(score, batch_size=1)


def made_passes(draft: Draft) -> set[str]:
    """Names of the passes that the draft asks for and that are stored already, for its weights and its text as they are now."""
    try:
        weights, text = _place(draft)
    except UserError:
        return set()
    if text is None:
        return set()
    keys = {item.name: store.pass_key(weights, text, item, draft.score) for item in wanted_passes(draft.score)}
    return {name for name, key in keys.items() if store.pass_file(key).exists()}


def _changed_since(text: TextSpec, moment: float) -> bool:
    """Whether a local text was written after ``moment``."""
    path = Path(text.source).expanduser()
    return text.source not in (*EMBEDDED_TEXTS, MIX) and path.is_file() and path.stat().st_mtime > moment


@st.cache_resource(max_entries=4)
def _scores(folder: str) -> Scores:
    """Opened scores; shared by all sessions, and nobody writes to them."""
    return store.load(Path(folder).name)


def _essence(axis: str, rank: RankSpec, removed: int, name: str | None = None) -> tuple[RankSpec, int]:
    """What of a ranking the importance of an axis depends on, so that equal questions find the same answer in a cache.

    Args:
        name: the criterion; None for all of them.
    """
    bare = dataclasses.replace(RankSpec(), batch=rank.batch, sequence=rank.sequence)
    if axis == "layers":
        bare = dataclasses.replace(RankSpec(), protect_first=rank.protect_first, protect_last=rank.protect_last)
    elif name is not None and not find_criterion(axis, name).aggregated:
        bare = RankSpec()
    return bare if name is None else bare.by(axis, name), removed if axis == "layers" else 1


@dataclass(frozen=True)
class Remembered:
    """Scores whose importance is computed once for all the plans that are made of it. Their key stands for all that is in them."""

    key: str
    scores: Scores = field(compare=False)

    @property
    def dims(self) -> Dims:
        """Dimensions of the scored model."""
        return self.scores.dims

    def importance(self, axis: str, rank: RankSpec, removed: int = 1) -> np.ndarray:
        """See ``importance``."""
        return importance(self.scores, axis, rank, removed)


def importance(scores: Scores, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    """Importance of an axis' units; see ``Scores.importance``. All who ask get the same array, and nobody can write to it.

    Raises:
        UserError: the criterion does not exist, or was not measured.
    """
    return _importance(Remembered(scores.key, scores), axis, *_essence(axis, rank, removed, rank.criterion(axis)))


# Not Streamlit's cache, here and for plans: its keys and copies would take a slider's move longer than the answer itself.
@lru_cache(maxsize=16)
def _importance(known: Remembered, axis: str, rank: RankSpec, removed: int) -> np.ndarray:
    return _shared(known.scores.importance(axis, rank, removed))


def _shared(array: np.ndarray) -> np.ndarray:
    """The same numbers, which nobody can write to."""
    array = array.view()
    array.flags.writeable = False
    return array


def confidence(scores: Scores, axis: str, rank: RankSpec, removed: int) -> Confidence | None:
    """How sure a criterion is, or None where that cannot be told."""
    try:
        return _confidence(scores, scores.key, axis, *_essence(axis, rank, removed, rank.criterion(axis)))
    except UserError:
        return None


@st.cache_data(max_entries=32, show_spinner=False)
def _confidence(_scores: Scores, key: str, axis: str, rank: RankSpec, removed: int) -> Confidence:
    return confidences.confidence(_scores, axis, rank, removed)


def undecided_heads(scores: Scores, rank: RankSpec, groups: int, kept_groups: int, kept_of_group: int) -> np.ndarray | None:
    """See ``core.score.confidence.undecided_heads``; None where that cannot be told."""
    try:
        return _undecided_heads(scores, scores.key, _essence("heads", rank, 1, rank.heads)[0], groups, kept_groups, kept_of_group)
    except UserError:
        return None


@st.cache_data(max_entries=32, show_spinner=False)
def _undecided_heads(_scores: Scores, key: str, rank: RankSpec, groups: int, kept_groups: int, kept_of_group: int) -> np.ndarray:
    return confidences.undecided_heads(_scores, rank, groups, kept_groups, kept_of_group)


def agreement(scores: Scores, axis: str, rank: RankSpec, kept_count: int, removed: int) -> Agreement:
    """How alike all criteria of an axis are; see ``core.score.confidence.agreement``."""
    return _agreement(scores, scores.key, axis, *_essence(axis, rank, removed), kept_count)


@st.cache_data(max_entries=32, show_spinner="Comparing the criteria")
def _agreement(_scores: Scores, key: str, axis: str, rank: RankSpec, removed: int, kept_count: int) -> Agreement:
    return confidences.agreement(_scores, axis, rank, kept_count, removed)


def all_ranks(scores: Scores, axis: str, rank: RankSpec, removed: int) -> dict[str, np.ndarray]:
    """Ranks ``[rows, units]`` of an axis under every criterion that can be answered; see ``core.score.agreement.ranks``."""
    return _all_ranks(scores, scores.key, axis, *_essence(axis, rank, removed))


@st.cache_data(max_entries=8, show_spinner=False)
def _all_ranks(_scores: Scores, key: str, axis: str, rank: RankSpec, removed: int) -> dict[str, np.ndarray]:
    found = {}
    for name in _scores.offered(axis):
        with contextlib.suppress(UserError):
            found[name] = ranks(rows(_scores.importance(axis, rank.by(axis, name), removed))).astype(np.int32)
    return found


def plan(scores: Scores, draft: Draft) -> Plan:
    """What the draft keeps; the scores' key names the weights, and with them the config.

    Raises:
        UserError: targets or pins are not possible.
    """
    return _plan(Remembered(scores.key, scores), draft.model, draft.targets, draft.rank, draft.pins)


@lru_cache(maxsize=64)
def _plan(known: Remembered, model: str, targets: Targets, rank: RankSpec, pins: Pins) -> Plan:
    return make_plan(known, card(model).config, targets, rank, pins)


def masks(scores: Scores, draft: Draft) -> dict[str, np.ndarray]:
    """What the draft keeps, as booleans over the uncut model; see ``keep_masks``.

    Raises:
        UserError: targets or pins are not possible.
    """
    return _masks(Remembered(scores.key, scores), draft.model, draft.targets, draft.rank, draft.pins)


@lru_cache(maxsize=16)
def _masks(known: Remembered, model: str, targets: Targets, rank: RankSpec, pins: Pins) -> dict[str, np.ndarray]:
    return {axis: _shared(mask) for axis, mask in keep_masks(_plan(known, model, targets, rank, pins)).items()}


def outlook(scores: Scores, draft: Draft) -> Outlook:
    """What every cut under the draft's ranking and pins would keep."""
    return _outlook(Remembered(scores.key, scores), draft.rank, draft.pins)


@lru_cache(maxsize=4)
def _outlook(known: Remembered, rank: RankSpec, pins: Pins) -> Outlook:
    return Outlook(known, rank, pins)


def measured(draft: Draft, masks: dict[str, np.ndarray]) -> dict[str, dict[str, measurements.Figures]] | None:
    """Figures of ``teacher`` and ``draft`` on every held-out text, if they were measured for what the draft keeps; see ``core.evaluate``."""
    folder = card(draft.model).folder
    made = _blocks(draft.data, folder)
    if made is None or _changed_since(draft.data.text, made.meta["created"]):
        return None
    texts, weights = _token_hashes(made.fingerprint, str(home())), fingerprint(folder)
    whats = {"teacher": measurements.TEACHER, "draft": measurements.kept(masks)}
    found = {role: measurements.find_all(weights, texts, what) for role, what in whats.items()}
    return None if None in found.values() else found  # type: ignore[return-value]


@st.cache_data(max_entries=32, show_spinner=False)
def _token_hashes(key: str, workspace: str) -> dict[str, str]:
    """Held-out text -> name of its tokens, of made blocks."""
    return {name: measurements.tokens_hash(blocks_NT) for name, blocks_NT in blocks.load(key).heldout.items()}


@st.cache_data(max_entries=16, show_spinner=False)
def presets(config: dict[str, Any]) -> tuple[Preset, ...]:
    """The presets that a model allows; finding them counts some hundred candidates."""
    return find_presets(config)


@st.cache_data(max_entries=64, show_spinner=False)
def pool_size(config: dict[str, Any], spec: SearchSpec) -> int | str:
    """How many sizes a search has to choose from, or why there is none."""
    try:
        return len(candidates(config, spec))
    except UserError as error:
        return str(error)


def cost(config: dict[str, Any], targets: Targets) -> Cost:
    """What the model costs when cut to ``targets``: plain arithmetic, a few milliseconds."""
    return cost_of(config, resized(dims_of(config), targets))


@dataclass(frozen=True)
class KnownRun:
    """A run as it stood at one look."""

    run: Run
    spec: RunSpec
    status: Status


def known_runs() -> list[KnownRun]:
    """All runs newest first, each looked at once; those that were just deleted or cannot be understood are passed over."""
    found = []
    for run in all_runs():
        with contextlib.suppress(UserError):
            known = _run(str(run.path))
            found.append(KnownRun(known, known.spec, known.status()))
    return found


def broken_runs() -> list[tuple[Path, str]]:
    """Folders among the runs that cannot be read as one, with the reason. A run that is just being made is none of them."""
    found, now = [], time.time()
    for path in sorted(room("runs").iterdir()):
        if not path.name.startswith(".") and path.is_dir():
            try:
                Run(path).require()
                _ = Run(path).spec
            except RunGone:
                with contextlib.suppress(FileNotFoundError):
                    if now - path.stat().st_mtime > BEING_MADE_SECONDS:
                        found.append((path, "It has no spec.json, so what was run is not known."))
            except UserError as error:
                found.append((path, str(error)))
    return found


@st.cache_resource(max_entries=512)
def _run(path: str) -> Run:
    """A run whose spec, which never changes, is read once."""
    return Run(Path(path))
