"""`scratch:tiny`: about a million parameters, the same for the same seed, and a tokenizer that loses no text."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from u2a_core.models.loading import LoadOptions, load_causal, load_tokenizer
from u2a_core.models.scratch import VOCABULARY, save_scratch, tiny_llama, train_tokenizer

WORDS = [" ".join(f"{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{kind}" * 2 for kind in "aeiou") for n in range(600)]
TRAINED = train_tokenizer(WORDS)


def test_about_a_million_parameters() -> None:
    assert len(TRAINED) == VOCABULARY
    for size, tokenizer in ((1.0, TRAINED), (0.8, train_tokenizer(WORDS[:3]))):
        count = sum(parameter.numel() for parameter in tiny_llama(tokenizer, 512, 0).parameters())
        assert 0.8e6 * size <= count <= 1.3e6


def test_few_texts_give_a_small_vocabulary_with_every_byte() -> None:
    tokenizer = train_tokenizer(["one"])
    assert 256 < len(tokenizer) < 270
    assert tokenizer.decode(tokenizer("Ω😀 one").input_ids) == "Ω😀 one"
    assert train_tokenizer([]).decode(train_tokenizer([])("any").input_ids) == "any"


def test_the_same_texts_give_the_same_tokenizer() -> None:
    again = train_tokenizer(iter(WORDS))
    assert again.backend_tokenizer.to_str() == TRAINED.backend_tokenizer.to_str()
    assert train_tokenizer(["other words"]).get_vocab() != TRAINED.get_vocab()


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
def test_any_text_comes_back(text: str) -> None:
    assert TRAINED.decode(TRAINED(text, add_special_tokens=False).input_ids) == text


@pytest.mark.parametrize(
    "text", ["", "  double  spaces ", " . , 'm ?!", "\r\n\t", "नमस्ते 中文 👩‍👩‍👧 \x00 \ufeff", "e\u0301 é"]
)
def test_awkward_text_comes_back(text: str) -> None:
    assert TRAINED.decode(TRAINED(text).input_ids) == text


def turns(*roles_and_texts: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in roles_and_texts]


def test_template() -> None:
    talk = turns(("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "V"))
    text = TRAINED.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert text == "<|begin|><|system|>S<|user|>U<|assistant|>A<|end|><|user|>V<|assistant|>"
    whole = TRAINED.apply_chat_template([*talk, *turns(("assistant", "B"))], tokenize=False)
    assert whole == text + "B<|end|>"


def test_special_tokens_are_single_and_distinct() -> None:
    names = ["<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    ids = [TRAINED(name, add_special_tokens=False).input_ids for name in names]
    assert all(len(one) == 1 for one in ids)
    assert len({one[0] for one in ids}) == len(names)
    assert (TRAINED.pad_token, TRAINED.bos_token, TRAINED.eos_token) == ("<|pad|>", "<|begin|>", "<|end|>")


def weights(model: Any) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


def test_the_model_is_drawn_from_its_seed_alone() -> None:
    torch.manual_seed(1)
    one = weights(tiny_llama(TRAINED, 512, 3))
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    same, other = weights(tiny_llama(TRAINED, 512, 3)), weights(tiny_llama(TRAINED, 512, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


@pytest.mark.parametrize(("asked", "reach"), [(64, 512), (512, 512), (2048, 2048)])
def test_context_is_long_enough(asked: int, reach: int) -> None:
    assert tiny_llama(train_tokenizer(["x"]), asked, 0).config.max_position_embeddings == reach


def test_saved_model_and_tokenizer_come_back(tmp_path: Path) -> None:
    save_scratch(tmp_path / "policy", WORDS[:20], 128, seed=3)
    tokenizer = load_tokenizer(str(tmp_path / "policy"))
    assert tokenizer.get_vocab() == train_tokenizer(WORDS[:20]).get_vocab()
    assert tokenizer.decode(tokenizer("a , b").input_ids) == "a , b"
    model = load_causal(str(tmp_path / "policy"), LoadOptions("cpu"))
    expected = weights(tiny_llama(tokenizer, 128, 3))
    assert all(torch.equal(weights(model)[name], value) for name, value in expected.items())
    assert (model.config.eos_token_id, model.config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert {file.suffix for file in (tmp_path / "policy").iterdir()} <= {".json", ".safetensors", ".jinja"}
