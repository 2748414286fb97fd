"""Tiny models of four architectures with random weights, saved to disk as `from_pretrained` reads them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GemmaForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PretrainedConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
)

from u2a_core.models.scratch import train_tokenizer

TEXTS = ["Hello there, how are you today?", "Sure, here is a list: one two three.", "I can not help you with that."] * 5
DECODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
# Between them: tied and untied heads, Linear and Conv1D, with and without bias.
KINDS: dict[str, tuple[Any, Any, Callable[[], PretrainedConfig]]] = {
    "llama": (LlamaForCausalLM, LlamaForSequenceClassification, lambda: LlamaConfig(**DECODER)),
    "gpt2": (
        GPT2LMHeadModel,
        GPT2ForSequenceClassification,
        lambda: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128),
    ),
    "qwen2": (Qwen2ForCausalLM, Qwen2ForSequenceClassification, lambda: Qwen2Config(**DECODER)),
    "gemma": (GemmaForCausalLM, GemmaForSequenceClassification, lambda: GemmaConfig(**DECODER, head_dim=8)),
}


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slowed down by threads, and by an order of magnitude on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The small byte-level tokenizer of every tiny model."""
    return train_tokenizer(TEXTS, 300)


@pytest.fixture(scope="session")
def save_causal(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A function that saves a causal model with its tokenizer and gives the folder."""

    def save(kind: str = "llama", seed: int = 0, **settings: Any) -> str:
        return _save(KINDS[kind][0], KINDS[kind][2](), tokenizer, tmp_path_factory.mktemp(kind), seed, **settings)

    return save


@pytest.fixture(scope="session")
def save_classifier(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A function that saves a sequence classifier of one output with its tokenizer and gives the folder."""

    def save(kind: str = "llama", seed: int = 0, other_tokenizer: Any = None, **settings: Any) -> str:
        settings = {"num_labels": 1, **settings}
        chosen = other_tokenizer or tokenizer
        return _save(KINDS[kind][1], KINDS[kind][2](), chosen, tmp_path_factory.mktemp(kind), seed, **settings)

    return save


def _save(kind: Any, config: PretrainedConfig, tokenizer: Any, folder: Path, seed: int, **settings: Any) -> str:
    config.vocab_size = len(tokenizer)
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    config.update({**{name: getattr(tokenizer, name) for name in names}, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
        with torch.no_grad():
            for parameter in model.parameters():  # biases start at 0 and norms at 1, where faults could hide
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def save_adapter(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A function that saves a random LoRA adapter, B ≠ 0, for the model in a folder, and gives the adapter's folder."""

    def save(path: str, seed: int = 3, rank: int = 2) -> str:
        from transformers import AutoModelForCausalLM

        folder = tmp_path_factory.mktemp("adapter")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = LoraConfig(r=rank, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
            get_peft_model(AutoModelForCausalLM.from_pretrained(path), config).save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture(scope="session")
def llama(save_causal: Callable[..., str]) -> str:
    """A Llama with its tokenizer; read only."""
    return save_causal("llama")


@pytest.fixture(scope="session", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each of the four architectures."""
    return str(request.param)


@pytest.fixture(scope="session")
def causal(kind: str, save_causal: Callable[..., str]) -> str:
    """A saved causal model of each architecture; read only."""
    return save_causal(kind)


@pytest.fixture(scope="session")
def classifier(kind: str, save_classifier: Callable[..., str]) -> str:
    """A saved reward model of each architecture; read only."""
    return save_classifier(kind)
