"""Answers: those of the model's own generate one by one, whatever the batch; sampled ones by seed."""

import pytest
from transformers import LlamaForCausalLM

from u2a_core.data.encode import ResponseEncoder
from u2a_core.data.pairs import Message
from u2a_core.models.generation import answers
from u2a_core.models.scratch import tiny_llama, train_tokenizer

PROMPTS = [(Message("user", text),) for text in ("a b", "c", "a much longer question about b", "b a c")]


@pytest.fixture(scope="module")
def encoder() -> ResponseEncoder:
    return ResponseEncoder(train_tokenizer(["a b c d much longer question about"] * 3, 300), 64)


@pytest.fixture(scope="module")
def model(encoder: ResponseEncoder) -> LlamaForCausalLM:
    model = tiny_llama(encoder.tokenizer, 64, seed=0).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4)  # random weights are nearly uniform: widen, so that greedy choices are clear
    return model


def test_batched_answers_are_those_of_each_prompt_alone(model: LlamaForCausalLM, encoder: ResponseEncoder) -> None:
    import torch

    together = answers(model, encoder, PROMPTS, max_new_tokens=8, show=False)
    for prompt, answer in zip(PROMPTS, together, strict=True):
        ids = torch.tensor([encoder.prompt_ids("x", prompt)])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
        assert answer == encoder.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    assert len(set(together)) > 1
    assert together == answers(model, encoder, PROMPTS, max_new_tokens=8, budget=1, show=False)


def test_sampled_answers_depend_on_the_seed_alone(model: LlamaForCausalLM, encoder: ResponseEncoder) -> None:
    import torch

    def draw(seed: int) -> list[str]:
        return answers(model, encoder, PROMPTS, max_new_tokens=8, temperature=1.0, seed=seed, show=False)

    before = torch.random.get_rng_state()
    first = draw(0)
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's random numbers are left alone"
    assert first == draw(0)
    assert first != draw(1)
