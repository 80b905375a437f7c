"""Distillation on tiny models: it teaches, and it survives whatever ends it."""

import contextlib
import dataclasses
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from core.distill.checkpoints import all_checkpoints, is_whole
from core.distill.rows import row_order
from core.distill.settings import rate_curve, training_arguments
from core.distill.trainer import distill
from core.errors import UserError
from core.model.checkpoint import load_model
from core.model.cost import cost_of
from core.model.device import peak_flops
from core.progress import Silent, Stopped
from core.specs import LOSSES, SCHEDULES, DistillSpec
from core.workspace import ROOT
from tests.tiny import random_blocks, save_tiny, tiny_model

BLOCKS = random_blocks(5, 12)
SPEC = DistillSpec(steps=6, learning_rate=1e-2, checkpoint_every=2, evaluate_every=4)


class Recorder(Silent):
    """Progress that remembers every step, and asks to stop after ``stop_after``."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.steps: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
        self.steps.append({"phase": phase, "done": done, "total": total, **metrics})
        if len(self.steps) == self.stop_after:
            raise Stopped

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A student and its wider teacher."""
    home = tmp_path_factory.mktemp("models")
    return save_tiny(home / "student", seed=1, intermediate_size=28), save_tiny(home / "teacher", seed=2)


@pytest.fixture(scope="module")
def undisturbed(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Weights after all steps of ``SPEC`` in one go."""
    return weights(distill(*folders, BLOCKS, SPEC, tmp_path_factory.mktemp("undisturbed") / "model", progress=Silent(), device="cpu"))


def run(folders: tuple[Path, Path], home: Path, spec: DistillSpec = SPEC, progress: Any = None, **more: Any) -> Path:
    return distill(*folders, BLOCKS, spec, home / "model", progress=progress or Silent(), device="cpu", **more)


def weights(folder: Path) -> dict[str, Tensor]:
    return dict(load_model(folder).named_parameters())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_step_is_told_with_its_figures(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recorder = Recorder()
    run(folders, tmp_path, progress=recorder, measure=lambda model: {"home": {"loss": 1.5}})
    assert [(step["phase"], step["done"], step["total"]) for step in recorder.steps] == [("distill", i, 6) for i in range(1, 7)]
    figures = {"loss", "kl", "ce", "learning_rate", "grad_norm", "tokens_per_second", "memory_bytes"}
    assert all(step.keys() - {"phase", "done", "total", "heldout"} == figures for step in recorder.steps)
    assert [step["done"] for step in recorder.steps if step.get("heldout") == {"home": {"loss": 1.5}}] == [4, 6]
    assert recorder.steps[0]["loss"] == pytest.approx(recorder.steps[0]["kl"])


def test_the_loss_falls(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recorder = Recorder()
    run(folders, tmp_path, DistillSpec(steps=30, learning_rate=1e-2, checkpoint_every=100), recorder)
    assert sum(step["loss"] for step in recorder.steps[-5:]) < 0.5 * sum(step["loss"] for step in recorder.steps[:5])


def test_a_student_equal_to_its_teacher_has_nothing_to_learn(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recorder = Recorder()
    out = run((folders[1], folders[1]), tmp_path, progress=recorder)
    assert [step["loss"] for step in recorder.steps] == [0.0] * 6
    assert same(weights(out), weights(folders[1]))


@pytest.mark.parametrize("ce_weight", [0.0, 0.5])
def test_accumulated_batches_equal_one_large_batch(folders: tuple[Path, Path], tmp_path: Path, ce_weight: float) -> None:
    shared = {"steps": 3, "learning_rate": 1e-3, "ce_weight": ce_weight, "temperature": 2.0}
    recorders = [Recorder(), Recorder()]
    small = run(folders, tmp_path / "small", DistillSpec(batch_blocks=1, accumulation=2, **shared), recorders[0])
    large = run(folders, tmp_path / "large", DistillSpec(batch_blocks=2, accumulation=1, **shared), recorders[1])
    for one, other in zip(recorders[0].steps, recorders[1].steps, strict=True):
        assert [one[k] for k in ("loss", "kl", "ce", "grad_norm")] == pytest.approx(
            [other[k] for k in ("loss", "kl", "ce", "grad_norm")], rel=1e-4
        )
    torch.testing.assert_close(weights(small), weights(large), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_and_the_usual_ones_are_told_beside_it(folders: tuple[Path, Path], tmp_path: Path, loss: str) -> None:
    recorder = Recorder()
    run(folders, tmp_path, DistillSpec(steps=12, loss=loss, learning_rate=1e-2, checkpoint_every=100, top_k=9, samples=9), recorder)
    first, last = recorder.steps[0], recorder.steps[-1]
    assert first["loss"] == pytest.approx(first[loss], rel=1e-5)
    assert {"kl", "ce"} <= first.keys()
    assert last["kl"] < first["kl"]


def test_no_step_loads_the_teacher_into_optimiser_or_checkpoint(folders: tuple[Path, Path], tmp_path: Path) -> None:
    run(folders, tmp_path)
    newest = all_checkpoints(tmp_path / "checkpoints")[-1]
    moments = torch.load(newest / "optimizer.pt", weights_only=True)["state"]
    assert len(moments) == len(weights(folders[0])) == len(weights(newest))
    assert [path.name for path in all_checkpoints(tmp_path / "checkpoints")] == ["checkpoint-4", "checkpoint-6"]


def test_zero_steps_write_the_student_as_it_is(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = run(folders, tmp_path, DistillSpec(steps=0))
    assert same(weights(out), weights(folders[0]))
    assert not (tmp_path / "checkpoints").exists()


def test_a_stop_saves_and_the_resumed_run_ends_as_if_undisturbed(
    folders: tuple[Path, Path], tmp_path: Path, undisturbed: dict[str, Tensor]
) -> None:
    with pytest.raises(Stopped):
        run(folders, tmp_path, progress=Recorder(stop_after=3))
    assert [path.name for path in all_checkpoints(tmp_path / "checkpoints")] == ["checkpoint-2", "checkpoint-3"]
    assert not (tmp_path / "model").exists()
    recorder = Recorder()
    out = run(folders, tmp_path, progress=recorder)
    assert [step["done"] for step in recorder.steps] == [4, 5, 6]
    assert same(weights(out), undisturbed)


def test_a_stop_while_measuring_is_heard_too(folders: tuple[Path, Path], tmp_path: Path, undisturbed: dict[str, Tensor]) -> None:
    def interrupted(model: nn.Module) -> dict[str, Any]:
        raise Stopped

    recorder = Recorder()
    with pytest.raises(Stopped):
        run(folders, tmp_path, progress=recorder, measure=interrupted)
    assert [step["done"] for step in recorder.steps] == [1, 2, 3, 4]
    assert same(weights(run(folders, tmp_path)), undisturbed)


KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
from core.distill.trainer import DistillTrainer, distill
from core.progress import Silent
from tests.distill.test_trainer import BLOCKS, SPEC

class Dying(DistillTrainer):
    def _save_rng_state(self, folder):
        if self.state.global_step == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._save_rng_state(folder)

import core.distill.trainer
core.distill.trainer.DistillTrainer = Dying
student, teacher, out = map(Path, sys.argv[1:])
distill(student, teacher, BLOCKS, SPEC, out, progress=Silent(), device="cpu")
"""


def test_a_run_killed_while_it_saves_resumes_and_ends_as_if_undisturbed(
    folders: tuple[Path, Path], tmp_path: Path, undisturbed: dict[str, Tensor]
) -> None:
    command = [sys.executable, "-c", KILLED_WHILE_SAVING, *map(str, folders), str(tmp_path / "model")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    left = tmp_path / "checkpoints"
    assert [(path.name, is_whole(path)) for path in all_checkpoints(left)] == [("checkpoint-2", True), ("checkpoint-4", False)]
    recorder = Recorder()
    out = run(folders, tmp_path, progress=recorder)
    assert [step["done"] for step in recorder.steps] == [3, 4, 5, 6]
    assert same(weights(out), undisturbed)


def test_checkpoints_are_written_under_the_mark_that_asks_for_time(folders: tuple[Path, Path], tmp_path: Path) -> None:
    seen: list[list[str]] = []

    @contextlib.contextmanager
    def saving() -> Iterator[None]:
        before = {path.name for path in all_checkpoints(tmp_path / "checkpoints")}
        yield
        seen.append([path.name for path in all_checkpoints(tmp_path / "checkpoints") if path.name not in before])

    run(folders, tmp_path, saving=saving)
    assert seen == [["checkpoint-2"], ["checkpoint-4"], ["checkpoint-6"]]


def test_the_first_loss_is_the_mean_over_all_predicted_tokens(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """One shift, T - 1 predictions a block, one division by all of them: not by blocks, positions or the vocabulary."""
    recorder = Recorder()
    run(folders, tmp_path, DistillSpec(steps=1, batch_blocks=2, accumulation=2, learning_rate=1e-3), recorder)
    student, teacher = (load_model(folder) for folder in folders)
    tokens_NT = torch.from_numpy(BLOCKS[row_order(len(BLOCKS), 4, SPEC.seed)]).long()
    with torch.no_grad():
        student_NTV, teacher_NTV = (model(tokens_NT).logits[:, :-1].double().log_softmax(-1) for model in (student, teacher))
    kl = (teacher_NTV.exp() * (teacher_NTV - student_NTV)).sum(-1).mean()
    ce = -student_NTV.gather(-1, tokens_NT[:, 1:, None]).mean()
    assert [recorder.steps[0][name] for name in ("kl", "ce")] == pytest.approx([kl.item(), ce.item()], rel=1e-5)


def looks(losses: dict[int, float]) -> Any:
    """A measurement that finds these losses, one after the other, whatever the model."""
    left = list(losses.values())
    return lambda model: {"home": {"loss": left.pop(0)}, "elsewhere": {"loss": -left[0] if left else 0.0}}


def test_the_weights_of_the_lowest_heldout_loss_are_kept(folders: tuple[Path, Path], tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, evaluate_every=2)
    best = dataclasses.replace(spec, keep_best=True)
    kept = weights(run(folders, tmp_path / "best", best, measure=looks({2: 3.0, 4: 2.0, 6: 2.5})))
    last = weights(run(folders, tmp_path / "last", spec, measure=looks({2: 3.0, 4: 2.0, 6: 2.5})))
    halfway = load_file(tmp_path / "last" / "checkpoints" / "checkpoint-4" / "model.safetensors")
    assert all(torch.equal(kept[name], halfway[name]) for name in halfway)
    assert not same(kept, last)
    assert [path.name for path in (tmp_path / "best" / "checkpoints").glob("best-*")] == ["best-4"]


def test_training_ends_when_nothing_more_is_learnt(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recorder = Recorder()
    spec = DistillSpec(**SPEC.to_dict() | {"steps": 20, "evaluate_every": 2, "patience": 2})
    run(folders, tmp_path, spec, recorder, measure=looks({2: 3.0, 4: 2.0, 6: 2.5, 8: 2.0, 10: 1.0}))
    assert [step["done"] for step in recorder.steps] == list(range(1, 9)), "two looks after the best, an equal one is no better"
    assert "since step 4" in recorder.notes[-1]


def test_the_best_survives_a_stop(folders: tuple[Path, Path], tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, evaluate_every=2, keep_best=True)
    with pytest.raises(Stopped):
        run(folders, tmp_path / "stopped", spec, Recorder(stop_after=3), measure=looks({2: 1.0}))
    resumed = weights(run(folders, tmp_path / "stopped", spec, measure=looks({4: 2.0, 6: 2.5})))
    whole = weights(run(folders, tmp_path / "whole", spec, measure=looks({2: 1.0, 4: 2.0, 6: 2.5})))
    assert same(resumed, whole)


def test_the_student_speaks_at_each_measurement(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recorder = Recorder()
    run(folders, tmp_path, progress=recorder, sample=lambda model: [{"prompt": "a", "text": "b"}])
    assert [step["done"] for step in recorder.steps if step.get("samples") == [{"prompt": "a", "text": "b"}]] == [4, 6]


def test_a_teacher_is_corrected_first_by_ordinary_language_modelling(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recorder = Recorder()
    spec = dataclasses.replace(SPEC, correction_steps=3, correction_rate=1e-3)
    run(folders, tmp_path / "corrected", spec, recorder)
    correction = [step for step in recorder.steps if step["phase"] == "correct"]
    assert [step["done"] for step in correction] == [1, 2, 3]
    assert all("kl" not in step and step["loss"] == pytest.approx(step["ce"], rel=1e-5) for step in correction)
    assert [step["done"] for step in recorder.steps if step["phase"] == "distill"] == list(range(1, 7))
    assert not same(weights(tmp_path / "corrected" / "teacher"), weights(folders[1]))
    by_hand = run((folders[0], tmp_path / "corrected" / "teacher"), tmp_path / "by hand")
    assert same(weights(by_hand), weights(tmp_path / "corrected" / "model"))


@pytest.mark.parametrize("stop_after", [2, 4])
def test_a_stop_in_either_phase_of_a_corrected_training_changes_nothing(
    folders: tuple[Path, Path], tmp_path: Path, stop_after: int
) -> None:
    spec = dataclasses.replace(SPEC, correction_steps=3, correction_rate=1e-3)
    with pytest.raises(Stopped):
        run(folders, tmp_path / "stopped", spec, Recorder(stop_after=stop_after))
    resumed = weights(run(folders, tmp_path / "stopped", spec))
    assert same(resumed, weights(run(folders, tmp_path / "whole", spec)))


def test_heads_of_other_heights_share_what_the_tokenizer_uses(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Padding rows neither teach nor learn: garbage in them changes nothing."""
    made = []
    for name, garbage in (("zeros", 0.0), ("garbage", 1e4)):
        padded = save_tiny(tmp_path / name, seed=2, vocab_size=104)
        model = load_model(padded)
        model.get_output_embeddings().weight.data[:97] = load_model(folders[1]).get_output_embeddings().weight.data
        model.get_output_embeddings().weight.data[97:] = garbage
        model.save_pretrained(padded)
        recorder = Recorder()
        made.append((weights(run((folders[0], padded), tmp_path / f"{name}-run", progress=recorder)), recorder.steps[0]["kl"]))
    assert same(made[0][0], made[1][0])
    assert made[0][1] == made[1][1]
    other_way = run((padded, folders[1]), tmp_path / "padded student")
    assert torch.equal(weights(other_way)["lm_head.weight"][97:], weights(padded)["lm_head.weight"][97:])


def test_tokenizers_that_differ_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", seed=2)
    swapped = (other / "tokenizer.json").read_text().replace('"A": 35', '"A": 36x').replace('"B": 36', '"B": 35').replace("36x", "36")
    (other / "tokenizer.json").write_text(swapped)
    with pytest.raises(UserError, match=r"share one tokenizer; 'A' is 35 in the student's and is 36 in the teacher's"):
        run((folders[0], other), tmp_path)


def test_a_head_without_a_row_for_every_token_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Rows that are missing are not padding: the tokenizer uses them."""
    short = save_tiny(tmp_path / "short", seed=2, vocab_size=90)
    with pytest.raises(UserError, match=r"student has 97 tokens, the teacher 90, and the tokenizer uses 97"):
        run((folders[0], short), tmp_path)


def test_a_tracker_that_is_not_installed_is_refused_by_name(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.distill.trackers.find_spec", lambda package: object() if package == "tensorboardX" else None)
    with pytest.raises(UserError, match=r"wandb cannot be reported to.*pip install wandb"):
        run(folders, tmp_path, dataclasses.replace(SPEC, report_to=("tensorboard", "wandb")))
    assert training_arguments(dataclasses.replace(SPEC, report_to=("tensorboard",)), tmp_path, torch.device("cpu")).report_to == [
        "tensorboard"
    ]


def test_tensorboard_is_told_every_step_and_what_was_measured_and_its_file_outlives_the_checkpoints(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    heldout = {"loss": 3.5, "text": "a word"}
    recorder, home = Recorder(), tmp_path / "home"
    run(folders, home, dataclasses.replace(SPEC, report_to=("tensorboard",)), recorder, measure=lambda model: {"wikipedia": heldout})
    told = accumulator.EventAccumulator(str(home / "tensorboard" / "distill")).Reload()
    assert [event.step for event in told.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    for name in ("loss", "kl", "ce", "tokens_per_second"):
        assert [event.value for event in told.Scalars(f"train/{name}")] == pytest.approx([step[name] for step in recorder.steps]), name
    assert [(event.step, event.value) for event in told.Scalars("eval/wikipedia_loss")] == [(4, 3.5), (6, 3.5)]


def test_text_that_runs_out_is_gone_through_again_and_said_so(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recorder = Recorder()
    run(folders, tmp_path, dataclasses.replace(SPEC, batch_blocks=2, teacher_cache="off"), recorder)
    assert recorder.notes == ["The 5 training blocks are gone through 2.4 times. More train_blocks would teach more."]


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"learning_rate": 0.0}, "learning_rate"), ({"learning_rate": 3.0}, "would destroy"), ({"learning_rate": float("nan")}, "learning_rate"),
     ({"loss": "kld"}, "loss: must be one of kl"), ({"beta": 1.0}, "beta"), ({"schedule": "step"}, "cosine, linear, wsd"), ({"intermediate": ("mlp",)}, "intermediate"),
     ({"intermediate": ("output",), "kl_weight": 0.0, "ce_weight": 1.0}, "kl_weight"), ({"report_to": ("fax",)}, "tensorboard"), ({"patience": -1}, "patience")],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_at_once(
    folders: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        run(folders, tmp_path, DistillSpec(**SPEC.to_dict() | changes))


def test_a_broken_checkpoint_gives_way_to_the_one_before(
    folders: tuple[Path, Path], tmp_path: Path, undisturbed: dict[str, Tensor]
) -> None:
    with pytest.raises(Stopped):
        run(folders, tmp_path, progress=Recorder(stop_after=4))
    newest = all_checkpoints(tmp_path / "checkpoints")[-1]
    (newest / "trainer_state.json").unlink()
    recorder = Recorder()
    out = run(folders, tmp_path, progress=recorder)
    assert [step["done"] for step in recorder.steps] == [3, 4, 5, 6]
    assert same(weights(out), undisturbed)


def test_weights_that_are_not_finite_stop_the_training_before_they_are_saved(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def poison(model: nn.Module) -> dict[str, Any]:
        next(model.parameters()).data[0, 0] = float("nan")
        return {}

    spec = DistillSpec(steps=6, checkpoint_every=2, evaluate_every=4)
    with pytest.raises(UserError, match=r"weight of model.embed_tokens.weight is not finite.*learning_rate"):
        run(folders, tmp_path, spec, measure=poison)
    assert [path.name for path in all_checkpoints(tmp_path / "checkpoints")] == ["checkpoint-2"]
    assert is_whole(tmp_path / "checkpoints" / "checkpoint-2")


def test_a_loss_that_is_not_finite_names_step_and_term(folders: tuple[Path, Path], tmp_path: Path) -> None:
    broken = tiny_model(seed=1)
    broken.model.norm.weight.data.fill_(float("inf"))
    broken.save_pretrained(tmp_path / "broken")
    with pytest.raises(UserError, match="step 1: kl is not finite"):
        run((tmp_path / "broken", folders[1]), tmp_path)
    assert not (tmp_path / "model").exists()


def test_a_disk_that_refuses_a_checkpoint_leaves_the_earlier_one_whole(folders: tuple[Path, Path], tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk(model: nn.Module) -> dict[str, Any]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
        return {}

    try:
        with pytest.raises(UserError, match="checkpoint of step 4 could not be written"):
            run(folders, tmp_path, measure=fill_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in all_checkpoints(tmp_path / "checkpoints")] == ["checkpoint-2"]
    assert is_whole(tmp_path / "checkpoints" / "checkpoint-2")


def test_checkpoints_of_other_settings_are_not_mixed_in(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(folders, tmp_path, progress=Recorder(stop_after=2))
    with pytest.raises(UserError, match=r"temperature 1\.0 there, 2\.0 here"):
        run(folders, tmp_path, DistillSpec(**SPEC.to_dict() | {"temperature": 2.0}))


def test_a_folder_that_holds_something_is_not_overwritten(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "precious").write_text("kept")
    with pytest.raises(UserError, match="not empty"):
        run(folders, tmp_path)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["precious"]


def test_what_cannot_work_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", vocab_size=101)
    (other / "tokenizer.json").unlink()
    cases = [
        ("one vocabulary", (folders[0], other), BLOCKS),
        ("context of 64", folders, random_blocks(2, 65)),
        ("at least one block", folders, BLOCKS[:0]),
        ("this model's tokenizer", folders, BLOCKS + 60),
    ]
    for message, pair, blocks in cases:
        with pytest.raises(UserError, match=message):
            distill(*pair, blocks, SPEC, tmp_path / "model", progress=Silent(), device="cpu")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_rises_from_above_zero_and_ends_at_a_tenth(schedule: str) -> None:
    curve = rate_curve(3, 23, schedule)
    rates = [curve(step) for step in range(23)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)
    assert rate_curve(0, 1, schedule)(0) == 1.0


def test_wsd_stays_level_until_its_last_fifth_and_linear_never_does() -> None:
    wsd, linear = ([rate_curve(0, 101, name)(step) for step in range(101)] for name in ("wsd", "linear"))
    assert wsd[:80] == pytest.approx([1.0] * 80)
    assert wsd[90] == pytest.approx(0.55)
    assert linear[50] == pytest.approx(0.55)


def test_the_share_of_a_devices_peak_is_told_where_that_is_known_and_nowhere_else(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert peak_flops(torch.device("cpu"), torch.bfloat16) is None
    monkeypatch.setattr("core.distill.trainer.peak_flops", lambda device, dtype: 1e9)
    recorder = Recorder()
    run(folders, tmp_path, DistillSpec(steps=1), recorder)
    student, teacher = (cost_of(load_model(folder).config.to_dict()).flops_per_token(6) for folder in folders)
    step = recorder.steps[0]
    assert step["mfu"] == pytest.approx(step["tokens_per_second"] * (3 * student + teacher) / 1e9)
