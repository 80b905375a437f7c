"""Laws of the losses and of the fused head that computes them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core.distill.fused import fused_losses
from core.distill.losses import LOSSES, Given, Objective
from core.model import head
from core.model.head import head_weight, hidden_states
from core.specs import LOSSES as LOSS_NAMES
from tests.tiny import random_blocks, tiny_model

N, VOCAB, STUDENT, TEACHER = 13, 97, 5, 7
KNOBS = {"beta": 0.3, "skew": 0.2, "top_k": 11, "samples": 7}
BOTH = Objective(weights={"kl": 0.7, "ce": 0.4}, temperature=2.0)
EACH = [Objective(weights={name: 1.0}, temperature=t, **KNOBS) for name in LOSSES for t in (1.0, 2.0)]
ALL = Objective(weights={name: 0.1 + i for i, name in enumerate(LOSSES)}, temperature=2.0, **KNOBS)
DIVERGENCES = sorted(LOSSES.keys() - {"ce"})


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


FORMULAS = {
    "kl": lambda s, t, given: (t * (t.log() - s.log())).sum(-1),
    "reverse_kl": lambda s, t, given: (s * (s.log() - t.log())).sum(-1),
    "jsd": lambda s, t, given: mixed(s, t, 0.3),
    "skew_kl": lambda s, t, given: (t * (t.log() - (0.2 * t + 0.8 * s).log())).sum(-1),
    "mse": lambda s, t, given: (s.log() - t.log() - (s.log() - t.log()).mean(-1, keepdim=True)).square().mean(-1),
    "cosine": lambda s, t, given: 1 - F.cosine_similarity(s, t, dim=-1),
    "top_k": lambda s, t, given: coarse(s, t, 11),
    "sampled": lambda s, t, given: drawn(s, t, given.draws_C, 7),
    "ce": lambda s, t, given: -s.gather(1, given.targets_C.clamp(min=0)[:, None]).squeeze(1).log(),
}
"""Every loss as its paper prints it, on probabilities of student and teacher ``[N, V]``; a loss without one fails the tests."""


def mixed(s: Tensor, t: Tensor, beta: float) -> Tensor:
    m = beta * t + (1 - beta) * s
    return (beta * t * (t / m).log() + (1 - beta) * s * (s / m).log()).sum(-1)


def coarse(s: Tensor, t: Tensor, k: int) -> Tensor:
    top = t.topk(k).indices
    s, t = (torch.cat([p.gather(1, top), 1 - p.gather(1, top).sum(-1, keepdim=True)], dim=1) for p in (s, t))
    return (t * (t / s).log()).sum(-1)


def drawn(s: Tensor, t: Tensor, draws_N: Tensor, count: int) -> Tensor:
    """The surrogate whose value is the estimate and whose gradient is that of the drawn tokens' cross-entropy."""
    rows = []
    for s_V, t_V, u in zip(s, t, draws_N, strict=True):
        edges = t_V.cumsum(0)
        picked = [int((edges <= (i + u) / count).sum()) for i in range(count)]
        rows.append(sum(t_V[v].log() - s_V[v].log() for v in picked) / count)
    return torch.stack(rows)


def literal(student_ND: Tensor, student_head_VD: Tensor, teacher_NE: Tensor, teacher_head_VE: Tensor, targets_N: Tensor,
            objective: Objective, draws_N: Tensor | None = None) -> Tensor:  # fmt: skip
    """The objective as the papers print it, on all logits at once."""
    student_NV, teacher_NV = student_ND @ student_head_VD.T, teacher_NE @ teacher_head_VE.T
    valid_N, total_N = targets_N != -100, torch.zeros(len(targets_N), dtype=student_ND.dtype)
    for name, weight in objective.weights.items():
        t = objective.temperature if LOSSES[name].tempered else 1.0
        given = Given(targets_C=targets_N, draws_C=draws_N, objective=objective)
        total_N = total_N + weight * t**2 * FORMULAS[name]((student_NV / t).softmax(-1), (teacher_NV / t).softmax(-1), given)
    return total_N[valid_N].sum() / valid_N.sum()


