"""A process that follows another ends soon after it, also in the middle of a share that would take hours."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import UserError
from core.runs import following
from core.runs.folder import Run, create
from core.runs.following import Following
from core.specs import RunSpec
from core.workspace import ROOT

HOLD = "import sys, time; from pathlib import Path; from core.runs.folder import Run\nwith Run(Path(sys.argv[1])).hold(): print('held', flush=True); time.sleep(60)"
FOLLOW = """
import sys, time; from pathlib import Path; from core.runs.folder import Run; from core.runs.following import Following
progress = Following(Run(Path(sys.argv[1])))
for unit in range(600):
    progress.step("score", unit, 600)
    print(unit, flush=True)
    time.sleep(0.1)
"""


def started(code: str, run: Run) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_follower_ends_in_the_middle_of_its_share_when_the_leader_does(how: signal.Signals, workspace: Path) -> None:
    run = create(RunSpec(kind="score"))
    leader = started(HOLD, run)
    assert line_of(leader) == "held"
    follower = started(FOLLOW, run)
    try:
        assert [line_of(follower) for _ in range(15)] == [str(unit) for unit in range(15)], "while it is led, it works"
        leader.send_signal(how)
        leader.wait(timeout=10)
        _, told = follower.communicate(timeout=10)
        assert follower.returncode != 0
        assert "The first process of this run was stopped or has ended." in told
    finally:
        for process in (leader, follower):
            process.kill()
            process.communicate()


def test_a_leader_that_comes_late_is_waited_for(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.0)
    run = create(RunSpec(kind="score"))
    progress = Following(run)
    for _ in range(3):
        progress.step("score", 0, 1)
    leader = started(HOLD, run)
    try:
        assert line_of(leader) == "held"
        progress.step("score", 0, 1)
    finally:
        leader.kill()
        leader.communicate()
    assert not run.held()
    with pytest.raises(UserError, match="start all processes again"):
        progress.step("score", 0, 1)
