"""∇J against autograd of the plain J and against differences; checkpoints; log-probabilities at the reference."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from u2a_core.errors import ScoringError
from u2a_core.influence import reference as reference_module
from u2a_core.influence.alignment_gradient import AlignmentGradient, EncodedPair, alignment_gradient
from u2a_core.influence.directional import unit_direction
from u2a_core.influence.reference import reference_logps
from u2a_core.models.loading import LoadOptions
from u2a_core.models.policy import Policy, load_policy
from u2a_core.objectives.alignment import PairValue, alignment
from u2a_core.store.progress import Progress

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL_BUDGET, LARGE_BUDGET = 1, 1000  # one pair a batch; all five in one


def plain_alignment(policy: Policy, pairs: list[EncodedPair], measure: PairValue, naive_logps: Any) -> Tensor:
    """Mean J, one pair at a time, in one graph."""
    values = []
    for pair in pairs:
        chosen, rejected = (naive_logps(policy.model, one).sum() for one in (pair.chosen, pair.rejected))
        references = (chosen.new_tensor(value) for value in (pair.chosen_reference, pair.rejected_reference))
        values.append(measure(chosen, rejected, *references))
    return torch.stack(values).mean()


def largest(gradient: dict[str, Tensor]) -> float:
    return max(float(part.abs().max()) for part in gradient.values())


def assert_same(found: AlignmentGradient, expected: dict[str, Tensor], tolerance: float) -> None:
    """Equal within `tolerance` of the largest entry."""
    assert list(found.gradient) == list(expected)
    for name, part in expected.items():
        torch.testing.assert_close(found.gradient[name], part, rtol=0, atol=tolerance * largest(expected))


def compute(policy: Policy, pairs: list[EncodedPair], budget: int = LARGE_BUDGET, **settings: Any) -> AlignmentGradient:
    return alignment_gradient(policy, pairs, alignment("dpo", 0.4), budget, show=False, **settings)


@pytest.mark.parametrize("shift", [0.0, 1.5], ids=["at-reference", "off-reference"])
@pytest.mark.parametrize("measure", ["dpo", "margin"])
@pytest.mark.parametrize(("architecture", "scored"), [("gpt2", "full"), ("gemma3", "full"), ("llama", "lora")])
def test_gradient_equals_autograd_of_the_plain_form(
    architecture: str, scored: str, measure: str, shift: float, build_policy: Any, encode_pairs: Any, naive_logps: Any
) -> None:
    policy = build_policy(architecture, scored)
    pairs, value_of = encode_pairs(policy, shift), alignment(measure, 0.4)
    found = alignment_gradient(policy, pairs, value_of, budget=40, show=False)
    parameters = policy.parameters()
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    value = plain_alignment(policy, pairs, value_of, naive_logps)
    expected = torch.autograd.grad(value, list(parameters.values()))
    assert found.value == pytest.approx(value.item(), abs=1e-12)
    assert_same(found, dict(zip(parameters, expected, strict=True)), 1e-10)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_gradient_equals_differences(architecture: str, build_policy: Any, encode_pairs: Any, naive_logps: Any) -> None:
    policy, step = build_policy(architecture), 1e-3
    pairs, measure = encode_pairs(policy, shift=1.5), alignment("dpo", 0.4)
    gradient = compute(policy, pairs).gradient
    generator = torch.Generator().manual_seed(4)
    entries = {name: torch.randn(part.shape, generator=generator).double() for name, part in gradient.items()}
    direction, _ = unit_direction(entries)

    def value_at(length: float) -> float:
        with torch.no_grad():
            for name, parameter in policy.parameters().items():
                parameter += length * direction[name]
            value = float(plain_alignment(policy, pairs, measure, naive_logps))
            for name, parameter in policy.parameters().items():
                parameter -= length * direction[name]
        return value

    slope = sum(float((gradient[name] * direction[name]).sum()) for name in gradient)
    assert (value_at(step) - value_at(-step)) / (2 * step) == pytest.approx(slope, rel=1e-4)


def test_value_at_the_reference(build_policy: Any, encode_pairs: Any) -> None:
    """At θ0 every margin is 0 and J = log σ(0) = log ½ = −0.6931471805599453."""
    policy = build_policy("llama")
    pairs = encode_pairs(policy)
    assert compute(policy, pairs).value == pytest.approx(-0.6931471805599453, abs=1e-12)
    assert alignment_gradient(policy, pairs, alignment("margin"), 40, show=False).value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("dtype", "total", "tolerance"),
    [
        (torch.float64, torch.float64, 1e-12),
        (torch.float32, torch.float32, 1e-5),
        (torch.bfloat16, torch.float32, 5e-2),
    ],
)
def test_budget_changes_nothing(
    dtype: torch.dtype, total: torch.dtype, tolerance: float, build_policy: Any, encode_pairs: Any
) -> None:
    """One pair a batch or all at once; sums are kept in float32 even for a bfloat16 policy."""
    policy = build_policy("gpt2", "full", dtype)
    pairs = encode_pairs(policy, shift=1.5)
    one_by_one, at_once = compute(policy, pairs, SMALL_BUDGET), compute(policy, pairs, LARGE_BUDGET)
    assert {part.dtype for part in one_by_one.gradient.values()} == {total}
    assert one_by_one.value == pytest.approx(at_once.value, rel=tolerance)
    assert_same(one_by_one, at_once.gradient, tolerance)


class KilledError(Exception):
    """Stands for the process's end."""