def seeded(objective: Objective, given: dict[str, Tensor], **more: object) -> tuple[Tensor, Tensor]:
    """``fused_losses`` with draws that are the same each time."""
    torch.manual_seed(0)
    return fused_losses(**given, objective=objective, normaliser=N - 3, **more)


def draws() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(N)


def gradients(total: Tensor, given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, [given["student_ND"], given["student_head_VD"]])


def name_of(objective: Objective) -> str:
    return f"{'+'.join(objective.weights)}@{objective.temperature}"


@pytest.mark.parametrize("objective", [*EACH, BOTH, ALL], ids=name_of)
def test_value_and_gradients_equal_the_formula_in_float64(objective: Objective) -> None:
    given, exact = parts(), parts(torch.float64)
    total, _ = seeded(objective, given)
    expected = literal(**exact, objective=objective, draws_N=draws())
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=0)
    for found, wanted in zip(gradients(total, given), gradients(expected, exact), strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("chunk", [1, 3, N])
@pytest.mark.parametrize("objective", [BOTH, ALL], ids=["two", "all"])
def test_chunks_change_nothing(chunk: int, objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    given = parts(torch.float64)
    whole, _ = seeded(objective, given)
    monkeypatch.setattr(head, "STRIP_BYTES", 4 * VOCAB * 2)
    total, _ = seeded(objective, given, chunk=chunk)
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(gradients(total, given), gradients(whole, given))


@pytest.mark.parametrize("objective", EACH, ids=name_of)
def test_gradients_equal_finite_differences(objective: Objective) -> None:
    given = parts(torch.float64)

    def value(student_ND: Tensor, student_head_VD: Tensor) -> Tensor:
        return seeded(objective, given | {"student_ND": student_ND, "student_head_VD": student_head_VD})[0]

    assert torch.autograd.gradcheck(value, (given["student_ND"], given["student_head_VD"]))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_model_is_at_no_distance_from_itself_and_learns_nothing(name: str) -> None:
    given = parts()
    same = given | {"teacher_NE": given["student_ND"].detach(), "teacher_head_VE": given["student_head_VD"].detach()}
    total, _ = seeded(Objective(weights={name: 1.0}, **KNOBS), same)
    assert total.item() == pytest.approx(0, abs=1e-7)
    if name in ("kl", "reverse_kl", "mse", "cosine"):
        assert total == 0
    if name != "sampled":  # which learns nothing on average only
        assert all(grad.abs().max() < 1e-6 for grad in gradients(total, given))


def spread(rows: int = 200, scale: float = 4.0) -> tuple[Tensor, Tensor, Given]:
    """Log-probabilities of unlike students and teachers, and what else a loss is given."""
    student_NV, teacher_NV = torch.randn(2, rows, VOCAB, generator=torch.Generator().manual_seed(1)).mul(scale).log_softmax(-1)
    given = Given(targets_C=torch.arange(rows) % VOCAB, draws_C=torch.linspace(0, 0.999, rows), objective=Objective(weights={}, **KNOBS))
    return student_NV, teacher_NV, given


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"sampled"}))
def test_no_loss_is_negative(name: str) -> None:
    assert (LOSSES[name].function(*spread())[0] >= 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("scale", [60.0, 400.0])
def test_distributions_far_apart_give_finite_values_and_gradients(name: str, scale: float) -> None:
    values_N, gradient = LOSSES[name].function(*spread(scale=scale))
    assert torch.isfinite(values_N).all()
    assert torch.isfinite(gradient()).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_to_logits_sum_to_zero_for_a_constant_on_all_logits_changes_nothing(name: str) -> None:
    grad_NV = LOSSES[name].function(*spread())[1]()
    assert grad_NV.sum(-1).abs().max() < 1e-5


def test_the_coarse_kl_never_exceeds_the_whole_and_equals_it_when_it_holds_all_tokens() -> None:
    student_NV, teacher_NV, _ = spread()
    whole_N = LOSSES["kl"].function(student_NV, teacher_NV, Given(targets_C=torch.zeros(200), objective=Objective(weights={})))[0]
    last_N = torch.zeros(200)
    for k in (1, 10, 50, VOCAB, 2 * VOCAB):
        given = Given(targets_C=torch.zeros(200), objective=Objective(weights={}, top_k=k))
        values_N, gradient = LOSSES["top_k"].function(student_NV, teacher_NV, given)
        assert (last_N <= values_N + 1e-5).all()
        last_N = values_N
    torch.testing.assert_close(last_N, whole_N, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient(), student_NV.exp() - teacher_NV.exp())


def test_samples_give_the_kl_and_its_gradient_on_average() -> None:
    student_NV, teacher_NV, _ = spread(rows=1, scale=1.0)
    draws_C = (torch.arange(4000) + 0.5) / 4000
    given = Given(targets_C=torch.zeros(1), draws_C=draws_C, objective=Objective(weights={}, samples=3))
    values_N, gradient = LOSSES["sampled"].function(student_NV.expand(4000, -1), teacher_NV.expand(4000, -1), given)
    exact_N, exact_gradient = LOSSES["kl"].function(student_NV, teacher_NV, given)
    assert values_N.std() > 0.05
    assert values_N.mean().item() == pytest.approx(exact_N.item(), abs=2e-3)
    assert (gradient().mean(0) - exact_gradient()[0]).abs().max() < 1e-3


def test_jsd_lies_between_its_two_ends_and_changes_sides_with_its_weight() -> None:
    student_NV, teacher_NV, _ = spread(scale=1.0)

    def jsd(one: Tensor, other: Tensor, beta: float) -> Tensor:
        return LOSSES["jsd"].function(one, other, Given(targets_C=torch.zeros(200), objective=Objective(weights={}, beta=beta)))[0]

    torch.testing.assert_close(jsd(student_NV, teacher_NV, 0.3), jsd(teacher_NV, student_NV, 0.7))
    kl_N = LOSSES["kl"].function(student_NV, teacher_NV, spread()[2])[0]
    torch.testing.assert_close(jsd(student_NV, teacher_NV, 1e-4) / 1e-4, kl_N, rtol=1e-2, atol=1e-3)


def test_the_divergence_is_a_sum_over_the_vocabulary_not_a_mean() -> None:
    """A mean over the vocabulary too (``F.kl_div(reduction="mean")``) would be V times smaller."""
    given, exact = parts(), parts(torch.float64)
    total, _ = seeded(Objective(weights={"kl": 1.0}), given)
    valid_N = exact["targets_N"] != -100
    student_NV, teacher_NV = exact["student_ND"] @ exact["student_head_VD"].T, exact["teacher_NE"] @ exact["teacher_head_VE"].T
    torch_says = F.kl_div(student_NV[valid_N].log_softmax(-1), teacher_NV[valid_N].log_softmax(-1), log_target=True, reduction="batchmean")
    assert total.item() == pytest.approx(torch_says.item(), rel=1e-5)


def test_without_a_teacher_cross_entropy_is_the_same() -> None:
    given = parts()
    alone = given | {"teacher_NE": None, "teacher_head_VE": None}
    objective = Objective(weights={"ce": 1.0})
    assert not objective.taught
    (with_one, _), (without, _) = seeded(objective, given), seeded(objective, alone)
    assert with_one == without
    assert all(map(torch.equal, gradients(with_one, given), gradients(without, given)))


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


def test_every_loss_of_the_settings_exists_and_the_other_way_round() -> None:
    assert {*LOSS_NAMES, "ce"} == LOSSES.keys()


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
