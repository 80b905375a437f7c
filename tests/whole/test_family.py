"""Families: every member is a run of its own, cut from the one before; stopped in the middle, they go on there."""

import dataclasses
import json

import pytest

from core.errors import UserError
from core.model.dims import dims_of
from core.model.source import read_config
from core.plan.stages import stage_problems_of
from core.runs import control
from core.runs.family import member_of
from core.runs.folder import Run
from core.specs import RunSpec, Targets, stage_targets
from tests.whole.conftest import World
from tests.whole.test_runs import finish, wait, weights

STAGES = ("intermediate_size=15", "intermediate_size=11,num_hidden_layers=2")


def family(world: World, **changes: object) -> RunSpec:
    return dataclasses.replace(world.spec, kind="family", targets=Targets(), stages=STAGES, **changes)


@pytest.mark.parametrize("lineage", ["previous", "first"])
def test_each_member_is_cut_from_the_one_before_and_taught_by_whom_the_lineage_says(world: World, lineage: str) -> None:
    run = finish(control.start(family(world, lineage=lineage)))
    first, second = (member_of(run, number) for number in (1, 2))
    assert (first.spec.model, second.spec.model) == (world.spec.model, str(first.path / "model"))
    assert (first.spec.teacher, second.spec.teacher) == ("", world.spec.model if lineage == "first" else "")
    sizes = [dims_of(read_config(str(member.path / "model"))) for member in (first, second)]
    assert [(size.layers, size.ffn) for size in sizes] == [(3, 15), (2, 11)]
    results = run.results()
    assert [member["run"] for member in results["members"]] == [first.id, second.id]
    assert [member["parameters"] for member in results["members"]] == [
        found.results()["distilled"]["parameters"] for found in (first, second)
    ]
    teacher = first if lineage == "previous" else None
    learnt_from = second.results()["teacher"]["heldout"]["here"]["loss_nats"]
    expected = (teacher.results()["distilled"] if teacher else results["teacher"])["heldout"]["here"]["loss_nats"]
    assert learnt_from == pytest.approx(expected, rel=1e-6)
    report = (run.path / "report.html").read_text()
    assert report.count("Member 2, distilled") >= 2, "both held-out texts show every member"


def test_a_family_that_is_stopped_in_a_member_goes_on_in_that_member(world: World) -> None:
    undisturbed = finish(control.start(family(world)))
    run = control.start(family(world, name="stopped"))
    wait(run, lambda status: (run.path.parent / f"{run.id}-member2" / "checkpoints").exists())
    control.cancel(run, keep=True)
    assert wait(run, lambda status: not status.live).state == "stopped"
    first = member_of(run, 1)
    done = first.last_word().finished
    control.resume(run)
    finish(run)
    assert first.last_word().finished == done, "a finished member is not made again"
    ours, theirs = (weights(member_of(found, 2).path / "model") for found in (run, undisturbed))
    assert all((tensor == theirs[name]).all() for name, tensor in ours.items())


def test_discarding_a_family_discards_the_member_under_way(world: World) -> None:
    run = control.start(family(world, distill=dataclasses.replace(world.spec.distill, steps=400, evaluate_every=400)))
    wait(run, lambda status: (run.path.parent / f"{run.id}-member1" / "checkpoints").exists())
    control.cancel(run, keep=False)
    assert wait(run, lambda status: not status.live).state == "cancelled"
    member = Run(run.path.parent / f"{run.id}-member1")
    assert member.status().state == "cancelled"
    assert not (member.path / "checkpoints").exists()


def test_sizes_are_judged_from_the_member_before_and_before_anything_is_done(world: World) -> None:
    config = read_config(world.spec.model)
    assert stage_problems_of(config, family(world).stages) == []
    grown = dataclasses.replace(family(world), stages=("intermediate_size=11", "intermediate_size=15"))
    assert "Member 2" in stage_problems_of(config, grown.stages)[0]
    same = dataclasses.replace(family(world), stages=("intermediate_size=11", "intermediate_size=11"))
    assert "cuts nothing" in stage_problems_of(config, same.stages)[0]
    mapped = dataclasses.replace(
        family(world), distill=dataclasses.replace(world.spec.distill, intermediate=("output",), layer_map=("2:2",))
    )
    for spec in (grown, mapped):
        run = control.start(spec)
        status = wait(run, lambda status: not status.live)
        assert status.state == "failed"
        assert "Member 2" in status.error["message"]
        assert not (run.path.parent / f"{run.id}-member1").exists()


@pytest.mark.parametrize(
    "stage", ["", "layers=3", "intermediate_size=0", "intermediate_size=-4", "intermediate_size", "hidden_size=8,hidden_size=9"]
)
def test_a_stage_that_cannot_be_read_is_refused_with_what_can(stage: str) -> None:
    with pytest.raises(UserError, match="num_hidden_layers"):
        stage_targets(stage)
    assert RunSpec(kind="family", stages=(stage,)).problems()


def test_a_teacher_of_another_tokenizer_is_refused(world: World) -> None:
    from tests.tiny import save_tiny

    other = save_tiny(world.folder / "other", num_hidden_layers=3, tie_word_embeddings=True, max_position_embeddings=512)
    file = other / "tokenizer.json"
    data = json.loads(file.read_text())
    vocabulary = data["model"]["vocab"]
    pairs = sorted(vocabulary.items(), key=lambda pair: pair[1])
    vocabulary[pairs[-1][0]], vocabulary[pairs[-2][0]] = pairs[-2][1], pairs[-1][1]
    file.write_text(json.dumps(data))
    run = control.start(dataclasses.replace(world.spec, teacher=str(other)))
    status = wait(run, lambda status: not status.live)
    assert status.state == "failed"
    assert "another tokenizer" in status.error["message"]


def test_a_teacher_with_padded_rows_is_learnt_from_and_one_without_a_row_for_every_token_is_refused(world: World) -> None:
    from tests.tiny import save_tiny

    short, padded = (save_tiny(world.folder / f"of{size}", vocab_size=size, max_position_embeddings=512) for size in (90, 104))
    refused, taught = (control.start(dataclasses.replace(world.spec, teacher=str(teacher))) for teacher in (short, padded))
    status = wait(refused, lambda status: not status.live)
    assert status.error is not None
    assert "the teacher 90, and the tokenizer uses 97" in status.error["message"]
    assert not (refused.path / "plan.npz").exists(), "it is refused before any work"
    assert finish(taught).results()["distilled"]["heldout"]
