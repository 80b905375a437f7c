"""Scoring a checkpoint: never twice, never torn, never on too little."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import UserError
from core.model.checkpoint import load_model
from core.progress import Stopped
from core.score import scoring
from core.score.jobs import JOBS, Task
from core.score.passes import PASSES, forwarded, wanted
from core.score.scoring import score_model
from core.score.shelf import Arrays, Files, Memory
from core.score.store import pass_file
from core.specs import RankSpec, ScoreSpec
from core.workspace import room
from tests.score.stored import ALL, Watching, bits, blocks_for_scoring, parts_left, saved_model, scored
from tests.score.world import hooks_left
from tests.tiny import random_blocks, save_tiny, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list[tuple[int, int]]]:
    """What an undisturbed scoring finds, and what it tells of its progress."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COPPICE_WORKSPACE", str(tmp_path_factory.mktemp("undisturbed")))
        progress = Watching()
        return bits(scored(model, progress=progress)), progress.told


def watch(monkeypatch: pytest.MonkeyPatch, explode: tuple[str, ...] = ()) -> list[tuple[str, int]]:
    """Keep (pass, unit) of everything that is computed to its end, by itself or along with another; some must not be."""
    done: list[tuple[str, int]] = []
    put = Files.put

    def kept(self: Files, name: str, unit: int, arrays: Arrays) -> None:
        assert name not in explode, f"{name} is there already"
        put(self, name, unit, arrays)
        done.append((name, unit))

    def refused(*_: Any) -> Arrays:
        pytest.fail("it is there already")

    monkeypatch.setattr(Files, "put", kept)
    for name in explode:
        monkeypatch.setitem(JOBS, name, dataclasses.replace(JOBS[name], compute=refused))
    return done


def test_every_pass_has_a_job() -> None:
    assert list(JOBS) == list(PASSES)
    assert [item.name for item in wanted(ALL)] == list(PASSES), "ALL is all"


def test_stored_scores_are_those_of_the_model_in_memory(model: Path) -> None:
    text = blocks_for_scoring()
    stored, memory = scored(model), score_model(load_model(model), text.calibration_NT, ALL, documents_NT=text.calibration_documents_NT)
    assert bits(stored) == bits(memory)
    assert stored.dims == memory.dims
    told = ("blocks", "tokens", "teacher_loss", "version")
    assert {name: stored.meta[name] for name in told} == {name: memory.meta[name] for name in told}
    assert ScoreSpec.from_dict(stored.meta["score"]) == ALL
    assert (stored.meta["model"], stored.meta["blocks"], stored.meta["tokens"]) == ("tiny", 5, 95)
    losses = stored.array("removal", "losses")
    assert stored.meta["teacher_loss"] == pytest.approx(losses[:, 0].mean())


