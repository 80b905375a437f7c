"""Work on candidates side by side by Ray: on the devices of this machine, or on the cluster that ``RAY_ADDRESS`` names.

Ray is optional, and nothing else of Coppice knows of it. A task is a function of a previewer: it measures a plan, makes a finalist or
trains one for a round. Every worker loads the uncut model once and does one task after the other; what they find comes back in the
order of the tasks, and whatever is to last is stored here or lies in the workspace, so a search that was cut off goes on as ever.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from core.errors import UserError
from core.evaluate import store
from core.evaluate.preview import Previewer
from core.evaluate.store import Figures
from core.plan.plan import Plan, keep_masks
from core.workspace import ROOT, home

PACKAGE = "ray==2.60.0"
"""What to install; the version that the tests run with."""

ANSWER_SECONDS = 10
"""How long a cluster may take to answer."""
HEED_SECONDS = 2.0
"""How often a wish to stop is looked for while workers work."""
WAITING = "waiting"
"""The phase that is told meanwhile."""


T = TypeVar("T")


class Each(Protocol):
    """Does tasks, and gives what they return, in their order."""

    def __call__(self, tasks: Sequence[Callable[[Previewer], T]]) -> Iterator[T]:
        """Begin; an iterator that is left early leaves tasks undone."""


@contextlib.contextmanager
def doing(previewer: Previewer, workers: int) -> Iterator[Each]:
    """What does tasks with a previewer like this: this process, one after the other, or so many workers.

    Raises:
        UserError: see ``fleet``.
    """
    if workers == 1:
        yield lambda tasks: (task(previewer) for task in tasks)
    else:
        with fleet(previewer, workers) as many:
            yield many.each


def measured(plans: Sequence[Plan], previewer: Previewer, each: Each) -> Iterator[dict[str, Figures]]:
    """Figures of every plan on every text of the previewer, in the order of the plans; those that are stored cost nothing."""
    known = [previewer.stored(store.kept(keep_masks(plan))) for plan in plans]
    new = each([partial(Previewer.plan, plan=plan) for plan, figures in zip(plans, known, strict=True) if figures is None])
    for plan, figures in zip(plans, known, strict=True):
        yield figures if figures is not None else _stored(previewer, plan, next(new))


def _stored(previewer: Previewer, plan: Plan, found: dict[str, Figures]) -> dict[str, Figures]:
    """Keep what came from another process, which may have a disk of its own."""
    for name, figures in found.items():
        store.save(previewer.weights, previewer.tokens[name], store.kept(keep_masks(plan)), figures)
    return found


class Worker:
    """What Ray runs somewhere: a previewer, and whoever needs it."""

    def __init__(self, folder: str, texts: Mapping[str, np.ndarray], device: str) -> None:
        """Open nothing yet; ``folder`` is where the worker's machine finds the uncut checkpoint."""
        self.previewer = Previewer(Path(folder), texts, device=device)

    def do(self, task: Callable[[Previewer], T]) -> T:
        """Do one task."""
        return task(self.previewer)


@contextlib.contextmanager
def fleet(previewer: Previewer, workers: int) -> Iterator["Fleet"]:
    """Start so many workers with previewers like this one, and let them go in the end, with whatever they still do.

    Raises:
        UserError: Ray is not installed, or no cluster answers at ``RAY_ADDRESS``.
    """
    ray = _ray()
    with _connected(ray):
        actor = ray.remote(max_restarts=2, max_task_retries=2, **_share(ray, workers))(Worker)
        yield Fleet(ray, [actor.remote(str(previewer.folder), dict(previewer.texts), previewer.device) for _ in range(workers)], previewer)


class Fleet:
    """Workers that do several tasks at once."""

    def __init__(self, ray: Any, actors: Sequence[Any], previewer: Previewer) -> None:
        self.ray, self.actors, self.previewer = ray, actors, previewer

    def each(self, tasks: Sequence[Callable[[Previewer], T]]) -> Iterator[T]:
        """See ``Each``.

        Raises:
            UserError: a worker ended for good, or could not do its task.
            Stopped: the previewer's progress asked for it.
        """
        pool = self.ray.util.ActorPool(self.actors)
        for task in tasks:
            pool.submit(lambda actor, task: actor.do.remote(task), task)
        while pool.has_next():
            yield self._next(pool)

    def _next(self, pool: Any) -> Any:
        while True:
            self.previewer.progress.step(WAITING, 0, 1)
            try:
                return pool.get_next(timeout=HEED_SECONDS)
            except self.ray.exceptions.RayError as error:  # before the other: what a task raised is both
                cause = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
                raise UserError(
                    f"A worker of the search could not finish a candidate: {cause} What was finished stays: resume the run."
                ) from error
            except TimeoutError:
                continue


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise UserError(
            f"Working on candidates side by side (search.workers above 1) needs Ray, which is not installed: pip install {PACKAGE}. "
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
