"""Answers of a policy to prompts: greedy, or sampled with a seed; batched with padding on the left."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from u2a_core.data.encode import ResponseEncoder, token_budget_batches
from u2a_core.data.pairs import Message
from u2a_core.models.loading import quiet
from u2a_core.store.progress import Progress


def answers(
    model: nn.Module,
    encoder: ResponseEncoder,
    prompts: Sequence[tuple[Message, ...]],
    max_new_tokens: int = 96,
    temperature: float = 0.0,
    seed: int = 0,
    budget: int = 16384,
    show: bool = True,
) -> list[str]:
    """One answer a prompt, without special tokens; greedy at temperature 0, else pure sampling (no top-k, no top-p).

    A batch's own seed is drawn from `seed` and its number, so that the same call gives the same answers.
    """
    ids = [encoder.prompt_ids(f"prompt {number}", prompt) for number, prompt in enumerate(prompts)]
    found = [""] * len(prompts)
    with Progress("answers", len(prompts), show=show) as progress, torch.no_grad(), quiet():
        for number, members in enumerate(token_budget_batches([len(one) + max_new_tokens for one in ids], budget)):
            texts = answer_batch(model, encoder.tokenizer, [ids[index] for index in members], max_new_tokens,
                           temperature, seed + number)  # fmt: skip
            for index, text in zip(members, texts, strict=True):
                found[index] = text
            progress.step(len(members))
    return found


def answer_batch(
    model: nn.Module, tokenizer: Any, prompts: list[tuple[int, ...]], max_new_tokens: int, temperature: float, seed: int
) -> list[str]:
    """The answers to encoded prompts in one batch, drawn with `seed` at a temperature above 0."""
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), tokenizer.pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    how: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        output = model.generate(  # type: ignore[operator]
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            **how,
        )
    texts: list[str] = tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)
    return texts
