"""Attributions of token rewards: closed form of a linear model, an integral of our own, completeness, both kinds."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from u2a_core.bundle import open_bundle
from u2a_core.cli import main
from u2a_core.data.encode import EncodedResponse, ResponseEncoder
from u2a_core.data.pairs import Message
from u2a_core.errors import BundleError, ScoringError
from u2a_core.models.loading import LoadOptions
from u2a_core.models.policy import load_policy
from u2a_core.models.reward import ClassifierReward, ImplicitReward
from u2a_core.models.reward_attribution import attribution, baseline_ids, decoded_tokens, explain
from u2a_core.store.explanations import read_explanation

CPU = LoadOptions("cpu")
DEVICE = torch.device("cpu")
PROMPT, RESPONSE = (Message("user", "Hello, how are you?"),), "I can not help you with that."


def encode(tokenizer: Any) -> EncodedResponse:
    return ResponseEncoder(tokenizer, 100).encode("e1", PROMPT, RESPONSE)


class Sums(nn.Module):
    """Hidden state t = Σ_{j ≤ t} (j + 1) e_j: linear in the embeddings, and different at every place."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, 5)

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        places = torch.arange(1, input_ids.shape[1] + 1)[None, :, None]
        return SimpleNamespace(last_hidden_state=(self.words(input_ids) * places).cumsum(1))


class Linear(nn.Module):
    def __init__(self, words: int) -> None:
        super().__init__()
        self.base_model, self.score = Sums(words), nn.Linear(5, 1)

    def get_input_embeddings(self) -> nn.Module:
        return self.base_model.words


@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (7, 3)])
def test_a_linear_model_has_a_closed_form(steps: int, rows: int, tokenizer: Any) -> None:
    """a_j = (j + 1) w·(e_j − e_pad) up to the token that is read, 0 behind it, whatever the number of steps."""
    torch.manual_seed(0)
    model = ClassifierReward.__new__(ClassifierReward)
    model.model, model.tokenizer = Linear(len(tokenizer)), tokenizer
    model.head = model.model.score
    encoded, step = encode(tokenizer), 3
    found = attribution(model, encoded, step, steps, rows, DEVICE)
    words, w = model.model.base_model.words.weight, model.head.weight[0]
    ids = torch.tensor([*encoded.prompt_ids, *encoded.response_ids])
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    places = torch.arange(1, len(ids) + 1)
    expected = places * ((words[ids] - words[tokenizer.pad_token_id]) @ w) * ~special
    expected[len(encoded.prompt_ids) + step + 1 :] = 0
    np.testing.assert_allclose(found.values, expected.detach().numpy(), atol=1e-4)
    assert np.abs(found.values).max() > 0.1
    assert found.error == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_it_is_the_integral_of_the_gradient_along_the_embeddings(
    kind: str, save_classifier: Callable[..., str], tokenizer: Any
) -> None:
    """A midpoint rule of our own, on embeddings given to the model directly."""
    reward = ClassifierReward(save_classifier(kind), CPU)
    encoded, step = encode(tokenizer), 2
    found = attribution(reward, encoded, step, 48, 16, DEVICE)
    embed = reward.model.get_input_embeddings()
    ids = torch.tensor([[*encoded.prompt_ids, *encoded.response_ids]])
    column = len(encoded.prompt_ids) + step
    start, end = (embed(one).detach() for one in (baseline_ids(reward, encoded, step), ids))
    shares = (torch.arange(400) + 0.5)[:, None, None] / 400
    points = (start + shares * (end - start)).requires_grad_()
    hidden = reward.model.base_model(inputs_embeds=points).last_hidden_state
    (gradient,) = torch.autograd.grad(reward.head(hidden[:, column]).sum(), points)
    expected = ((end - start)[0] * gradient.mean(0)).sum(-1)
    np.testing.assert_allclose(found.values, expected.numpy(), atol=2e-3)
    whole = reward.model.base_model(ids).last_hidden_state[0, column]
    assert found.reward == pytest.approx(reward.head(whole).item(), abs=1e-5)


