"""Laws of the head taken apart: chunks change nothing, and what is not counted costs nothing."""

import pytest
import torch
import torch.nn.functional as F

from core.model import head
from core.model.head import head_weight, hidden_states, log_partition, logits_in_chunks, token_losses
from tests.tiny import random_blocks, tiny_model

VOCAB = 97


def tokens(count: int = 3, seq_len: int = 11) -> torch.Tensor:
    return torch.from_numpy(random_blocks(count, seq_len)).long()


@pytest.mark.parametrize("tied", [True, False])
def test_body_and_head_together_are_the_model(tied: bool) -> None:
    model = tiny_model(tie_word_embeddings=tied)
    with torch.no_grad():
        logits_BTV = hidden_states(model, tokens()) @ head_weight(model).T
        torch.testing.assert_close(logits_BTV, model(tokens()).logits)


@pytest.mark.parametrize("tile", [None, (1, 1), (7, 10), (4, 97), (1000, 1000)])
def test_token_losses_equal_cross_entropy_of_all_logits(tile: tuple[int, int] | None) -> None:
    torch.manual_seed(1)
    hidden_BTD, weight_VD, targets_BT = torch.randn(3, 11, 5), torch.randn(VOCAB, 5), tokens()
    expected_BT = F.cross_entropy((hidden_BTD @ weight_VD.T).transpose(1, 2), targets_BT, reduction="none")
    torch.testing.assert_close(token_losses(hidden_BTD, weight_VD, targets_BT, tile), expected_BT)


def test_the_partition_of_large_logits_neither_overflows_nor_vanishes() -> None:
    hidden_ND = torch.tensor([[300.0], [-300.0], [0.0]])
    weight_VD = torch.linspace(-1, 1, VOCAB)[:, None]
    torch.testing.assert_close(log_partition(hidden_ND, weight_VD, (2, 10)), torch.logsumexp(hidden_ND @ weight_VD.T, dim=1))


def test_an_ignored_target_costs_nothing() -> None:
    losses_BT = token_losses(torch.randn(1, 3, 5), torch.randn(VOCAB, 5), torch.tensor([[4, -100, 6]]))
    assert losses_BT[0, 1] == 0
    assert (losses_BT[0, ::2] > 0).all()


def test_half_precision_weights_still_give_float32_losses() -> None:
    weight_VD = torch.randn(VOCAB, 5).bfloat16()
    losses_BT = token_losses(torch.randn(2, 4, 5), weight_VD, tokens(2, 4))
    assert losses_BT.dtype == torch.float32


def test_all_chunks_share_one_buffer_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "BUFFER_BYTES", 4 * VOCAB * 4)
    chunks = [
        (rows, logits_CV.data_ptr(), len(logits_CV)) for rows, logits_CV in logits_in_chunks(torch.randn(10, 5), torch.randn(VOCAB, 5))
    ]
    assert [rows for rows, _, _ in chunks] == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert len({address for _, address, _ in chunks}) == 1
    assert [count for _, _, count in chunks] == [4, 4, 2]


def test_no_tokens_give_no_chunks() -> None:
    assert list(logits_in_chunks(torch.randn(0, 5), torch.randn(VOCAB, 5))) == []
