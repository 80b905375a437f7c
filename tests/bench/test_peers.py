"""Laws of other tools' formulas on a tiny model: cutting nothing changes nothing, and each does what its paper says."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bench.peers import flap, llm_pruner, minitron, optipfair, osscar, slicegpt
from bench.peers.ground import Given, Ground, changed, inputs_of, run_layer
from core.model.dims import Dims
from core.plan.plan import keep_masks
from core.prune.mask import masked
from core.specs import RankSpec, Targets
from tests.bench.tiny import tiny_ground
from tests.tiny import SIZES, random_blocks, tiny_model

SELECTIONS = {
    "minitron": minitron.ffn, "optipfair": optipfair.by_formula, "flap": flap.ffn, "flap with bias": flap.ffn_with_bias,
    "taylor": llm_pruner.taylor_ffn, "osscar": osscar.ffn,
}  # fmt: skip
EVERY = SELECTIONS | {"groups": minitron.ffn_and_groups, "depth": minitron.depth, "flap groups": flap.groups_and_ffn_with_bias}


@pytest.fixture
def ground() -> Ground:
    return tiny_ground(6, 32)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.from_numpy(random_blocks(2, 16, seed=1).astype(np.int64))).logits


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_share_of_nothing_changes_nothing(name: str, ground: Ground) -> None:
    whole = logits(ground.model)
    with SELECTIONS[name](ground, 0.0).apply():
        torch.testing.assert_close(logits(ground.model), whole, rtol=1e-3, atol=2e-2)


@pytest.mark.parametrize("name", EVERY)
def test_a_cut_changes_the_model_only_while_it_is_applied(name: str, ground: Ground) -> None:
    whole = logits(ground.model)
    cut = EVERY[name](ground, 0.15)
    torch.testing.assert_close(logits(ground.model), whole, rtol=0, atol=0)
    with cut.apply():
        assert not torch.allclose(logits(ground.model), whole, atol=1e-3)
    torch.testing.assert_close(logits(ground.model), whole, rtol=0, atol=0)
    if name not in ("depth", "flap with bias", "flap groups"):
        assert cut.parameters == pytest.approx(ground.budget(0.15), rel=0.02)


def test_osscar_fits_what_stays_by_least_squares() -> None:
    rng = torch.Generator().manual_seed(0)
    rows_NF, weight_FD = torch.randn(300, 12, generator=rng) @ torch.randn(12, 12, generator=rng), torch.randn(12, 5, generator=rng)
    found_FD = osscar.solve(rows_NF.T @ rows_NF, weight_FD, 7)
    stay = found_FD.abs().sum(1).nonzero().squeeze(1)
    assert len(stay) == 7
    damping = osscar.DAMPING * (rows_NF**2).sum(0).mean()
    damped_MF = torch.cat([rows_NF, damping.sqrt() * torch.eye(12)])
    best_SD = torch.linalg.lstsq(damped_MF[:, stay], damped_MF @ weight_FD).solution
    torch.testing.assert_close(found_FD[stay], best_SD, rtol=1e-3, atol=1e-3)


def test_osscar_removes_the_neuron_without_which_the_error_is_least() -> None:
    rng = torch.Generator().manual_seed(1)
    rows_NF, weight_FD = torch.randn(200, 9, generator=rng) @ torch.randn(9, 9, generator=rng), torch.randn(9, 4, generator=rng)
    damping = osscar.DAMPING * (rows_NF**2).sum(0).mean()
    damped_MF = torch.cat([rows_NF, damping.sqrt() * torch.eye(9)])
    errors = []
    for gone in range(9):
        rest = [i for i in range(9) if i != gone]
        fitted = torch.linalg.lstsq(damped_MF[:, rest], damped_MF @ weight_FD).solution
        errors.append(float((damped_MF[:, rest] @ fitted - damped_MF @ weight_FD).square().sum()))
    found_FD = osscar.solve(rows_NF.T @ rows_NF, weight_FD, 8)
    assert (found_FD.abs().sum(1) == 0).nonzero().item() == int(np.argmin(errors))


def test_flap_s_bias_keeps_the_mean_of_what_the_projection_gives(ground: Ground) -> None:
    plan = ground.keep(ground.ffn_for(0.15), ground.scores(), flap.FLUCTUATION)
    with_bias, without = (
        mean_output(ground, apply) for apply in (flap.ffn_with_bias(ground, 0.15).apply, lambda: masked(ground.model, ground.config, plan))
    )
    whole = mean_output(ground, contextlib.nullcontext)
    torch.testing.assert_close(with_bias, whole, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(without, whole, atol=1e-3)


def mean_output(ground: Ground, apply: Callable[[], Any]) -> torch.Tensor:
    """Mean over the calibration tokens of what the first down projection gives, ``[D]``."""
    outputs: list[torch.Tensor] = []
    module = ground.layers()[0].mlp.down_proj
    with torch.no_grad(), apply(), module.register_forward_hook(lambda _, args, output: outputs.append(output)):
        ground.model(ground.calibration_NT)
    return outputs[0].mean((0, 1))


def test_taylor_is_the_weight_times_its_gradient(ground: Ground) -> None:
    kept = ground.ffn_for(0.15).intermediate_size or 0
    cut = llm_pruner.taylor_ffn(ground, 0.15)
    model = tiny_model()
    for ids_T in ground.calibration_NT:
        model(ids_T[None], labels=ids_T[None]).loss.backward()
    mlp = model.model.layers[2].mlp
    score_F = (mlp.up_proj.weight * mlp.up_proj.weight.grad).abs().sum(1) + (mlp.gate_proj.weight * mlp.gate_proj.weight.grad).abs().sum(1)
    score_F += (mlp.down_proj.weight * mlp.down_proj.weight.grad).abs().sum(0)
    read: list[torch.Tensor] = []
    with cut.apply(), ground.layers()[2].mlp.down_proj.register_forward_hook(lambda _, args, output: read.append(args[0])):
        logits(ground.model)
    assert set((read[0].abs().sum((0, 1)) > 0).nonzero().flatten().tolist()) == set(score_F.topk(kept).indices.tolist())


def test_slicegpt_at_full_width_is_the_model_itself(ground: Ground) -> None:
    whole = logits(ground.model)
    bases = [(torch.linalg.qr(torch.randn(24, 24)).Q, torch.linalg.qr(torch.randn(24, 24)).Q) for _ in ground.layers()]
    with slicegpt._projected(ground, bases):
        torch.testing.assert_close(logits(ground.model), whole, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(logits(ground.model), whole, rtol=0, atol=0)


def test_slicegpt_counts_the_parameters_that_its_own_code_made() -> None:
    dims = Dims(layers=30, hidden=576, ffn=1536, heads=9, kv_heads=3, head_dim=64, vocab=49152)
    assert slicegpt.parameters(dims, 312) == 107_483_328


def test_slicegpt_s_components_hold_as_much_of_the_stream_as_any(ground: Ground) -> None:
    hidden_NTD = ground.embedded()
    basis_DW = slicegpt.principal(hidden_NTD, 9)
    kept = slicegpt.project(hidden_NTD, basis_DW).square().sum()
    other = slicegpt.project(hidden_NTD, torch.linalg.qr(torch.randn(24, 9)).Q).square().sum()
    torch.testing.assert_close(basis_DW.T @ basis_DW, torch.eye(9), rtol=0, atol=1e-5)
    assert other < kept <= hidden_NTD.square().sum()


def test_a_layer_run_by_itself_gives_what_it_gives_in_the_model(ground: Ground) -> None:
    hidden_NTD, seen = ground.embedded(), []
    with ground.layers()[1].register_forward_pre_hook(lambda _, args: seen.append(args[0])), torch.no_grad():
        ground.model(ground.calibration_NT)
    torch.testing.assert_close(run_layer(ground.layers()[0], hidden_NTD, ground.positions(hidden_NTD)), seen[0], rtol=1e-4, atol=1e-4)


def test_what_a_module_reads_is_handed_over_as_rows(ground: Ground) -> None:
    rows: list[torch.Tensor] = []
    with inputs_of(ground.layers()[0].mlp.down_proj, rows.append):
        logits(ground.model)
    logits(ground.model)
    assert [row.shape for row in rows] == [(2 * 16, SIZES["intermediate_size"])]


def test_changed_parameters_come_back(ground: Ground) -> None:
    name, whole = "model.layers.0.mlp.down_proj.weight", logits(ground.model)
    with changed(ground.model, {name: torch.zeros(24, 40)}):
        assert not torch.allclose(logits(ground.model), whole)
    torch.testing.assert_close(logits(ground.model), whole, rtol=0, atol=0)


def test_the_ffn_size_comes_as_close_to_the_budget_as_any(ground: Ground) -> None:
    for share in (0.1, 0.2):
        found = ground.parameters(ground.ffn_for(share))
        others = [ground.parameters(Targets(intermediate_size=ffn)) for ffn in range(1, 41)]
        assert abs(found - ground.budget(share)) == min(abs(other - ground.budget(share)) for other in others)


def test_given_importance_keeps_its_highest(ground: Ground) -> None:
    values = np.random.default_rng(0).random((5, 40))
    plan = ground.keep(Targets(intermediate_size=11), {"neurons": values}, RankSpec())
    assert isinstance(Given(ground.dims, {}).importance("channels", RankSpec()), np.ndarray)
    assert all(values[keep_masks(plan)["neurons"]].reshape(5, 11).min(1) >= np.sort(values, 1)[:, -11])
