"""Intermediate states: heard where the paper says, compared as it says, and without a trace in the model."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.distill.checkpoints import all_checkpoints
from core.distill.states import PROJECTION, Matching, attach_projection, detach_projection, listening
from core.distill.trainer import distill
from core.errors import UserError
from core.model.checkpoint import load_model
from core.model.dims import dims_of
from core.model.head import hidden_states
from core.plan.plan import Plan
from core.progress import Silent, Stopped
from core.specs import STATES, DistillSpec, RankSpec, Targets
from tests.distill.test_trainer import BLOCKS, Recorder, same, weights
from tests.tiny import random_blocks, save_tiny, tiny_config, tiny_model

SPEC = DistillSpec(steps=4, learning_rate=1e-3, checkpoint_every=2, intermediate=STATES, layer_map=("0:1", "2:4"))
NARROW = {"hidden_size": 18, "num_hidden_layers": 3, "num_attention_heads": 3, "num_key_value_heads": 3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A student that is narrower, shallower and has fewer heads than its teacher."""
    home = tmp_path_factory.mktemp("models")
    return save_tiny(home / "student", seed=1, **NARROW), save_tiny(home / "teacher", seed=2)


def run(folders: tuple[Path, Path], home: Path, spec: DistillSpec = SPEC, progress: Any = None, **more: Any) -> Path:
    return distill(*folders, BLOCKS, spec, home / "model", progress=progress or Silent(), device="cpu", **more)


def every_state(model: Any, tokens_BT: Tensor) -> dict[tuple[str, int], Tensor]:
    with listening(model, [("output", layer) for layer in range(len(model.model.layers))] + [("embedding", 0), ("input", 1)]) as heard:
        hidden_states(model, tokens_BT)
    return heard


def test_states_are_heard_after_a_norm_and_nothing_stays_in_the_model() -> None:
    model, tokens_BT = tiny_model(seed=3), torch.from_numpy(random_blocks(2, 7)).long()
    heard = every_state(model, tokens_BT)
    assert not any(module._forward_hooks for module in model.modules())
    out = model.model(tokens_BT, output_hidden_states=True)
    torch.testing.assert_close(heard["output", 4], out.last_hidden_state)
    torch.testing.assert_close(heard["output", 1], model.model.layers[2].input_layernorm(out.hidden_states[2]))
    torch.testing.assert_close(heard["embedding", 0], model.model.layers[0].input_layernorm(model.model.embed_tokens(tokens_BT)))
    assert not torch.allclose(heard["input", 1], heard["output", 1])


@pytest.mark.parametrize("model_type", ["llama", "mistral", "smollm3", "qwen2", "qwen3"])
def test_every_family_can_be_heard(model_type: str) -> None:
    model = tiny_model(model_type)
    matching = Matching(kinds=STATES, pairs=((0, 0), (4, 4)), distance="cosine")
    with listening(model, matching.sites(0)) as heard:
        hidden_states(model, torch.from_numpy(random_blocks(1, 6)).long())
    assert set(heard) == set(matching.sites(0)) == set(matching.sites(1))


@pytest.mark.parametrize("distance", ["cosine", "mse"])
@pytest.mark.parametrize("kind", STATES)
def test_a_model_is_at_no_distance_from_itself_and_at_some_from_another(kind: str, distance: str) -> None:
    one, other = tiny_model(seed=1), tiny_model(seed=2)
    assert losses(one, one, kind, distance).item() == pytest.approx(0, abs=1e-5)
    assert losses(one, other, kind, distance).item() > 0.01


def losses(student: Any, teacher: Any, kind: str, distance: str = "cosine", valid: Any = None, pairs: Any = ((1, 2),)) -> Tensor:
    tokens_BT = torch.from_numpy(random_blocks(2, 7)).long()
    valid_BT = torch.ones(2, 7, dtype=torch.bool) if valid is None else valid
    pairs = ((1, 1),) if student is teacher else pairs
    matching = Matching(kinds=(kind,), pairs=pairs, distance=distance)
    with listening(student, matching.sites(0)) as heard:
        hidden_states(student, tokens_BT)
        ours = dict(heard)
    with listening(teacher, matching.sites(1)) as theirs:
        hidden_states(teacher, tokens_BT)
    return matching.losses(ours, theirs, (student, teacher), valid_BT, valid_BT.sum())[0]


