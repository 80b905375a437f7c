"""A worker whose steps count instead of pruning; the run's name says how it behaves. ``python -m tests.runs.counting <run folder>``."""

import sys
import time
from pathlib import Path

from core.errors import UserError
from core.files import write_text
from core.progress import Progress
from core.runs.control import launch, resume, start
from core.runs.folder import Run, find
from core.runs.worker import Step, work
from core.specs import RunSpec

COMMAND = (sys.executable, "-m", "tests.runs.counting")
TICK_SECONDS = 0.02


def spec(behaviour: str, *, device: str = "auto") -> RunSpec:
    """``20`` counts to 20; any name of ``BEHAVIOURS`` does that; further words only make the spec another one."""
    return RunSpec(name=behaviour, device=device)


def begin(behaviour: str, *, device: str = "auto") -> Run:
    return start(spec(behaviour, device=device), command=COMMAND)


def go_on(run: Run) -> None:
    resume(run, command=COMMAND)


def launch_again(run: Run) -> None:
    launch(run, command=COMMAND)


def wait_for(run: Run, *states: str, seconds: float = 30.0) -> None:
    """Wait until the run is in one of ``states``."""
    end = time.monotonic() + seconds
    while run.status().state not in states:
        assert time.monotonic() < end, f"{run.status()}\n{run.log_tail()}"
        time.sleep(0.02)


def wait_until_counting(run: Run) -> None:
    """Wait until the run has finished a unit, so that whatever comes next comes in mid-work."""
    end = time.monotonic() + 30.0
    while not counted(run):
        assert time.monotonic() < end, f"{run.status()}\n{run.log_tail()}"
        time.sleep(0.02)


def wait_until_asleep(run: Run) -> None:
    """Wait until a deaf worker will hear nothing any more; right after its counting it still would."""
    end = time.monotonic() + 30.0
    while not (run.path / "asleep").exists():
        assert time.monotonic() < end, f"{run.status()}\n{run.log_tail()}"
        time.sleep(0.02)


def counted(run: Run) -> list[int]:
    return [event["done"] for event in run.events()[0] if event.get("phase") == "distill"]


def count(run: Run, progress: Progress) -> None:
    """Count on from what is on disk, as a trainer goes on from its checkpoint."""
    total, reached = int(run.spec.name.split()[0]), run.path / "checkpoints" / "reached"
    first = int(reached.read_text()) + 1 if reached.exists() else 1
    for done in range(first, total + 1):
        time.sleep(TICK_SECONDS)
        write_text(reached, str(done))
        progress.step("distill", done, total, loss=1 / done)
    write_text(run.path / "model" / "weights", "w" * 1000)


def deaf(run: Run, progress: Progress) -> None:
    progress.step("distill", 1, 2)
    (run.path / "asleep").touch()
    time.sleep(600)


def deaf_while_saving(run: Run, progress: Progress) -> None:
    with run.saving():
        deaf(run, progress)


def exhaust(run: Run, progress: Progress) -> None:
    print("the worker's own words")
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")


def refuse(run: Run, progress: Progress) -> None:
    raise UserError("The text is shorter than one block. Name a longer one.")


BEHAVIOURS: dict[str, Step] = {"deaf": deaf, "deaf-while-saving": deaf_while_saving, "exhaust": exhaust, "refuse": refuse}


if __name__ == "__main__":
    run = find(sys.argv[1])
    assert Path(sys.argv[1]).is_absolute()
    try:
        code = work(run, [BEHAVIOURS.get(run.spec.name.split()[0], count)])
    except UserError as error:
        print(error)
        code = 2
    heavy = {"torch", "transformers", "datasets"} & set(sys.modules)
    assert not heavy, heavy
    raise SystemExit(code)
