"""θ: a new LoRA changes nothing, an existing adapter is the adapter, `full` merges it; nothing asks for gradients."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from u2a_core.errors import ModelError
from u2a_core.models.loading import LoadOptions
from u2a_core.models.policy import Policy, load_policy

CPU = LoadOptions("cpu")
IDS = torch.tensor([[1, 7, 9, 30, 12, 2], [1, 40, 8, 8, 3, 2]])
LAYERS = 2


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS.to(next(model.parameters()).device)).logits


@pytest.fixture(scope="session")
def adapter(causal: str, save_adapter: Callable[..., str]) -> str:
    return save_adapter(causal)


def settled(policy: Policy) -> bool:
    """In evaluation mode, and no parameter asks for gradients."""
    return not policy.model.training and not any(one.requires_grad for one in policy.model.parameters())


def test_a_new_adapter_leaves_the_outputs_as_they_are(causal: str) -> None:
    base = AutoModelForCausalLM.from_pretrained(causal)
    policy = load_policy(causal, None, "lora", CPU, rank=4, seed=1)
    assert torch.equal(logits(policy.model), logits(base))
    assert settled(policy)
    assert all("lora_" in name for name in policy.theta)
    assert (policy.device, policy.dtype) == (torch.device("cpu"), torch.float32)


def test_a_new_adapter_lies_on_every_linear_layer_but_the_head(kind: str, causal: str) -> None:
    policy = load_policy(causal, None, "lora", CPU, rank=4)
    layers = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in policy.theta}
    llama_like = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert layers == ({"c_attn", "c_proj", "c_fc"} if kind == "gpt2" else llama_like)
    linear = 4 if kind == "gpt2" else 7
    assert len(policy.theta) == 2 * linear * LAYERS
    for name, value in policy.parameters().items():
        assert (value == 0).all() == ("lora_B" in name)
        assert 4 in value.shape
    assert policy.size == sum(value.numel() for value in policy.parameters().values())


def test_a_new_adapter_is_drawn_from_its_seed_alone(llama: str) -> None:
    torch.manual_seed(5)
    one = load_policy(llama, None, "lora", CPU, seed=7).parameters()
    torch.manual_seed(6)
    before = torch.random.get_rng_state()
    same = load_policy(llama, None, "lora", CPU, seed=7).parameters()
    assert torch.equal(torch.random.get_rng_state(), before), "loading must not disturb the random numbers"
    other = load_policy(llama, None, "lora", CPU, seed=8).parameters()
    assert one.keys() == same.keys() == other.keys()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if "lora_A" in name)


def test_full_is_every_parameter_once(causal: str) -> None:
    policy = load_policy(causal, None, "full", CPU)
    base = AutoModelForCausalLM.from_pretrained(causal)
    assert torch.equal(logits(policy.model), logits(base))
    assert list(policy.theta) == [name for name, _ in base.named_parameters()]
    assert policy.size == sum(parameter.numel() for parameter in base.parameters())
    assert settled(policy)


def test_an_existing_adapter_is_theta(causal: str, adapter: str) -> None:
    policy = load_policy(causal, adapter, "lora", CPU, rank=64, seed=9)
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(causal), adapter).eval()
    assert torch.equal(logits(policy.model), logits(expected))
    assert not torch.allclose(logits(policy.model), logits(AutoModelForCausalLM.from_pretrained(causal)), atol=1e-3)
    stored = load_file(f"{adapter}/adapter_model.safetensors")
    found = {name.replace(".default", ""): value for name, value in policy.parameters().items()}
    assert found.keys() == stored.keys()
    assert all(torch.equal(found[name], value) for name, value in stored.items())
    assert settled(policy)


def test_outputs_with_an_adapter_are_base_plus_adapter(llama: str, save_adapter: Callable[..., str]) -> None:
    """One layer by hand: W x + (alpha / r) B A x."""
    adapter = save_adapter(llama)
    policy = load_policy(llama, adapter, "lora", CPU)
    stored = load_file(f"{adapter}/adapter_model.safetensors")
    settings = json.loads((Path(adapter) / "adapter_config.json").read_text())
    key = "base_model.model.model.layers.0.self_attn.q_proj"
    weight = load_file(f"{llama}/model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    given = torch.randn(3, 32)
    low_rank = given @ stored[f"{key}.lora_A.weight"].T @ stored[f"{key}.lora_B.weight"].T
    layer = policy.model.get_submodule(key)
    expected = given @ weight.T + settings["lora_alpha"] / settings["r"] * low_rank
    torch.testing.assert_close(layer(given), expected)


def test_full_merges_an_existing_adapter(causal: str, adapter: str) -> None:
    policy = load_policy(causal, adapter, "full", CPU)
    with_adapter = load_policy(causal, adapter, "lora", CPU)
    torch.testing.assert_close(logits(policy.model), logits(with_adapter.model), atol=1e-4, rtol=1e-4)
    assert not any("lora" in name for name in policy.theta)
    assert policy.size == load_policy(causal, None, "full", CPU).size
    assert settled(policy)


@pytest.mark.parametrize(("dtype", "lora"), [("bfloat16", torch.float32), ("float64", torch.float64)])
def test_the_new_adapter_is_float32_at_least(llama: str, dtype: str, lora: torch.dtype) -> None:
    policy = load_policy(llama, None, "lora", LoadOptions("cpu", dtype))
    assert {value.dtype for value in policy.parameters().values()} == {lora}
    assert policy.dtype == getattr(torch, dtype)
    rest = {one.dtype for name, one in policy.model.named_parameters() if name not in policy.theta}
    assert rest == {policy.dtype}


def refusal(path: str, adapter: str | None, parameters: str = "lora") -> str:
    with pytest.raises(ModelError) as caught:
        load_policy(path, adapter, parameters, CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_parameters_that_are_neither(llama: str) -> None:
    assert refusal(llama, None, "some") == "--params some is unknown; use lora or full."


@pytest.fixture
def spoilt(llama: str, save_adapter: Callable[..., str], tmp_path: Path) -> Path:
    """A copy of an adapter of the small Llama, to be spoilt."""
    return Path(shutil.copytree(save_adapter(llama), tmp_path / "adapter"))


def test_adapter_folders_that_are_none(llama: str, tmp_path: Path) -> None:
    absent = refusal(llama, str(tmp_path / "absent"))
    assert str(tmp_path / "absent") in absent
    assert "save_pretrained" in absent


@pytest.mark.parametrize("parameters", ["lora", "full"])
def test_adapter_without_safetensors(llama: str, spoilt: Path, parameters: str) -> None:
    (spoilt / "adapter_model.safetensors").rename(spoilt / "adapter_model.bin")
    message = refusal(llama, str(spoilt), parameters)
    assert str(spoilt) in message
    assert "no adapter_model.safetensors" in message
    assert "save_pretrained" in message


def test_corrupted_adapter(llama: str, spoilt: Path) -> None:
    (spoilt / "adapter_model.safetensors").write_bytes(b"not weights")
    message = refusal(llama, str(spoilt))
    assert str(spoilt) in message
    assert "made for this policy" in message


def test_adapter_without_its_configuration(llama: str, spoilt: Path) -> None:
    (spoilt / "adapter_config.json").unlink()
    assert str(spoilt) in refusal(llama, str(spoilt))


def test_adapter_of_another_model(
    llama: str, spoilt: Path, save_causal: Callable[..., str], save_adapter: Callable[..., str]
) -> None:
    other = save_adapter(save_causal("gpt2"))
    assert other in refusal(llama, other)
    wider = save_adapter(save_causal("llama", intermediate_size=40))
    assert wider in refusal(llama, wider)
    stored = load_file(spoilt / "adapter_model.safetensors")
    kept = {name: value for name, value in stored.items() if ".layers.1." not in name}
    assert 0 < len(kept) < len(stored)
    save_file(kept, spoilt / "adapter_model.safetensors")
    message = refusal(llama, str(spoilt))
    assert "missing adapter keys" in message, "half an adapter would leave the other half at random"
    assert "made for this policy" in message
