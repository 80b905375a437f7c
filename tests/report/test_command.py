"""The command that a screen shows makes the very run that the screen would start."""

import shlex

import pytest

from core.options import options, spec_from
from core.report.command import command_of
from core.specs import DataSpec, DistillSpec, EvalSpec, RunSpec, Targets, TextSpec

SPECS = [
    RunSpec(),
    RunSpec(kind="prune", targets=Targets(num_hidden_layers=24), name="it's mine"),
    RunSpec(data=DataSpec(text=TextSpec(source="my text.txt"), elsewhere=(TextSpec(source="a"), TextSpec(source="b")), seed=7), distill=DistillSpec(learning_rate=1e-4)),
    RunSpec(kind="generate", model="m", against=("p", "q"), evaluate=EvalSpec(prompts=("Say <hi> & go",))),
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_parsing_the_command_gives_the_spec_back(spec: RunSpec) -> None:
    words = shlex.split(command_of(spec))
    assert words[:4] == ["python", "-m", "core", spec.kind]
    known = {f"--{option.flag}": option for option in options(spec.kind)}
    given: dict[str, object] = {}
    for flag, text in zip(words[4::2], words[5::2], strict=True):
        option = known[flag]
        given[option.path] = (*given.get(option.path, ()), text) if option.many else option.type(text)  # type: ignore[misc]
    assert spec_from(spec.kind, given) == spec


def test_defaults_are_left_out() -> None:
    assert command_of(RunSpec()) == "python -m core distill"
