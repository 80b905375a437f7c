"""Laws of the losses and of the fused head that computes them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core.distill.losses import LOSSES, Objective, fused_losses
from core.model import head
from core.model.head import head_weight, hidden_states
from tests.tiny import random_blocks, tiny_model

N, VOCAB, STUDENT, TEACHER = 13, 97, 5, 7
BOTH = Objective(weights={"kl": 0.7, "ce": 0.4}, temperature=2.0)
EACH = [Objective(weights={name: 1.0}, temperature=t) for name in LOSSES for t in (1.0, 2.0)]


def parts(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random hidden states, heads and targets, with logits of a few units; three targets do not count."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    targets_N = torch.randint(0, VOCAB, (N,), generator=generator)
    targets_N[[0, 5, 12]] = -100
    return {
        "student_ND": normal(N, STUDENT).requires_grad_(), "student_head_VD": normal(VOCAB, STUDENT).requires_grad_(),
        "teacher_NE": normal(N, TEACHER), "teacher_head_VE": normal(VOCAB, TEACHER), "targets_N": targets_N,
    }  # fmt: skip


def literal(student_ND: Tensor, student_head_VD: Tensor, teacher_NE: Tensor, teacher_head_VE: Tensor, targets_N: Tensor,
            objective: Objective) -> Tensor:  # fmt: skip
    """The objective as the paper prints it, on all logits at once."""
    student_NV, teacher_NV, t = student_ND @ student_head_VD.T, teacher_NE @ teacher_head_VE.T, objective.temperature
    valid_N = targets_N != -100
    teacher_p_NV = (teacher_NV / t).softmax(-1)
    kl_N = (teacher_p_NV * (teacher_p_NV.log() - (student_NV / t).softmax(-1).log())).sum(-1)
    ce_N = F.cross_entropy(student_NV, targets_N, ignore_index=-100, reduction="none")
    total_N = objective.weights.get("kl", 0.0) * t**2 * kl_N + objective.weights.get("ce", 0.0) * ce_N
    return total_N[valid_N].sum() / valid_N.sum()


def gradients(total: Tensor, given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, [given["student_ND"], given["student_head_VD"]])


@pytest.mark.parametrize("objective", [*EACH, BOTH], ids=lambda o: f"{'+'.join(o.weights)}@{o.temperature}")
def test_value_and_gradients_equal_the_formula_in_float64(objective: Objective) -> None:
    given, exact = parts(), parts(torch.float64)
    total, _ = fused_losses(**given, objective=objective, normaliser=N - 3)
    expected = literal(**exact, objective=objective)
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=0)
    for found, wanted in zip(gradients(total, given), gradients(expected, exact), strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("chunk", [1, 3, N])
def test_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = parts(torch.float64)
    whole, _ = fused_losses(**given, objective=BOTH, normaliser=10)
    monkeypatch.setattr(head, "STRIP_BYTES", 4 * VOCAB * 2)
    total, _ = fused_losses(**given, objective=BOTH, normaliser=10, chunk=chunk)
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(gradients(total, given), gradients(whole, given))


@pytest.mark.parametrize("objective", EACH, ids=lambda o: f"{'+'.join(o.weights)}@{o.temperature}")
def test_gradients_equal_finite_differences(objective: Objective) -> None:
    given = parts(torch.float64)

    def value(student_ND: Tensor, student_head_VD: Tensor) -> Tensor:
        return fused_losses(**given | {"student_ND": student_ND, "student_head_VD": student_head_VD}, objective=objective, normaliser=10)[0]

    assert torch.autograd.gradcheck(value, (given["student_ND"], given["student_head_VD"]))


def test_kl_of_a_model_to_itself_is_zero_and_teaches_nothing() -> None:
    given = parts()
    same = given | {"teacher_NE": given["student_ND"].detach(), "teacher_head_VE": given["student_head_VD"].detach()}
    total, _ = fused_losses(**same, objective=Objective(weights={"kl": 1.0}), normaliser=10)
    assert total == 0
    assert all((grad == 0).all() for grad in gradients(total, given))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_no_loss_is_negative(name: str) -> None:
    log_student_NV, log_teacher_NV = torch.randn(2, 200, VOCAB).mul(4).log_softmax(-1)
    values_N, _ = LOSSES[name].function(log_student_NV, log_teacher_NV, torch.randint(0, VOCAB, (200,)))
    assert (values_N >= 0).all()


def test_ignored_tokens_contribute_nothing_whatever_they_hold() -> None:
    given = parts()
    total, _ = fused_losses(**given, objective=BOTH, normaliser=10)
    poisoned = given | {"student_ND": given["student_ND"].detach().clone(), "teacher_NE": given["teacher_NE"].clone()}
    poisoned["student_ND"][5] = poisoned["teacher_NE"][5] = float("nan")
    poisoned["student_ND"].requires_grad_()
    again, _ = fused_losses(**poisoned, objective=BOTH, normaliser=10)
    assert again == total
    assert (gradients(again, poisoned)[0][[0, 5, 12]] == 0).all()


def test_a_batch_without_valid_tokens_gives_zero() -> None:
    given = parts()
    given["targets_N"] = torch.full((N,), -100)
    total, each = fused_losses(**given, objective=BOTH, normaliser=0)
    assert total == 0
    assert each.tolist() == [0, 0]
    assert all((grad == 0).all() for grad in gradients(total, given))


def test_a_weight_of_zero_shows_a_loss_without_learning_from_it() -> None:
    given = parts()
    watched, each = fused_losses(**given, objective=Objective(weights={"kl": 1.0, "ce": 0.0}), normaliser=10)
    alone, (kl,) = fused_losses(**given, objective=Objective(weights={"kl": 1.0}), normaliser=10)
    valid_N = given["targets_N"] != -100
    ce = F.cross_entropy(given["student_ND"][valid_N] @ given["student_head_VD"].T, given["targets_N"][valid_N])
    torch.testing.assert_close(each, torch.stack([kl, ce.detach()]))
    assert watched == alone == kl
    assert all(map(torch.equal, gradients(watched, given), gradients(alone, given)))


def test_sums_of_two_halves_are_the_whole() -> None:
    given = parts()
    halves = [
        {name: value[s] if name[-2:] in ("ND", "NE", "_N") else value for name, value in given.items()} for s in (slice(6), slice(6, N))
    ]
    whole, _ = fused_losses(**given, objective=BOTH, normaliser=10)
    summed = sum(fused_losses(**half, objective=BOTH, normaliser=10)[0] for half in halves)
    torch.testing.assert_close(summed, whole)


def test_bfloat16_comes_close_to_float32_and_keeps_the_dtypes_of_gradients() -> None:
    given = parts(torch.bfloat16)
    total, _ = fused_losses(**given, objective=BOTH, normaliser=10)
    expected = literal(**parts(), objective=BOTH)
    assert total.item() == pytest.approx(expected.item(), rel=0.05)
    assert {grad.dtype for grad in gradients(total, given)} == {torch.bfloat16}


def test_autocast_reaches_the_fused_head() -> None:
    given = parts()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = fused_losses(**given, objective=BOTH, normaliser=10)
    assert total.item() == pytest.approx(literal(**parts(), objective=BOTH).item(), rel=0.05)
    assert {grad.dtype for grad in gradients(total, given)} == {torch.float32}


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_through_a_model_equal_plain_autograd(tied: bool) -> None:
    student, teacher = tiny_model(seed=1, tie_word_embeddings=tied), tiny_model(seed=2, hidden_size=30)
    tokens_BT = torch.from_numpy(random_blocks(2, 9)).long()
    targets_N = torch.cat([tokens_BT[:, 1:], torch.full((2, 1), -100)], dim=1).flatten()
    with torch.no_grad():
        teacher_NE = hidden_states(teacher, tokens_BT).flatten(0, 1)

    def run(loss: object) -> dict[str, Tensor]:
        student.zero_grad()
        loss(
            hidden_states(student, tokens_BT).flatten(0, 1), head_weight(student), teacher_NE, head_weight(teacher).detach(), targets_N
        ).backward()  # type: ignore[operator]
        return {name: parameter.grad.clone() for name, parameter in student.named_parameters()}

    fused = run(lambda *given: fused_losses(*given, BOTH, normaliser=16)[0])
    plain = run(lambda *given: literal(*given, BOTH))
    assert fused.keys() == plain.keys()
    for name in plain:
        torch.testing.assert_close(fused[name], plain[name], rtol=1e-4, atol=1e-5 * float(plain[name].abs().max()))


def test_no_tensor_of_all_logits_is_ever_made() -> None:
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, list | tuple) else [result]:
                largest = max(largest, tensor.numel() if isinstance(tensor, Tensor) else 0)
            return result

    given = parts()
    with Watch():
        total, _ = fused_losses(**given, objective=BOTH, normaliser=10, chunk=2)
        total.backward()
    assert largest == VOCAB * TEACHER  # a head; all logits would be VOCAB * N
