"""Liger's kernels: when they are chosen, that nothing changes without them, and that they compute the same."""

import os
import subprocess
import sys

import pytest
import torch

from core.distill import fused, liger
from core.distill.losses import Objective
from core.workspace import ROOT

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
USUAL = {"kl": 1.0, "ce": 0.0}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liger, "is_installed", lambda: True)


@pytest.mark.parametrize(
    ("weights", "device", "fit"),
    [
        (USUAL, CUDA, True), ({"kl": 0.5}, CUDA, True), (USUAL, CPU, False), (USUAL, torch.device("mps"), False),
        ({"kl": 1.0, "ce": 0.1}, CUDA, False), ({"kl": 0.0, "reverse_kl": 1.0, "ce": 0.0}, CUDA, False),
        ({"kl": 0.0, "ce": 1.0}, CUDA, False), ({"kl": 1.0, "mse": 0.0}, CUDA, False),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("installed")
def test_liger_is_taken_on_cuda_for_what_it_computes_exactly(weights: dict[str, float], device: torch.device, fit: bool) -> None:
    assert liger.is_fit(Objective(weights=weights), device) is fit


def test_liger_is_not_taken_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liger, "is_installed", lambda: False)
    assert not liger.is_fit(Objective(weights=USUAL), CUDA)


@pytest.mark.usefixtures("installed")
def test_on_a_cpu_the_fused_head_is_ours_whatever_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "liger_losses", lambda *_, **__: pytest.fail("Liger was asked on a CPU"))
    student_ND, head_VD = torch.randn(3, 4, requires_grad=True), torch.randn(9, 4)
    total, parts = fused.fused_losses(
        student_ND, head_VD, student_ND.detach(), head_VD, torch.tensor([1, 2, -100]), Objective(weights=USUAL), normaliser=2
    )
    assert float(total.detach()) == pytest.approx(0.0, abs=1e-6)
    assert float(parts[1]) > 0


def test_in_tritons_interpreter_liger_computes_the_same() -> None:
    pytest.importorskip("liger_kernel")
    pytest.importorskip("triton")
    code = """
import torch
from core.distill import fused, liger
from core.distill.losses import Objective
torch.manual_seed(0)
sides = [torch.randn(7, 5), torch.randn(33, 5)], [torch.randn(7, 6), torch.randn(33, 6)]
targets_N = torch.randint(0, 33, (7,)); targets_N[3] = -100
found = []
for compute in (fused.fused_losses, liger.liger_losses):
    states_ND, head_VD = (tensor.clone().requires_grad_() for tensor in sides[0])
    total, parts = compute(states_ND, head_VD, *sides[1], targets_N, Objective(weights={"kl": 0.7, "ce": 0.0}, temperature=2.0), normaliser=20)
    (3 * total).backward()
    found.append([total, parts, states_ND.grad, head_VD.grad])
for ours, theirs in zip(*found):
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
