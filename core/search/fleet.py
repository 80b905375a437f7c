"""Candidates measured side by side by Ray: on the devices of this machine, or on the cluster that ``RAY_ADDRESS`` names.

Ray is optional, and nothing else of Coppice knows of it. Every worker loads the uncut model once and measures one plan after the
other by masks; figures come back in the order of the plans and are stored here, so a search that was cut off goes on as ever.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError
from core.evaluate import store
from core.evaluate.preview import Previewer
from core.evaluate.store import Figures
from core.plan.plan import Plan, keep_masks
from core.workspace import ROOT, home

PACKAGE = "ray==2.60.0"
"""What to install; the version that the tests run with."""


class Worker:
    """What Ray runs somewhere: a previewer that hands its figures back."""

    def __init__(self, folder: str, texts: Mapping[str, np.ndarray], device: str) -> None:
        """Open nothing yet; ``folder`` is where the worker's machine finds the uncut checkpoint."""
        self.previewer = Previewer(Path(folder), texts, device=device)

    def plan(self, plan: Plan) -> dict[str, Figures]:
        """See ``core.evaluate.preview.Previewer.plan``."""
        return self.previewer.plan(plan)


ANSWER_SECONDS = 10
"""How long a cluster may take to answer."""

Measure = Callable[[Sequence[Plan]], Iterator[dict[str, Figures]]]


@contextlib.contextmanager
def measuring(previewer: Previewer, workers: int) -> Iterator[Measure]:
    """What measures plans on the previewer's texts, in their order: this process, or so many workers.

    Raises:
        UserError: see ``fleet``.
    """
    if workers == 1:
        yield lambda plans: (previewer.plan(plan) for plan in plans)
    else:
        with fleet(previewer, workers) as many:
            yield many.plans


@contextlib.contextmanager
def fleet(previewer: Previewer, workers: int) -> Iterator["Fleet"]:
    """Start so many workers for what ``previewer`` measures, and let them go in the end.

    Raises:
        UserError: Ray is not installed, or no cluster answers at ``RAY_ADDRESS``.
    """
    ray = _ray()
    with _connected(ray):
        actor = ray.remote(max_restarts=2, max_task_retries=2, **_share(ray, workers))(Worker)
        yield Fleet(ray, [actor.remote(str(previewer.folder), dict(previewer.texts), previewer.device) for _ in range(workers)], previewer)


class Fleet:
    """Measures plans as a ``Previewer`` does, several at once."""

    def __init__(self, ray: Any, actors: Sequence[Any], previewer: Previewer) -> None:
        self.ray, self.actors, self.previewer = ray, actors, previewer

    def plans(self, plans: Sequence[Plan]) -> Iterator[dict[str, Figures]]:
        """Figures of every plan on every text, in the order of the plans; those that are stored cost nothing.

        Raises:
            UserError: a worker ended for good, or could not measure.
        """
        known = [self.previewer.stored(store.kept(keep_masks(plan))) for plan in plans]
        pool = self.ray.util.ActorPool(self.actors)
        new = pool.map(lambda actor, plan: actor.plan.remote(plan), [p for p, figures in zip(plans, known, strict=True) if figures is None])
        for plan, figures in zip(plans, known, strict=True):
            yield figures if figures is not None else self._stored(plan, self._next(new))

    def _next(self, new: Iterator[dict[str, Figures]]) -> dict[str, Figures]:
        try:
            return next(new)
        except self.ray.exceptions.RayError as error:
            cause = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
            raise UserError(
                f"A worker of the search could not measure a candidate: {cause} What was measured stays: resume the run."
            ) from error

    def _stored(self, plan: Plan, found: dict[str, Figures]) -> dict[str, Figures]:
        """Keep what came from another process, which may have a disk of its own."""
        for name, figures in found.items():
            store.save(self.previewer.weights, self.previewer.tokens[name], store.kept(keep_masks(plan)), figures)
        return found


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise UserError(
            f"Measuring candidates side by side (search.workers above 1) needs Ray, which is not installed: pip install {PACKAGE}. "
            "Or set search.workers to 1."
        ) from error
    return ray


@contextlib.contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """A connection to the cluster that ``RAY_ADDRESS`` names, or a cluster on this machine for as long as it is needed."""
    _require_answer(os.environ.get("RAY_ADDRESS", ""))
    ray.init(
        include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        runtime_env={"env_vars": {"COPPICE_WORKSPACE": str(home()), "PYTHONPATH": str(ROOT)}},
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Refuse an address at which nobody listens at once: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # none, or ``auto``, or ``local``
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise UserError(f"No Ray cluster answers at RAY_ADDRESS={address}: {error}. Start one there, or unset it.") from error


def _share(ray: Any, workers: int) -> dict[str, float]:
    """What of the cluster a worker takes: an accelerator where there is one for each, its part of the cores otherwise."""
    found = ray.cluster_resources()
    return {
        "num_cpus": max(1, int(found.get("CPU", 1) // workers)),
        "num_gpus": 1 if found.get("GPU", 0) >= workers else 0,
    }
