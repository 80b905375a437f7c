"""Plain, greedy continuation of prompts, so that people can read what a model lost and regained."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from core.errors import UserError
from core.evaluate.measure import evaluating
from core.progress import Progress, Silent

PHASE = "generate"


def continue_prompts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    progress: Progress | None = None,
) -> list[str]:
    """Continue each prompt with the likeliest tokens until the text ends or ``max_new_tokens``; returns what was added.

    No chat template, no sampling, no penalties: the same model and prompt always give the same text.

    Raises:
        UserError: a prompt is empty, or too long for the model's context.
        Stopped: progress asked for it.
    """
    progress = progress or Silent()
    check_prompts(tokenizer, prompts, max_new_tokens, model.config.max_position_embeddings)
    answers = []
    for done, prompt in enumerate(prompts, start=1):
        answers.append(_continue(model, tokenizer, prompt, max_new_tokens))
        progress.step(PHASE, done, len(prompts))
    return answers


def check_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_new_tokens: int, context: int) -> None:
    """Refuse what cannot be continued; needs no model, so a run asks this first and not after minutes of work.

    Raises:
        UserError: a prompt is empty, or longer with its continuation than the model's ``context`` of tokens.
    """
    for number, prompt in enumerate(prompts, start=1):
        length = len(tokenizer(prompt)["input_ids"])
        if length == 0:
            raise UserError(f"Prompt {number} is empty. Give it at least one word.")
        if length + max_new_tokens > context:
            raise UserError(
                f"Prompt {number} ({length} tokens) and {max_new_tokens} new tokens exceed the model's context of {context} tokens. "
                f"Shorten the prompt, or lower max_new_tokens."
            )


def _continue(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, max_new_tokens: int) -> str:
    tokens_1T = tokenizer(prompt, return_tensors="pt")["input_ids"].long().to(model.device)
    ends = model.generation_config.eos_token_id if model.generation_config else model.config.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    # A config of its own, because a model's generation_config may ask for sampling or penalties.
    plain = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, use_cache=True, eos_token_id=ends, pad_token_id=pad)
    with evaluating(model):
        grown_1T = model.generate(tokens_1T, attention_mask=torch.ones_like(tokens_1T), generation_config=plain)

    def text(tokens_T: torch.Tensor) -> str:
        return str(tokenizer.decode(tokens_T, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    # Cut from the whole, because some tokenizers drop a space at the start of what they decode.
    return text(grown_1T[0])[len(text(tokens_1T[0])) :]
