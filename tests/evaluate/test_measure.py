"""Measurements against their literal definitions."""

import math

import pytest
import torch
import torch.nn.functional as F

from core.errors import UserError
from core.evaluate.measure import final_states, measure, reference, text_bytes
from tests.evaluate.letters import byte_tokenizer
from tests.tiny import random_blocks, tiny_model, tiny_tokenizer

BLOCKS = random_blocks(5, 14)
TOKENIZER = byte_tokenizer()


def test_loss_and_perplexity_equal_the_models_own_loss() -> None:
    model = tiny_model()
    found = measure(model, BLOCKS, TOKENIZER)
    tokens_NT = torch.from_numpy(BLOCKS).long()
    with torch.no_grad():
        losses = [float(model(input_ids=block[None], labels=block[None]).loss) for block in tokens_NT]
    assert found["loss_nats"] == pytest.approx(sum(losses) / 5, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(sum(losses) / 5), rel=1e-5)
    assert found["block_losses"] == pytest.approx(losses, rel=1e-5)
    assert found["loss_se_nats"] == pytest.approx(float(torch.tensor(losses).std()) / math.sqrt(5), rel=1e-3)
    assert found["tokens"] == 5 * 13
    assert found["kl_nats"] is found["top1_agreement"] is None


def test_divergence_and_agreement_equal_their_definitions() -> None:
    student, teacher = tiny_model(seed=1), tiny_model(seed=2, hidden_size=30)
    tokens_NT = torch.from_numpy(BLOCKS).long()
    with torch.no_grad():
        log_s, log_t = (model(tokens_NT).logits[:, :-1].log_softmax(-1).flatten(0, 1) for model in (student, teacher))
    found = measure(student, BLOCKS, TOKENIZER, teacher=teacher)
    assert found["kl_nats"] == pytest.approx(float(F.kl_div(log_s, log_t, log_target=True, reduction="batchmean")), rel=1e-4)
    assert found["top1_agreement"] == pytest.approx(float((log_s.argmax(-1) == log_t.argmax(-1)).float().mean()))


@pytest.mark.parametrize("padded", ["student", "teacher"])
def test_rows_that_only_pad_a_head_count_for_nothing_in_the_comparison(padded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"student": 97, "teacher": 97} | {padded: 120}
    student, teacher = tiny_model(seed=1, vocab_size=sizes["student"]), tiny_model(seed=2, vocab_size=sizes["teacher"])
    tokens_NT = torch.from_numpy(BLOCKS).long()
    with torch.no_grad():
        log_s, log_t = (model(tokens_NT).logits[:, :-1, :97].log_softmax(-1).flatten(0, 1) for model in (student, teacher))
    monkeypatch.setattr("core.evaluate.measure.BUFFER_BYTES", 4 * 120 * 6)  # of the smaller head seven rows would fit
    found = measure(student, BLOCKS, tiny_tokenizer(), teacher=teacher)
    assert found["kl_nats"] == pytest.approx(float(F.kl_div(log_s, log_t, log_target=True, reduction="batchmean")), rel=1e-4)
    assert found["top1_agreement"] == pytest.approx(float((log_s.argmax(-1) == log_t.argmax(-1)).float().mean()))


def test_a_model_agrees_with_itself_fully() -> None:
    model = tiny_model()
    found = measure(model, BLOCKS, TOKENIZER, teacher=model)
    assert (found["kl_nats"], found["top1_agreement"]) == (0, 1)


def test_the_teachers_states_may_be_computed_once_for_all() -> None:
    student, teacher = tiny_model(seed=1), tiny_model(seed=2)
    once = reference(teacher, BLOCKS)
    assert once.states_NTD.shape == final_states(teacher, BLOCKS, batch_size=2).shape == (5, 14, 24)
    assert measure(student, BLOCKS, TOKENIZER, teacher=once) == measure(student, BLOCKS, TOKENIZER, teacher=teacher)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batch_size_changes_nothing(batch_size: int) -> None:
    student, teacher = tiny_model(seed=1), tiny_model(seed=2)
    expected = measure(student, BLOCKS, TOKENIZER, teacher=teacher, batch_size=2)
    found = measure(student, BLOCKS, TOKENIZER, teacher=teacher, batch_size=batch_size)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name


def test_bytes_are_those_of_the_predicted_text() -> None:
    text = "Grüße, Waldmenschen"  # 19 characters, 21 bytes
    tokens = TOKENIZER(text)["input_ids"]
    blocks_NT = torch.tensor([tokens, tokens]).numpy()
    assert text_bytes(TOKENIZER, blocks_NT) == 2 * (21 - len("G"))


def test_special_tokens_are_no_text() -> None:
    blocks_NT = BLOCKS.copy()
    blocks_NT[:, 3] = TOKENIZER.eos_token_id
    found = measure(tiny_model(), blocks_NT, TOKENIZER)
    assert found["bytes"] == text_bytes(TOKENIZER, blocks_NT)
    tokens_NT = torch.from_numpy(blocks_NT).long()
    with torch.no_grad():
        losses_NT = F.cross_entropy(tiny_model()(tokens_NT).logits[:, :-1].transpose(1, 2), tokens_NT[:, 1:], reduction="none")
    losses_NT[:, 2] = 0
    assert found["bits_per_byte"] == pytest.approx(float(losses_NT.sum()) / math.log(2) / found["bytes"], rel=1e-5)


def test_a_model_in_training_is_measured_in_evaluation_and_returned_to_training() -> None:
    model = tiny_model(attention_dropout=0.5)
    expected = measure(model, BLOCKS, TOKENIZER)
    assert not model.training
    assert measure(model.train(), BLOCKS, TOKENIZER) == expected
    assert model.training
    assert torch.is_grad_enabled()


def test_what_cannot_be_measured_is_refused() -> None:
    model = tiny_model()
    with pytest.raises(UserError, match="at least one block"):
        measure(model, BLOCKS[:, :1], TOKENIZER)
    with pytest.raises(UserError, match=r"97 tokens cannot be compared with a teacher of 101: their tokenizer uses 259"):
        measure(model, BLOCKS, TOKENIZER, teacher=tiny_model(vocab_size=101))
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(UserError, match=r"hidden states of the model in .* are not finite numbers at 70 of 70 tokens"):
        measure(tiny_model(), BLOCKS, TOKENIZER, teacher=model)
    with pytest.raises(UserError, match="65 of 65 held-out tokens are not finite"):
        measure(model, BLOCKS, TOKENIZER)