def test_distances_equal_their_formulas_in_float64() -> None:
    student, teacher = tiny_model(seed=1), tiny_model(seed=2)
    tokens_BT = torch.from_numpy(random_blocks(2, 7)).long()
    one, other = (every_state(model, tokens_BT)["output", i].double() for model, i in ((student, 1), (teacher, 2)))
    cosine = 1 - (one * other).sum(-1) / (one.norm(dim=-1) * other.norm(dim=-1))
    error = (one - other).square().sum(-1) / other.square().sum(-1)
    assert losses(student, teacher, "output").item() == pytest.approx(cosine.mean().item(), rel=1e-5)
    assert losses(student, teacher, "output", "mse").item() == pytest.approx(error.mean().item(), rel=1e-5)


def test_relations_equal_their_formula_in_float64_head_by_head_and_token_by_token() -> None:
    """MiniLMv2's relations over what a decoder looks back at; the number of relation heads divides both models' own."""
    student, teacher = tiny_model(seed=1, num_attention_heads=3), tiny_model(seed=2)
    tokens_BT = torch.from_numpy(random_blocks(2, 7)).long()
    total = 0.0
    for part in ("query", "key", "value"):
        seen = []
        for model, layer in ((student, 1), (teacher, 2)):
            with listening(model, [(part, layer)]) as heard:
                hidden_states(model, tokens_BT)
            seen.append(heard[part, layer].detach().double().unflatten(-1, (3, -1)))
        for b in range(2):
            for head in range(3):
                for t in range(7):
                    s, p = ((x[b, : t + 1, head] @ x[b, t, head] / math.sqrt(x.shape[-1])).softmax(-1) for x in seen)
                    total += float((p * (p / s).log()).sum()) / (3 * 3 * 2 * 7)
    assert losses(student, teacher, "attention").item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("kind", STATES)
def test_ignored_tokens_contribute_nothing(kind: str) -> None:
    student, teacher = tiny_model(seed=1), tiny_model(seed=2)
    valid_BT = torch.ones(2, 7, dtype=torch.bool)
    valid_BT[1] = False
    half = losses(student, teacher, kind, valid=valid_BT)
    whole = losses(student, teacher, kind)
    other_half = losses(student, teacher, kind, valid=~valid_BT)
    torch.testing.assert_close(whole, (half + other_half) / 2)
    assert losses(student, teacher, kind, valid=torch.zeros(2, 7, dtype=torch.bool)) == 0


def test_the_teacher_is_never_reached_and_the_student_is() -> None:
    student, teacher = tiny_model(seed=1), tiny_model(seed=2)
    losses(student, teacher, "attention").backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.model.layers[1].self_attn.v_proj.weight.grad.abs().sum() > 0


def some_plan(channels: np.ndarray) -> Plan:
    source = dims_of(tiny_config().to_dict())
    none = np.zeros((3, 0), dtype=np.int64)
    return Plan(
        targets=Targets(), rank=RankSpec(), source=source, layers=np.array([0, 2, 4]), kv_heads=none, heads=none, neurons=none,
        channels=channels,
    )  # fmt: skip


def test_the_projection_puts_each_channel_back_where_it_was() -> None:
    student, channels = tiny_model(**NARROW), np.arange(0, 36, 2)
    attach_projection(student, 40, some_plan(channels), seed=0)
    states_D = torch.randn(18)
    found_E = getattr(student, PROJECTION)(states_D)
    assert torch.equal(found_E[channels], states_D)
    assert found_E.count_nonzero() == 18


def test_the_projection_is_the_same_each_time_and_draws_from_nobodys_luck() -> None:
    made = []
    for _ in range(2):
        student, before = tiny_model(**NARROW), torch.get_rng_state()
        attach_projection(student, 24, None, seed=5)
        assert torch.equal(torch.get_rng_state(), before)
        made.append(getattr(student, PROJECTION).weight.detach())
    assert torch.equal(*made)
    detach_projection(student)
    assert PROJECTION not in dict(student.named_modules())
    attach_projection(student, 18, None, seed=5)
    assert PROJECTION not in dict(student.named_modules()), "equal widths need none"


