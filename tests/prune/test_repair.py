"""Laws of repair: every fit is the literal least squares of what the finished models give, and where it does not help, nothing changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from core.errors import UserError
from core.model.checkpoint import check_map, load_model
from core.model.families import FAMILIES
from core.plan.plan import Plan
from core.progress import Silent, Stopped
from core.prune.repair.fit import RIDGES, Moments, fit, moments, ridged
from core.prune.repair.repair import repair_checkpoint, repair_model
from core.prune.repair.sequence import parts, steps_of
from core.prune.surgery import cut
from core.score.sites import sites_of
from core.specs import RepairSpec, Targets
from tests.prune.test_prune import AXES, build, logits, plan_for
from tests.tiny import random_blocks, save_tiny, tiny_model

pytestmark = pytest.mark.usefixtures("workspace")

BLOCKS = random_blocks(20, 32, seed=1)
MANY = random_blocks(64, 48, seed=1)
RIDGE = 0.1
SPEC = RepairSpec(ridge=RIDGE)


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def cut_model(model: Any, plan: Plan) -> torch.nn.Module:
    tensors, config = cut(state(model), model.config.to_dict(), plan)
    return build(config, tensors)


class Streams:
    """What runs through a whole model on the calibration blocks, seen from outside: float64, by name of the module."""

    def __init__(self, model: Any, blocks_NT: np.ndarray = BLOCKS) -> None:
        self.model, self.inputs, self.outputs = model, {}, {}
        hooks = [module.register_forward_hook(self._see(name)) for name, module in model.named_modules()]
        with torch.no_grad():
            model(torch.from_numpy(blocks_NT).long(), use_cache=False)
        for hook in hooks:
            hook.remove()

    def _see(self, name: str) -> Any:
        def see(_: Any, args: tuple[Any, ...], output: Any) -> None:
            if args and isinstance(args[0], torch.Tensor):
                self.inputs[name] = args[0].double().flatten(0, -2)
            if isinstance(output, torch.Tensor):
                self.outputs[name] = output.double().flatten(0, -2)

        return see


def literal(z_NC: torch.Tensor, e_NO: torch.Tensor, share: float) -> torch.Tensor:
    """D = E[e z'] (E[z z'] + r diag(E[z z']))^-1, written down once more, by an inverse."""
    zz = z_NC.T @ z_NC
    return e_NO.T @ z_NC @ torch.linalg.inv(zz + share * zz.diagonal().diag())


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_every_writer_is_the_literal_fit_of_the_repaired_network_to_the_uncut_one(kind: str, axis: str) -> None:
    teacher = tiny_model(kind)
    plan = plan_for(teacher, AXES[axis])
    student, done = repair_model(teacher, plan, BLOCKS, SPEC)
    fitted = {place["place"] for place in done["places"] if place["ridge"] is not None}
    assert fitted or axis == "layers", "in a random network no weights before stand in for a layer that is gone"
    uncut, repaired, before = Streams(teacher), Streams(student), state(cut_model(teacher, plan))
    sites, cut_sites = sites_of(teacher.config.to_dict()), sites_of(student.config.to_dict())
    bounds = [*plan.layers.tolist(), plan.source.layers]
    for position, layer in enumerate(plan.layers):
        for what, module, aim, stream in (
            ("heads", cut_sites.output_projections[position], uncut.inputs[sites.norms[layer][1]], repaired.inputs[cut_sites.norms[position][0]]),
            ("neurons", cut_sites.down_projections[position], uncut.inputs[sites.final_norm] if bounds[position + 1] == plan.source.layers
             else uncut.inputs[sites.norms[bounds[position + 1]][0]], repaired.inputs[cut_sites.norms[position][1]]),
        ):  # fmt: skip
            weight, now = before[f"{module}.weight"].double(), state(student)[f"{module}.weight"].double()
            z, bias = repaired.inputs[module], before.get(f"{module}.bias", torch.zeros(1)).double()
            e = aim[:, plan.channels] - stream - z @ weight.T - bias
            tokens = 1 / aim.square().mean(1, keepdim=True).sqrt()
            wanted = weight + literal(z * tokens, e * tokens, RIDGE) if f"layers.{position} {what}" in fitted else weight
            torch.testing.assert_close(now, wanted, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_every_reader_sees_the_literal_reconstruction_of_the_normalised_stream(kind: str) -> None:
    teacher = tiny_model(kind)
    plan = plan_for(teacher, AXES["channels"])
    student, done = repair_model(teacher, plan, BLOCKS, SPEC)
    fitted = {place["place"] for place in done["places"] if place["ridge"] is not None}
    uncut, repaired, weights, now = Streams(teacher), Streams(student), state(teacher), state(student)
    sites, eps = sites_of(teacher.config.to_dict()), teacher.config.rms_norm_eps
    seen = 0
    for place, norm in enumerate(sites.all_norms):
        name = f"layers.{place // 2} {('attention', 'mlp')[place % 2]} readers"
        n, m = (x / (x.square().mean(1, keepdim=True) + eps).sqrt() for x in (uncut.inputs[norm], repaired.inputs[norm]))
        scale = (n[:, plan.channels] * m).sum() / m.square().sum()
        gain = weights[f"{norm}.weight"].double()
        if name not in fitted:
            torch.testing.assert_close(now[f"{norm}.weight"].double(), gain[plan.channels] * scale, rtol=1e-5, atol=1e-5)
            continue
        start = torch.zeros(plan.source.hidden, len(plan.channels), dtype=torch.float64)
        start[plan.channels, range(len(plan.channels))] = scale
        whole = start + literal(m, n - m @ start.T, RIDGE)
        for reader in sites.readers[place]:
            wanted = weights[f"{reader}.weight"].double() @ (gain[:, None] * whole)
            torch.testing.assert_close(now[f"{reader}.weight"].double() * now[f"{norm}.weight"].double(), wanted, rtol=1e-3, atol=5e-4)
            seen += 1
        assert torch.equal(now[f"{norm}.weight"], steps_of(gain[plan.channels].float())), "a training's steps stay as small as they were"
    assert seen >= 3, "readers were fitted somewhere"


def test_final_gains_of_a_tied_head_are_the_least_squares_of_the_logits() -> None:
    teacher = tiny_model(tie_word_embeddings=True)
    plan = plan_for(teacher, AXES["channels"])
    student, done = repair_model(teacher, plan, MANY, RepairSpec(ridge=1e-9))
    assert done["places"][-1]["place"] == "final gains"
    assert done["places"][-1]["ridge"] is not None
    n, m = (Streams(model, MANY).inputs["model.norm"] for model in (teacher, student))
    n, m = (x / (x.square().mean(1, keepdim=True) + teacher.config.rms_norm_eps).sqrt() for x in (n, m))
    embedding = state(teacher)["model.embed_tokens.weight"].double()
    embedding = embedding - embedding.mean(0)
    aim = n * state(teacher)["model.norm.weight"].double() @ embedding.T
    design = m[:, None, :] * embedding[None, :, plan.channels]  # [N, V, K]: what each gain adds to each logit
    wanted = torch.linalg.lstsq(design.flatten(0, 1), aim.flatten()[:, None]).solution[:, 0]
    torch.testing.assert_close(state(student)["model.norm.weight"].double(), wanted, rtol=1e-3, atol=1e-3)


def test_an_untied_head_reads_like_any_other() -> None:
    teacher = tiny_model(tie_word_embeddings=False)
    plan = plan_for(teacher, AXES["channels"])
    student, done = repair_model(teacher, plan, MANY, SPEC)
    assert done["places"][-1]["place"] == "head"
    assert torch.equal(student.model.norm.weight, steps_of(teacher.model.norm.weight.detach()[plan.channels]))
    check_map(student)


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_a_plan_that_keeps_everything_changes_no_bit(kind: str) -> None:
    teacher = tiny_model(kind)
    student, done = repair_model(teacher, plan_for(teacher, Targets()), BLOCKS, RepairSpec())
    assert done["fitted"] == 0
    assert all(torch.equal(tensor, state(teacher)[name]) for name, tensor in state(student).items())


@pytest.mark.parametrize("axis", AXES)
def test_the_stream_is_nearer_to_the_uncut_one_after_every_layer(axis: str) -> None:
    teacher = tiny_model()
    plan = plan_for(teacher, AXES[axis])
    student, _ = repair_model(teacher, plan, BLOCKS, RepairSpec())
    uncut, models = Streams(teacher), [Streams(student), Streams(cut_model(teacher, plan))]
    bounds = [*plan.layers.tolist(), plan.source.layers]
    for position in range(len(plan.layers)):
        aim = uncut.outputs[f"model.layers.{bounds[position + 1] - 1}"]
        errors = [((aim[:, plan.channels] - m.outputs[f"model.layers.{position}"]) / aim.square().mean(1, keepdim=True).sqrt()).square().mean() for m in models]  # fmt: skip
        assert errors[0] <= errors[1] * (1 + 1e-6)
    counts = [sum(p.numel() for p in model.parameters()) for model in (student, cut_model(teacher, plan))]
    assert counts[0] == counts[1]


def test_the_order_of_neurons_does_not_matter() -> None:
    teacher, other = tiny_model(), tiny_model()
    order = torch.randperm(teacher.config.intermediate_size, generator=torch.manual_seed(3))
    for layer in other.model.layers:
        for projection in (layer.mlp.gate_proj, layer.mlp.up_proj):
            projection.weight.data = projection.weight[order]
        layer.mlp.down_proj.weight.data = layer.mlp.down_proj.weight[:, order]
    first, second = (repair_model(m, plan_for(m, AXES["neurons"]), BLOCKS, SPEC)[0] for m in (teacher, other))
    torch.testing.assert_close(logits(first), logits(second), rtol=1e-3, atol=2e-3)


def test_the_number_of_blocks_a_pass_does_not_matter() -> None:
    teacher = tiny_model()
    plan = plan_for(teacher, AXES["all"])
    first, second = (repair_model(teacher, plan, BLOCKS, RepairSpec(ridge=RIDGE, batch_size=size))[0] for size in (1, 5))
    torch.testing.assert_close(logits(first), logits(second), rtol=1e-3, atol=2e-3)


def test_inputs_of_another_size_are_fitted_alike() -> None:
    torch.manual_seed(1)
    z_NC, e_NO, sizes_C = torch.randn(200, 12), torch.randn(200, 3), torch.logspace(-1, 1, 12)
    plain, scaled = (ridged(moments([(z, e_NO)]), 0.1) for z in (z_NC, z_NC * sizes_C))
    torch.testing.assert_close(scaled * sizes_C.double(), plain, rtol=1e-4, atol=1e-6)


def test_an_error_of_rounding_is_not_fitted() -> None:
    torch.manual_seed(0)
    z_NC = torch.randn(200, 5)
    sums = moments([(z_NC, z_NC[:, :2] * 1e-6)])
    assert fit(sums, sums, None).change_OC is None


def test_an_endless_ridge_leaves_the_cut() -> None:
    teacher = tiny_model()
    plan = plan_for(teacher, AXES["all"])
    student, done = repair_model(teacher, plan, BLOCKS, RepairSpec(ridge=1e12))
    before = state(cut_model(teacher, plan))
    assert done["fitted"] == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(student).items() if "norm" not in name)


def test_too_few_tokens_leave_the_cut_and_say_so() -> None:
    class Heard(Silent):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, message: str) -> None:
            self.notes.append(message)

    heard = Heard()
    teacher = tiny_model()
    plan = plan_for(teacher, AXES["neurons"])
    student, done = repair_model(teacher, plan, BLOCKS[:1, :16], RepairSpec(), heard)
    before = state(cut_model(teacher, plan))
    assert all(torch.equal(state(student)[name], before[name]) for name in before if name.endswith("o_proj.weight"))
    assert done["too_few_tokens"] > 0
    assert "12 tokens that a repair fits on are fewer" in heard.notes[0]
    short = {place["place"] for place in done["places"] if place["short"]}
    assert "layers.0 heads" in short, "48 inputs and 12 tokens"


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_a_checkpoint_is_repaired_as_a_model_is_and_keeps_its_number_format(kind: str, tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source", kind, tie_word_embeddings=kind != "qwen3")
    teacher = load_model(source)
    plan = plan_for(teacher, AXES["all"])
    student, done = repair_model(teacher, plan, BLOCKS, RepairSpec())
    assert repair_checkpoint(source, plan, BLOCKS, RepairSpec(), tmp_path / "repaired", {"model": "source"}, Silent()) == done
    reloaded = load_model(tmp_path / "repaired")
    check_map(reloaded)
    assert torch.equal(logits(reloaded), logits(student))
    assert {"tokenizer.json", "README.md", "config.json"} <= {file.name for file in (tmp_path / "repaired").iterdir()}
    with pytest.raises(UserError, match="exists already"):
        repair_checkpoint(source, plan, BLOCKS, RepairSpec(), tmp_path / "repaired", {}, Silent())
    tiny_model(kind).bfloat16().save_pretrained(tmp_path / "half")
    repair_checkpoint(tmp_path / "half", plan, BLOCKS, RepairSpec(), tmp_path / "small", {}, Silent())
    with safe_open(tmp_path / "small" / "model.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_a_stopped_repair_leaves_nothing_and_begins_again(tmp_path: Path) -> None:
    class StopsAt(Silent):
        def step(self, phase: str, done: int, total: int, **metrics: Any) -> None:
            if done == 2:
                raise Stopped

    source = save_tiny(tmp_path / "source")
    teacher = load_model(source)
    plan = plan_for(teacher, AXES["neurons"])
    with pytest.raises(Stopped):
        repair_checkpoint(source, plan, BLOCKS, RepairSpec(), tmp_path / "repaired", {}, StopsAt())
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    repair_checkpoint(source, plan, BLOCKS, RepairSpec(), tmp_path / "repaired", {}, Silent())
    assert torch.equal(logits(load_model(tmp_path / "repaired")), logits(repair_model(teacher, plan, BLOCKS, RepairSpec())[0]))


def test_a_ridge_is_chosen_by_tokens_that_are_not_fitted() -> None:
    torch.manual_seed(0)
    truth, z = torch.randn(3, 30), torch.randn(64, 30)
    noisy = [moments([(z[rows], z[rows] @ truth.T * strength + torch.randn(len(z[rows]), 3))]) for strength in (0, 2) for rows in (slice(40), slice(40, 64))]  # fmt: skip
    assert fit(noisy[0], noisy[1], None).change_OC is None, "noise is not fitted"
    found = fit(noisy[2], noisy[3], None)
    assert found.gain > 0.5
    assert found.change_OC is not None
    errors = {share: noisy[3].error(ridged(noisy[2], share)) for share in RIDGES}
    assert found.ridge == min(errors, key=lambda share: errors[share])
    direct = ((z[40:] @ truth.T * 0) - z[40:] @ found.change_OC.float().T).square().sum()
    plain = Moments(zz_CC=noisy[1].zz_CC, ez_OC=noisy[1].ez_OC * 0, ee=0.0, tokens=24)
    assert plain.error(found.change_OC) == pytest.approx(float(direct), rel=1e-4)


def test_no_token_is_fitted_and_held_back() -> None:
    for blocks, seq_len in ((1, 9), (2, 8), (3, 8), (4, 8), (16, 8)):
        seen = np.zeros((blocks, seq_len), int)
        fitted, held = parts(blocks, seq_len)
        assert fitted
        assert held
        for place in fitted + held:
            seen[place] += 1
        assert (seen == 1).all()


def test_layers_that_learn_come_nearer_to_the_uncut_ones_and_are_the_same_again() -> None:
    teacher = tiny_model()
    plan = plan_for(teacher, AXES["neurons"])
    closed, _ = repair_model(teacher, plan, MANY, RepairSpec())
    spec = RepairSpec(method="thorough", steps=12, learning_rate=3e-3, passes=0)
    (first, done), (second, _) = repair_model(teacher, plan, MANY, spec), repair_model(teacher, plan, MANY, spec)
    learnt = [place["gain"] for place in done["places"] if place["place"].endswith("learnt")]
    assert len(learnt) == len(plan.layers)
    assert min(learnt) >= 0
    assert max(learnt) > 0
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    held = MANY[[block for block, _ in parts(*MANY.shape)[1]]]
    aim, *streams = (Streams(model, held).outputs["model.layers.0"] for model in (teacher, first, closed))
    errors = [((aim - stream).square().mean(1) / aim.square().mean(1)).mean() for stream in streams]
    assert float(1 - errors[0] / errors[1]) == pytest.approx(learnt[0], abs=1e-4), "the gain is that of tokens it did not learn from"


def test_a_layer_that_learns_nothing_of_use_stays_as_it_was_fitted() -> None:
    teacher = tiny_model()
    plan = plan_for(teacher, AXES["neurons"])
    closed, _ = repair_model(teacher, plan, BLOCKS, RepairSpec())
    wild, _ = repair_model(teacher, plan, BLOCKS, RepairSpec(method="thorough", steps=4, learning_rate=100.0, passes=0))
    assert all(torch.equal(a, b) for a, b in zip(wild.parameters(), closed.parameters(), strict=True))


def test_gains_keep_their_size_and_sign_and_are_never_nothing() -> None:
    gains = torch.tensor([1.0, -2.0, 1e-9, -1e-9, 0.0])
    kept = steps_of(gains)
    assert torch.equal(kept[:2], gains[:2])
    assert kept[2:].abs().min() > 1e-3
    assert torch.equal(kept[2:].sign(), torch.tensor([1.0, -1.0, 1.0]))
