"""Continuations are greedy and plain."""

import pytest
import torch

from core.errors import UserError
from core.evaluate.generate import continue_prompts
from tests.evaluate.letters import VOCAB, byte_tokenizer
from tests.tiny import tiny_model

PROMPTS = ["Once", "Whowasit?"]


def test_a_continuation_is_what_a_literal_argmax_loop_gives() -> None:
    model, tokenizer = tiny_model(vocab_size=VOCAB), byte_tokenizer()
    expected = []
    for prompt in PROMPTS:
        tokens, length = tokenizer(prompt)["input_ids"], len(tokenizer(prompt)["input_ids"])
        with torch.no_grad():
            while len(tokens) < length + 12 and tokens[-1] != model.config.eos_token_id:
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
        expected.append(tokenizer.decode(tokens, skip_special_tokens=True).removeprefix(prompt))
    assert continue_prompts(model, tokenizer, PROMPTS, 12) == expected
    assert all(expected)


def test_a_models_own_taste_for_sampling_is_not_followed() -> None:
    plain, fancy, tokenizer = tiny_model(vocab_size=VOCAB), tiny_model(vocab_size=VOCAB), byte_tokenizer()
    fancy.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=3.0)
    assert continue_prompts(fancy, tokenizer, PROMPTS, 8) == continue_prompts(plain, tokenizer, PROMPTS, 8)


def test_a_text_ends_where_the_model_ends_it() -> None:
    model, tokenizer = tiny_model(vocab_size=VOCAB), byte_tokenizer()
    with torch.no_grad():
        first = int(model(torch.tensor([tokenizer("Once")["input_ids"]])).logits[0, -1].argmax())
    whole = continue_prompts(model, tokenizer, ["Once"], 12)[0]
    model.generation_config.eos_token_id = first
    ended = continue_prompts(model, tokenizer, ["Once"], 12)[0]
    assert ended == tokenizer.decode([first])
    assert len(ended) < len(whole)


@pytest.mark.parametrize(("prompt", "message"), [("", "empty"), ("x" * 60, "context of 64")])
def test_a_prompt_that_cannot_be_continued_is_refused(prompt: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        continue_prompts(tiny_model(vocab_size=VOCAB), byte_tokenizer(), [prompt], 8)