class Kill:
    """Raises at the `after`-th call of `Progress.step`."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError


@pytest.fixture
def killed(tmp_path: Path, build_policy: Any, encode_pairs: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A float32 policy, its pairs, and the checkpoint of a run killed in its fourth batch of five."""
    policy = build_policy("llama", "full", torch.float32)
    pairs, checkpoint = encode_pairs(policy, shift=1.5), tmp_path / "gradient-checkpoint.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "step", Kill(after=4))
        with pytest.raises(KilledError):
            compute(policy, pairs, SMALL_BUDGET, checkpoint=checkpoint, every=-1.0)
    assert not any(parameter.requires_grad for parameter in policy.model.parameters())
    return policy, pairs, checkpoint


def assert_same_bits(found: AlignmentGradient, expected: AlignmentGradient) -> None:
    assert found.value == expected.value
    assert all(torch.equal(part, expected.gradient[name]) for name, part in found.gradient.items())


def resume(policy: Policy, pairs: list[EncodedPair], checkpoint: Path) -> tuple[AlignmentGradient, int]:
    """Go on from the checkpoint; also the number of batches that were computed."""
    batches = 0

    def counting(*values: Tensor) -> Tensor:
        nonlocal batches
        batches += 1
        return alignment("dpo", 0.4)(*values)

    return alignment_gradient(policy, pairs, counting, SMALL_BUDGET, checkpoint, show=False), batches


def test_killed_run_goes_on_with_the_same_bits(killed: Any) -> None:
    policy, pairs, checkpoint = killed
    found, batches = resume(policy, pairs, checkpoint)
    assert batches == 2  # three of five lie in the checkpoint
    assert_same_bits(found, compute(policy, pairs, SMALL_BUDGET))


@pytest.mark.parametrize("damage", ["garbage", "cut", "other shape"])
def test_corrupted_checkpoint_is_ignored(killed: Any, damage: str) -> None:
    policy, pairs, checkpoint = killed
    if damage == "garbage":
        checkpoint.write_bytes(b"no tensors")
    elif damage == "cut":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    else:  # its last tensor does not fit: what was read before that must not stay
        tensors = {name: torch.ones_like(part) for name, part in policy.parameters().items()}
        state = {"state": json.dumps({"batches": 3, "value": (0.5).hex()})}
        save_file({**tensors, policy.theta[-1]: torch.ones(7)}, checkpoint, metadata=state)
    found, batches = resume(policy, pairs, checkpoint)
    assert batches == 5
    assert_same_bits(found, compute(policy, pairs, SMALL_BUDGET))