def test_parts_add_up_and_tokens_behind_have_none(classifier: str, tokenizer: Any) -> None:
    reward = ClassifierReward(classifier, CPU)
    encoded = encode(tokenizer)
    step = len(encoded.response_ids) - 3
    found = attribution(reward, encoded, step, 48, 48, DEVICE)
    assert abs(found.error) < 0.01 * np.abs(found.values).sum()
    assert (found.values[len(encoded.prompt_ids) + step + 1 :] == 0).all()
    batches = attribution(reward, encoded, step, 48, 20, DEVICE)
    np.testing.assert_allclose(found.values, batches.values, atol=1e-4)


def test_an_implicit_reward_is_explained_by_both_its_models(save_causal: Callable[..., str]) -> None:
    """Its own token is predicted and no input: it stays in the baseline and has no part."""
    path = save_causal("llama")
    policy = load_policy(path, None, "full", CPU)
    reward = ImplicitReward(save_causal("llama", seed=5), policy.model, policy.tokenizer, 0.5, CPU)
    encoded, step = encode(policy.tokenizer), 2
    place = len(encoded.prompt_ids) + step
    found = attribution(reward, encoded, step, 96, 32, DEVICE)
    assert abs(found.error) < 0.01 * np.abs(found.values).sum()
    assert (found.values[place:] == 0).all()
    assert np.abs(found.values[:place]).max() > 1e-3
    assert baseline_ids(reward, encoded, step)[0, place] == encoded.response_ids[step]
    same = ImplicitReward(path, policy.model, policy.tokenizer, 0.5, CPU)
    assert np.abs(attribution(same, encoded, step, 8, 8, DEVICE).values).max() < 1e-6


def test_decoded_tokens_are_the_text_cut_up(tokenizer: Any) -> None:
    text = "Sure, \U0001f600 中文 help\n\nyou"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    parts = decoded_tokens(tokenizer, ids)
    assert "".join(parts) == tokenizer.decode(ids) == text
    assert len(parts) == len(ids)
    assert "" in parts, "a character of several tokens stands at the last of them"
    assert decoded_tokens(tokenizer, []) == []


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("U2A_CACHE", str(tmp_path))
    return open_bundle("demo")


def test_the_command_explains_and_keeps_what_is_there(demo: Any) -> None:
    row = demo.scores("default").table.iloc[0]
    argv = ["explain", "demo", "--id", row["id"], "--token", "24", "--steps", "4", "--device", "cpu"]
    first = CliRunner().invoke(main, argv)
    assert first.exit_code == 0, first.output
    (file,) = (demo.results / "explanations").glob("*.json")
    found = read_explanation(file)
    assert found.reward == pytest.approx(row["token_rewards"][24], abs=1e-3)
    assert found.tokens[found.prompt_tokens :] == tuple(row["tokens"])
    assert found.tokens[found.position] == row["tokens"][24]
    assert row["prompt"] in "".join(found.tokens[: found.prompt_tokens])
    whole = found.reward - found.baseline_reward
    assert sum(found.attributions) - whole == pytest.approx(found.error, abs=1e-6)
    assert (found.steps, found.settings["dtype"], found.bundle_hash) == (4, "float32", demo.hash)
    again = explain(demo, row["id"], 24, 4, CPU, 4096, show=False)
    assert again == (file, True)
    assert explain(demo, row["id"], 24, 5, CPU, 4096, show=False) == (file, False)
    assert read_explanation(file).steps == 5


def test_what_cannot_be_explained_is_refused(demo: Any) -> None:
    identity = demo.pairs.forget[0].id
    with pytest.raises(BundleError, match="no candidate with the id 'x'"):
        explain(demo, "x", 0, 4, CPU, 4096, show=False)
    with pytest.raises(ScoringError, match=rf"{identity} has 50 response tokens.*from 0 to 49; it is 50"):
        explain(demo, identity, 50, 4, CPU, 4096, show=False)
    bare = type(demo)(demo.path, {key: value for key, value in demo.manifest.items() if key != "reward"})
    with pytest.raises(BundleError, match=r"no reward model.*u2a reward"):
        explain(bare, identity, 0, 4, CPU, 4096, show=False)