def test_states_are_learnt_from_and_every_term_is_told(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recorder = Recorder()
    run(folders, tmp_path, dataclasses.replace(SPEC, steps=25, learning_rate=1e-2, checkpoint_every=100), recorder)
    first, last = recorder.steps[0], recorder.steps[-1]
    assert {*STATES, "kl", "ce", "balance"} <= first.keys()
    for kind in ("output", "input", "embedding", "attention"):
        assert last[kind] < first[kind], kind


def test_states_weigh_as_much_as_the_logits(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """With alpha = L_logits / L_is the whole is twice the logits' loss, up to the change since the step before."""
    recorder = Recorder()
    run(folders, tmp_path, dataclasses.replace(SPEC, learning_rate=1e-6), recorder)
    for before, step in zip(recorder.steps, recorder.steps[1:], strict=False):
        assert step["balance"] == pytest.approx(before["kl"] / sum(before[kind] for kind in STATES), rel=1e-5)
        assert step["loss"] == pytest.approx(step["kl"] + step["balance"] * sum(step[kind] for kind in STATES), rel=1e-5)
        assert step["loss"] == pytest.approx(2 * step["kl"], rel=0.3)


def test_accumulated_batches_equal_one_large_batch(folders: tuple[Path, Path], tmp_path: Path) -> None:
    found = []
    for batch, accumulation in ((1, 2), (2, 1)):
        recorder = Recorder()
        spec = dataclasses.replace(SPEC, batch_blocks=batch, accumulation=accumulation)
        out = run(folders, tmp_path / str(batch), spec, recorder)
        found.append((recorder.steps, weights(out)))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        names = ("loss", "kl", "balance", "grad_norm", *STATES)
        assert [one[name] for name in names] == pytest.approx([other[name] for name in names], rel=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-5)


def test_the_projection_is_learnt_and_saved_on_the_way_and_thrown_away_at_the_end(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = run(folders, tmp_path)
    assert weights(out).keys() == weights(folders[0]).keys()
    from safetensors.torch import load_file

    first, last = (load_file(path / "model.safetensors") for path in all_checkpoints(tmp_path / "checkpoints"))
    name = f"{PROJECTION}.weight"
    assert not torch.equal(first[name], last[name])
    moments = torch.load(all_checkpoints(tmp_path / "checkpoints")[-1] / "optimizer.pt", weights_only=True)["state"]
    assert len(moments) == len(weights(out)) + 1
    assert load_model(out).config.hidden_size == 18


def test_a_stopped_run_ends_as_if_undisturbed(folders: tuple[Path, Path], tmp_path: Path) -> None:
    expected = weights(run(folders, tmp_path / "undisturbed"))
    with pytest.raises(Stopped):
        run(folders, tmp_path / "stopped", progress=Recorder(stop_after=3))
    recorder = Recorder()
    assert same(weights(run(folders, tmp_path / "stopped", progress=recorder)), expected)
    assert [step["done"] for step in recorder.steps] == [4]


@pytest.mark.parametrize("intermediate", [(), STATES])
def test_computing_activations_twice_changes_no_bit(folders: tuple[Path, Path], tmp_path: Path, intermediate: tuple[str, ...]) -> None:
    spec = dataclasses.replace(SPEC, intermediate=intermediate)
    kept = weights(run(folders, tmp_path / "kept", spec))
    twice = weights(run(folders, tmp_path / "twice", dataclasses.replace(spec, gradient_checkpointing=True)))
    assert same(kept, twice)


def test_auto_follows_the_depth_that_went(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recorder = Recorder()
    run(folders, tmp_path / "deep", dataclasses.replace(SPEC, intermediate=("auto",), layer_map=()), recorder)
    assert {"output", "embedding"} <= recorder.steps[0].keys()
    assert "attention" not in recorder.steps[0]
    recorder = Recorder()
    run((folders[1], folders[1]), tmp_path / "whole", dataclasses.replace(SPEC, intermediate=("auto",)), recorder)
    assert not set(STATES) & recorder.steps[0].keys()


def test_states_and_a_teacher_without_a_body_do_not_go_together(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COPPICE_WORKSPACE", str(tmp_path / "workspace"))
    assert any("teacher_cache" in problem for problem in DistillSpec(intermediate=("output",), teacher_cache="float32").problems())
    with pytest.raises(UserError, match="teacher_cache"):
        run(folders, tmp_path, dataclasses.replace(SPEC, intermediate=("output",), teacher_cache="float32"))
    recorder = Recorder()
    run(folders, tmp_path, dataclasses.replace(SPEC, intermediate=("auto",), teacher_cache="float32"), recorder)
    assert not set(STATES) & recorder.steps[0].keys(), "what was only advised gives way"