@pytest.mark.parametrize("broken", ["weights", "reference", "infinite J"])
def test_not_finite_is_an_error(broken: str, build_policy: Any, encode_pairs: Any) -> None:
    policy = build_policy("llama")
    pairs = encode_pairs(policy)
    first, *rest = pairs
    if broken == "weights":
        with torch.no_grad():
            policy.model.model.norm.weight[0] = torch.nan
    else:  # log π°(y_w) = +∞ makes J = −∞ with a finite gradient
        value = float("nan" if broken == "reference" else "inf")
        pairs = [replace(first, chosen_reference=value), *rest]
    with pytest.raises(ScoringError, match="not finite"):
        compute(policy, pairs)
    assert not any(parameter.requires_grad for parameter in policy.model.parameters())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one at every forward pass of `reference_logps`."""
    made: list[int] = []
    real = reference_module.response_logps

    def counting(model: Any, batch: Any) -> Tensor:
        made.append(1)
        return real(model, batch)

    monkeypatch.setattr(reference_module, "response_logps", counting)
    return made


def test_reference_is_computed_once(
    tmp_path: Path, calls: list[int], build_policy: Any, responses: Any, naive_logps: Any
) -> None:
    policy = build_policy("llama")
    first = reference_logps(policy, "hash", responses, 20, tmp_path, show=False)
    passes = len(calls)
    assert passes > 1
    for row, example in zip(first, responses, strict=True):  # in the order given, though batches are sorted by length
        torch.testing.assert_close(row, naive_logps(policy.model, example), rtol=0, atol=1e-10)
    second = reference_logps(policy, "hash", responses, 20, tmp_path, show=False)
    assert len(calls) == passes
    assert all(torch.equal(*rows) for rows in zip(first, second, strict=True))


@pytest.mark.parametrize("change", ["model", "data", "order", "dtype", "garbage", "cut"])
def test_changed_or_broken_reference_is_computed_anew(
    tmp_path: Path, change: str, calls: list[int], build_policy: Any, responses: Any, naive_logps: Any
) -> None:
    policy, key = build_policy("llama"), "hash"
    reference_logps(policy, key, responses, 20, tmp_path, show=False)
    (path,) = tmp_path.iterdir()
    calls.clear()
    if change in {"garbage", "cut"}:
        path.write_bytes(b"no tensors" if change == "garbage" else path.read_bytes()[:-1])
    elif change == "dtype":
        policy = build_policy("llama", "full", torch.float32)
    key = "another hash" if change == "model" else key
    examples = {"data": responses[1:], "order": responses[::-1]}.get(change, responses)
    found = reference_logps(policy, key, examples, 20, tmp_path, show=False)
    assert calls
    for row, example in zip(found, examples, strict=True):
        torch.testing.assert_close(row, naive_logps(policy.model, example), rtol=0, atol=1e-5)


def test_filler_that_is_also_a_word_keeps_its_gradient(tmp_path: Path, encode_pairs: Any) -> None:
    """`nn.Embedding(padding_idx=…)` would drop the gradient of every real token with that id (pad = eos is common)."""
    vocabulary = {f"w{number}": number for number in range(67)}
    special = {"eos_token": "w0", "pad_token": "w0"}
    words = Tokenizer(WordLevel(vocabulary, **{"unk_token": "w1"}))
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=67, pad_token_id=0, **sizes)).save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path), None, "full", LoadOptions("cpu", "float32"))
    first, *_ = encode_pairs(policy)
    chosen = replace(first.chosen, prompt_ids=(policy.tokenizer.pad_token_id, *first.chosen.prompt_ids[1:]))
    gradient = compute(policy, [replace(first, chosen=chosen)]).gradient["model.embed_tokens.weight"]
    assert float(gradient[0].abs().max()) > 1e-3 * float(gradient.abs().max())