def test_scoring_ends_wherever_it_was_stopped(
    model: Path, undisturbed: tuple[dict[str, bytes], list[tuple[int, int]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, told = undisturbed
    for stop_at in (1, 2, 3, 5, *range(6, len(told), 7), len(told)):
        monkeypatch.setenv("COPPICE_WORKSPACE", str(tmp_path / str(stop_at)))
        with pytest.raises(Stopped):
            scored(model, progress=Watching(stop_at))
        assert bits(scored(model)) == expected, f"stopped at step {stop_at}"
        assert parts_left() == []


def test_scoring_ends_however_often_it_is_stopped(
    model: Path, undisturbed: tuple[dict[str, bytes], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done, stops = watch(monkeypatch), 0
    while True:
        try:
            found = scored(model, progress=Watching(stop_at=9))
            break
        except Stopped:
            stops += 1
            assert stops < 50, "every attempt ends a unit at least"
    assert stops > 3
    assert bits(found) == undisturbed[0]
    assert len(done) == len(set(done)), "no unit is computed to its end twice"


def test_finished_units_are_not_computed_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = watch(monkeypatch)
    with pytest.raises(Stopped):
        scored(model, progress=Watching(stop_at=8))
    first = done.copy()
    assert len(first) > 2
    scored(model)
    assert done[: len(first)] == first
    assert len(done) == len(set(done)) == 1 + 3 + 3 + 3 + 1 + 2 + 2 + 1


def test_what_is_stored_is_not_computed_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, progress = scored(model), Watching()
    watch(monkeypatch, explode=tuple(JOBS))
    monkeypatch.setattr(scoring, "load_model", lambda *_: pytest.fail("the model is not needed"))
    again = scored(model, dataclasses.replace(ALL, batch_size=1), progress)
    assert again.key == first.key
    assert progress.told == [(1, 1)]
    less = scored(model, ScoreSpec(shards=3, ppl_blocks=2))
    assert less.meta["passes"] == {name: first.meta["passes"][name] for name in ("weights", "activations", "removal")}


def test_asking_for_more_later_computes_only_what_is_missing(
    model: Path, undisturbed: tuple[dict[str, bytes], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = ScoreSpec(shards=3, ppl_blocks=0, batch_size=2)
    before = scored(model, bare)
    done = watch(monkeypatch, explode=("weights", "activations"))
    scored(model, dataclasses.replace(bare, gradient_blocks=4))
    assert done == [("gradients", 0), ("gradients", 1), ("gradients", 2)]
    done.clear()
    everything = scored(model)
    assert {name for name, _ in done} == set(PASSES) - {"weights", "activations", "gradients"}
    assert bits(everything) == undisturbed[0]
    assert everything.meta["passes"]["activations"] == before.meta["passes"]["activations"]


@pytest.mark.parametrize(
    ("asked", "brought"),
    [
        ({"covariances": True, "pre_activation": True}, {"activations", "pre_activations"}), ({"covariances": True}, {"activations"}),
        ({"pre_activation": True}, {"pre_activations"}), ({}, set()),
    ],
)  # fmt: skip
def test_all_that_looks_at_activations_is_made_of_one_forward_pass(asked: dict[str, bool], brought: set[str]) -> None:
    spec = ScoreSpec(shards=3, ppl_blocks=0, batch_size=2, **asked)
    assert {item.name for item in wanted(spec)} - {item.name for item in forwarded(wanted(spec))} == brought
    model, blocks, seen = tiny_model(num_hidden_layers=3), random_blocks(5, 19), []
    hook = model.model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    together = score_model(model, blocks, spec)
    hook.remove()
    assert seen == [2, 2, 1], "every block once"
    alone = Task(model, blocks, spec, Memory([]))
    for name in together.meta["passes"]:
        job, found = JOBS[name], together.arrays(name)
        apart = job.join([job.measure(alone, unit, lambda *_: None) for unit in range(job.units(alone))])
        assert found.keys() == apart.keys()
        assert all(found[key].tobytes() == values.tobytes() for key, values in apart.items()), f"{name}, bit for bit"


def test_what_a_stop_left_of_the_passes_that_are_brought_along_is_not_made_again(
    model: Path, undisturbed: tuple[dict[str, bytes], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = watch(monkeypatch)
    with pytest.raises(Stopped):
        scored(model, progress=Watching(stop_at=4))  # in the last of three shards of the covariances
    assert [unit for unit in done if unit[0] == "activations"] == [("activations", 0), ("activations", 1)]
    assert ("covariances", 0) not in done
    assert bits(scored(model)) == undisturbed[0]
    assert len(done) == len(set(done))


def test_only_passes_that_ran_the_model_say_how_long_they_took(model: Path) -> None:
    found = scored(model)
    assert {name for name in PASSES if "seconds" not in found.arrays(name)} == {"activations", "pre_activations"}
    assert "seconds" in scored(model, ScoreSpec(shards=2, ppl_blocks=0)).arrays("activations")


def test_a_pass_that_is_gone_is_made_again_and_no_other(
    model: Path, undisturbed: tuple[dict[str, bytes], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pass_file(scored(model).meta["passes"]["windows"])
    path.unlink()
    watch(monkeypatch, explode=tuple(set(JOBS) - {"windows"}))
    assert bits(scored(model)) == undisturbed[0]


def test_damaged_files_are_refused_with_what_to_do(model: Path) -> None:
    with pytest.raises(Stopped):
        scored(model, progress=Watching(stop_at=4))
    unit = next(room("partial").iterdir())
    unit.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"missing or damaged .*Delete it and score again"):
        scored(model)
    unit.unlink()
    path = pass_file(scored(model).meta["passes"]["removal"])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=rf"{path.name} is missing or damaged .*Delete it"):
        scored(model).importance("layers", RankSpec(depth="ppl"))
    with pytest.raises(UserError, match=rf"{path.name} is missing or damaged .*Delete it"):
        scored(model, dataclasses.replace(ALL, windows=(2,)))


def test_another_text_or_model_shares_nothing(model: Path, tmp_path: Path) -> None:
    spec = ScoreSpec(shards=3, ppl_blocks=2)
    one, other = scored(model, spec), scored(model, spec, blocks=blocks_for_scoring(seed=1))
    third = scored(save_tiny(tmp_path / "other", seed=1, num_hidden_layers=3), spec)
    names = [scores.meta["passes"]["activations"] for scores in (one, other, third)]
    assert len(set(names)) == len({bits(scores)["activations.neurons"] for scores in (one, other, third)}) == 3


@pytest.mark.parametrize("spec", [ALL, ScoreSpec(shards=1, ppl_blocks=9, greedy=9, windows=(1, 3, 7)), ScoreSpec(shards=4, ppl_blocks=0)])
def test_progress_never_goes_back_and_ends_at_the_end(model: Path, spec: ScoreSpec) -> None:
    progress = Watching()
    scored(model, spec, progress)
    totals = {total for _, total in progress.told}
    assert len(totals) == 1
    total, done = totals.pop(), [done for done, _ in progress.told]
    assert done == sorted(done)
    assert done[0] >= 0
    assert done[-1] == total


@pytest.mark.parametrize(
    ("blocks", "spec", "told"),
    [
        (3, ScoreSpec(shards=4), r"has 3 blocks, too few for 4 shards\. Take more text, shorter blocks, or fewer shards"),
        (0, ScoreSpec(shards=1), r"has 0 blocks, too few for 1 shards"),
        (8, ScoreSpec(shards=4, gradient_blocks=3), r"gradient_blocks: must be 0 or at least the 4 shards, got 3"),
        (8, ScoreSpec(shards=0), r"shards: must be above 0, got 0"),
        (8, ScoreSpec(ppl_blocks=0, windows=(2,)), r"ppl_blocks: must be above 0 for windows and greedy"),
        (8, ScoreSpec(ppl_blocks=0, greedy=1), r"ppl_blocks: must be above 0 for windows and greedy"),
        (8, ScoreSpec(windows=(0,)), r"windows: must hold lengths of 1 or more, got 0"),
        (8, ScoreSpec(ridge=0.0, covariances=True), r"ridge: must be above 0"),
        (8, ScoreSpec(batch_size=0), r"batch_size: must be above 0"),
    ],
)
def test_bad_input_is_answered(model: Path, blocks: int, spec: ScoreSpec, told: str) -> None:
    with pytest.raises(UserError, match=told):
        score_model(tiny_model(), random_blocks(blocks, 19), spec)
    with pytest.raises(UserError, match=told):
        scored(model, spec, blocks=blocks_for_scoring(blocks))
    assert parts_left() == []


def test_more_blocks_asked_for_than_there_are_means_all() -> None:
    few, many = (
        score_model(tiny_model(), random_blocks(3, 12), ScoreSpec(shards=1, ppl_blocks=count, gradient_blocks=count)) for count in (3, 99)
    )
    assert bits(few) == bits(many)


def test_a_layer_that_is_not_finite_stops_scoring_and_leaves_no_scores(tmp_path: Path) -> None:
    broken = tiny_model(num_hidden_layers=3)
    broken.model.layers[1].mlp.up_proj.weight.data[0] = 3e38
    broken.save_pretrained(tmp_path / "broken")
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.down_proj are not finite"):
        scored(tmp_path / "broken")
    assert list(room("scores").iterdir()) == []


@pytest.mark.parametrize("name", [name for name in PASSES if name != "weights"])
def test_no_hook_and_no_flag_is_left_behind_when_a_pass_breaks_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in set(PASSES) - {name}:
        monkeypatch.setitem(JOBS, other, dataclasses.replace(JOBS[other], compute=lambda task, unit, tick: {}))
    model, calls, ids = tiny_model(num_hidden_layers=3), itertools.count(1), torch.from_numpy(random_blocks(1, 12)).long()
    with torch.no_grad():
        before = model(ids).logits

    def breaking(*_: Any) -> None:
        if next(calls) == 3:  # in the third forward pass, in the middle of the model
            raise Stopped

    hook = model.model.layers[1].mlp.register_forward_pre_hook(breaking)
    with pytest.raises(Stopped):
        score_model(model, random_blocks(4, 12), dataclasses.replace(ALL, shards=1, batch_size=1))
    hook.remove()
    assert hooks_left(model) == 0
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)


def test_scoring_changes_no_weight_and_no_setting_of_the_model() -> None:
    model = tiny_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    settings, training = model.config.to_dict(), model.training
    score_model(model, random_blocks(4, 12), ALL)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert (model.config.to_dict(), model.training) == (settings, training)
    assert np.isfinite(score_model(model, random_blocks(4, 12), ALL).importance("neurons", RankSpec())).all()


def test_a_part_of_the_tokens_is_told_with_its_standard_error_and_all_of_them_without(workspace: Path, tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model")

    class Noting(Watching):
        def __init__(self) -> None:
            super().__init__()
            self.notes: list[str] = []

        def note(self, message: str) -> None:
            self.notes.append(message)

    exact, partly = Noting(), Noting()
    scored(model, ALL, exact)
    assert exact.notes == []
    found = scored(model, dataclasses.replace(ALL, loss_tokens=0.5, covariance_tokens=0.5), partly)
    assert [note.split(",")[0].split(" of some")[0] for note in partly.notes] == [
        "Covariances",
        "Loss without each layer",
        "Loss without runs of layers",
    ]
    errors = found.arrays("removal")["loss_errors"]
    assert errors.shape == (ALL.ppl_blocks, 3)
    assert f"{np.median(np.sqrt((errors**2).sum(0)) / ALL.ppl_blocks):.2g} nats" in partly.notes[1]
