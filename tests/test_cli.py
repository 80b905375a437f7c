"""The command line: its options are the spec's fields, its errors are one sentence, and it prints what it found."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from core.options import PARTS, options, spec_from
from core.report.command import command_of
from core.specs import DataSpec, DistillSpec, EvalSpec, Pins, RankSpec, RunSpec, ScoreSpec, Targets, TextSpec
from core.workspace import ROOT
from tests.tiny import save_tiny


def coppice(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "core", *words], cwd=ROOT, capture_output=True, text=True)


def test_help_names_every_command() -> None:
    shown = coppice("--help").stdout
    for command in (
        "inspect",
        "score",
        "plan",
        "prune",
        "distill",
        "evaluate",
        "generate",
        "run",
        "demo",
        "report",
        "fetch",
        "runs",
        "stop",
    ):
        assert command in shown


@pytest.mark.parametrize("kind", PARTS)
def test_no_two_options_share_a_flag_and_all_but_the_plainest_are_explained(kind: str) -> None:
    offered = options(kind)
    assert len({option.flag for option in offered}) == len(offered)
    assert not [option.flag for option in offered if not option.help]


@pytest.mark.parametrize(
    "spec",
    [
        RunSpec(kind="distill"),
        RunSpec(kind="distill", targets=Targets(intermediate_size=896), distill=DistillSpec(steps=3, learning_rate=1e-4, seed=7)),
        RunSpec(kind="prune", data=DataSpec(text=TextSpec(source="a b.txt", column="body"), elsewhere=()), output="out"),
        RunSpec(kind="score", score=ScoreSpec(covariances=True, windows=(3, 10), greedy=2)),
        RunSpec(kind="prune", rank=RankSpec(neurons="taylor", depth="kl", protect_last=1), score=ScoreSpec(gradient_blocks=8)),
        RunSpec(kind="prune", pins=Pins(keep_heads=("3.0", "4.1-2"), prune_layers=("12",))),
        RunSpec(kind="generate", against=("one", "two"), evaluate=EvalSpec(prompts=("it's a", "b"))),
    ],
)
def test_the_command_shown_on_a_page_gives_back_the_page_s_spec(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from core import cli

    made: list[RunSpec] = []
    monkeypatch.setattr(cli, "create", lambda spec: made.append(spec) or spec)
    monkeypatch.setattr(cli, "in_foreground", lambda run: None)
    words = shlex.split(command_of(spec))
    assert words[:3] == ["python", "-m", "core"]
    done = CliRunner().invoke(cli.app, words[3:])
    assert done.exit_code == 0, done.output
    assert made == [spec]
    assert spec_from(spec.kind, {}) == RunSpec(kind=spec.kind)


def test_a_goal_becomes_sizes_and_both_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from core import cli

    model = save_tiny(tmp_path / "model")
    planned = coppice("plan", "--model", str(model), "--at-most", "80%", "--num-hidden-layers", "4", "--multiple", "1")
    assert planned.returncode == 0, planned.stderr
    assert "--num-hidden-layers 4 --intermediate-size" in " ".join(planned.stdout.split())
    made: list[RunSpec] = []
    monkeypatch.setattr(cli, "create", lambda spec: made.append(spec) or spec)
    monkeypatch.setattr(cli, "in_foreground", lambda run: None)
    for _ in range(2):
        words = (
            shlex.split(command_of(made[-1]))[3:] if made else ["prune", "--model", str(model), "--at-most", "80%", "--shape", "balanced"]
        )
        assert CliRunner().invoke(cli.app, words).exit_code == 0
    assert made[0].goal.at_most == "80%"
    assert made[0].targets.intermediate_size is not None
    assert made[1] == made[0], "the command that a page shows finds the same sizes again"
    refused = coppice("plan", "--model", str(model), "--at-most", "1%")
    assert refused.returncode == 2
    assert "nearest" in refused.stderr
    speed = ("plan", "--model", str(model), "--at-most", "1.2x", "--measure", "writing", "--multiple", "1", "--context")
    short, long = (CliRunner().invoke(cli.app, [*speed, context]) for context in ("1", "1000000"))
    assert short.exit_code == 0
    assert "the nearest is 1" in str(long.exception), "a cache that dwarfs the weights is nothing that the FFN can shrink"


def test_every_criterion_is_listed_with_its_paper_and_how_to_have_it_measured() -> None:
    from typer.testing import CliRunner

    from core import cli
    from core.score.criteria import CRITERIA

    told = "".join(CliRunner().invoke(cli.app, ["criteria"], env={"COLUMNS": "300"}).output.split())
    for found in CRITERIA.values():
        assert found.says, found.name
        assert found.paper, found.name
        assert f"{found.name}│" in told


def test_a_run_of_another_version_does_not_hide_the_others(workspace: Path) -> None:
    from typer.testing import CliRunner

    from core import cli
    from core.files import write_json
    from core.runs.folder import create

    runs = [create(RunSpec(kind="score", name=name)) for name in ("readable", "foreign")]
    write_json(runs[1].path / "spec.json", {**runs[1].spec.to_dict(), "unheard_of": 1})
    done = CliRunner().invoke(cli.app, ["runs"], env={"COLUMNS": "300"})
    assert done.exit_code == 0
    assert "readable" in done.output
    assert "unheard_of" in done.output


def test_inspect_and_plan_need_no_weights(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    (model / "model.safetensors").unlink()
    assert "intermediate_size" in coppice("inspect", str(model)).stdout
    planned = coppice("plan", "--model", str(model), "--intermediate-size", "20")
    assert planned.returncode == 0
    assert "parameters" in planned.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("inspect", "/no/such/folder"), "There is no folder '/no/such/folder'"),
        (("plan", "--model", "{model}", "--hidden-size", "20"), "nearest possible sizes are 18 and 24"),
        (("plan", "--model", "{model}", "--num-hidden-layers", "0"), "must be above 0"),
        (("distill", "--steps", "-1"), "steps: must be 0 or more"),
        (("run", "no-such-run"), "no-such-run"),
        (("report", "no-such-run"), "no-such-run"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    done = coppice(*(word.replace("{model}", str(model)) for word in words))
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
