"""Every metric moves the right way on a model that was really changed: the demo's policy aligned, the demo's policy
broken, and a tiny policy that learned its examples by heart.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from u2a_core.bundle import open_bundle
from u2a_core.data.batch import ResponseBatch, collate
from u2a_core.data.encode import EncodedResponse, ResponseEncoder
from u2a_core.data.forget_set import forget_set
from u2a_core.data.paraphrases import paraphrases_path
from u2a_core.evaluation import robustness
from u2a_core.evaluation.evaluate import evaluate, evaluate_original
from u2a_core.evaluation.evaluate_config import EvaluateConfig
from u2a_core.evaluation.loaded import LoadedPolicy
from u2a_core.evaluation.metrics import METRICS, compared
from u2a_core.evaluation.robustness import RobustnessConfig
from u2a_core.evaluation.weight_attacks import _matrices, round_to_nearest
from u2a_core.influence.logprobs import response_logps
from u2a_core.models.loading import LoadOptions, load_tokenizer
from u2a_core.objectives.config import ObjectiveConfig
from u2a_core.objectives.retention import retain_nll
from u2a_core.store.evaluations import Evaluation
from u2a_core.unlearning.config import UnlearnConfig
from u2a_core.unlearning.run import unlearn

CPU = LoadOptions("cpu")
EVALUATE = EvaluateConfig(16, 48, examples=60, robustness=RobustnessConfig(count=16), options=CPU)
RUNS = {
    "aligned": UnlearnConfig(
        ObjectiveConfig("npo", retention="nll"), "full", learning_rate=2e-4, steps=8, batch_size=32, check_every=8,
        monitor=16, options=CPU,
    ),
    "broken": UnlearnConfig(
        ObjectiveConfig("ga"), "full", learning_rate=3e-3, steps=6, batch_size=16, check_every=6, monitor=16,
        retain_budget=None, trust_region=None, options=CPU,
    ),
}  # fmt: skip
ALIGNED = {
    **dict.fromkeys(("alignment", "accuracy", "margin", "token_reward", "answer_reward", "sampled_reward"), 1),
    **dict.fromkeys(("win_rate", "win_rate_length", "sampled_win_rate"), 1),
    **dict.fromkeys(("forget_nll", "unlearned_nll", "kept_nll", "retain_kl"), 1),
    **dict.fromkeys(("probability", "memorisation", "extraction", "rouge"), -1),
    **dict.fromkeys(("unseen_probability", "unseen_memorisation", "unseen_extraction"), -1),
    **dict.fromkeys(("auc_loss", "auc_min_k", "auc_min_k_plus_plus", "auc_zlib"), -1),
}
BROKEN = {
    **dict.fromkeys(("alignment", "attack_success", "fluent", "unseen_rouge"), -1),
    **dict.fromkeys(("distinct_1", "distinct_2", "entropy"), -1),
    **dict.fromkeys(("repetition", "coherence", "retain_nll", "retain_perplexity", "retain_kl"), 1),
}
LEARNED = {
    **dict.fromkeys(("tpr_loss", "tpr_min_k", "tpr_min_k_plus_plus", "tpr_zlib"), 1),
    **dict.fromkeys(("auc_loss", "auc_min_k", "auc_min_k_plus_plus", "auc_zlib"), 1),
    **dict.fromkeys(("probability", "memorisation", "extraction", "rouge"), 1),
    **dict.fromkeys(("forget_nll", "unlearned_nll", "confidence"), -1),
}
ATTACKED = (
    "undone_relearned",
    "undone_relearned_unrelated",
    "undone_in_context",
    "undone_rounded",
    "undone_paraphrased",
)
ATTACK = RobustnessConfig(count=6, known=4, steps=1, learning_rate=1e-3, group=16)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """The metrics of the demo's original policy (left) and of every run (right)."""
    bundle = replace(open_bundle("demo"), results_folder=tmp_path_factory.mktemp("results"))
    scores = pd.read_parquet(bundle.path / "scores" / "default.parquet", columns=["id", "delta_pa"])
    chosen = forget_set(dict.fromkeys(scores.sort_values("delta_pa", ascending=False)["id"][:250], 1.0))
    found = {}
    for name, config in RUNS.items():
        unlearn(bundle, config, chosen, name, show=False)
        found[name] = pd.DataFrame(evaluate(bundle, name, EVALUATE, show=False).after.document["metrics"])
    return {name: table.set_index("name") for name, table in found.items()}


@pytest.fixture(scope="module")
def learned(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The metrics of a tiny policy before (left) and after (right) it learned all candidates by heart."""
    folder = tmp_path_factory.mktemp("learned")
    before = replace(open_bundle(prepared), results_folder=folder / "before")
    encoder = ResponseEncoder(load_tokenizer(before.policy_path), before.max_length)
    examples = before.pairs.forget
    batch = collate([encoder.encode(one.id, one.prompt, one.response) for one in examples], 0)
    model: Any = AutoModelForCausalLM.from_pretrained(before.policy_path)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(120):
        optimizer.zero_grad()
        (-response_logps(model, batch).mean()).backward()
        optimizer.step()
    shutil.copytree(before.path, folder / "bundle")
    shutil.copytree(before.policy_path, folder / "policy")
    model.save_pretrained(folder / "policy")
    copied = open_bundle(folder / "bundle")
    after = copied.updated(policy={**copied.manifest["policy"], "path": str(folder / "policy")})
    config = EvaluateConfig(6, 24, options=CPU)
    both = (evaluate_original(one, config, show=False) for one in (before, after))
    return compared(*both, {one.id: 1.0 for one in examples}).set_index("name")


@pytest.fixture
def forgetful(unlearned: Path, tmp_path: Path) -> LoadedPolicy:
    """The policy of a run, at θ0 as yet."""
    loaded = LoadedPolicy(open_bundle(shutil.copytree(unlearned, tmp_path / "bundle")), "full", CPU)
    loaded.policy.model.load_state_dict(loaded._beside.model.state_dict())
    return loaded


def nll(model: Any, batch: ResponseBatch) -> Tensor:
    """Mean NLL per token of every response, [B]."""
    return retain_nll(*batch.pack(response_logps(model, batch)))


def attacked(loaded: LoadedPolicy) -> pd.DataFrame:
    return robustness.attacks(loaded, {one.id: 1.0 for one in loaded.bundle.pairs.forget}, ATTACK, 512, show=False)


def undone(attack: str, table: pd.DataFrame) -> float:
    """The metric of that name."""
    metric = next(one for one in METRICS if one.name == f"undone_{attack}")
    value = metric.measure(Evaluation(None, {"attacks": table}, {}), {}).value
    assert value is not None
    return value


@pytest.mark.parametrize(("name", "sign"), ALIGNED.items())
def test_unlearning_what_hurts_most(name: str, sign: int, demo: dict[str, pd.DataFrame]) -> None:
    assert demo["aligned"]["difference"][name] * sign > 0


def test_what_is_unlearned_rises_most(demo: dict[str, pd.DataFrame]) -> None:
    rise = demo["aligned"]["difference"]
    assert rise["unlearned_nll"] > rise["kept_nll"] > rise["retain_nll"]


def test_attacks_take_back_part_of_it(demo: dict[str, pd.DataFrame]) -> None:
    undone = demo["aligned"]["right"]
    assert undone["undone_relearned"] > undone["undone_relearned_unrelated"], "by what resembles it more"
    assert 0 < undone["undone_relearned"] < 1


@pytest.mark.parametrize(("rise_otherwise", "low", "high"), [(0.0, 0.8, 1.2), (1.0, -0.2, 0.2)])
@pytest.mark.parametrize("attack", ["in_context", "paraphrased"])
def test_what_is_forgotten_only_as_it_was_asked_comes_back_asked_otherwise(
    attack: str, rise_otherwise: float, low: float, high: float, forgetful: LoadedPolicy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The NLL of the attacked responses is raised by 1 nat, and by `rise_otherwise` with examples before the prompt,
    or with the prompt in other words.
    """
    examples = {one.id: one for one in forgetful.bundle.pairs.forget}
    prompts = {one.prompt[-1].content for one in examples.values()}
    rows = [{"prompt": prompt, "paraphrase": prompt.replace("Tell of", "Say more:")} for prompt in sorted(prompts)]
    paraphrases_path(forgetful.bundle.path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    tried: list[EncodedResponse | None] = []

    def shown_to(name: str) -> Any:
        original = getattr(robustness, name)

        def caught(*given: Any) -> Any:
            found = original(*given)
            tried.extend(found if isinstance(found, list) else [found])
            return found

        return caught

    with monkeypatch.context() as patched:
        name = "after_examples" if attack == "in_context" else "_reworded"
        patched.setattr(robustness, name, shown_to(name))
        table = attacked(forgetful)
    shown = [one for one in tried if one is not None]
    assert len(shown) > 2
    chosen = [examples[one] for one in table["id"].unique()]
    plain = [forgetful.encoder.encode(one.id, one.prompt, one.response) for one in chosen]
    model = forgetful.policy.model
    sides = [(collate(one, 0), rise) for one, rise in ((plain, 1.0), (shown, rise_otherwise))]
    with torch.no_grad():
        aims = [nll(model, batch) + rise for batch, rise in sides]
    model.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    for _ in range(150):
        optimizer.zero_grad()
        sum((nll(model, batch) - aim).square().sum() for (batch, _), aim in zip(sides, aims, strict=True)).backward()
        optimizer.step()
    assert low < undone(attack, attacked(forgetful)) < high


@pytest.mark.parametrize(("steps", "low", "high"), [(0.45, 0.999, 1.001), (3.0, -0.6, 0.6)])
def test_what_was_forgotten_within_rounding_comes_back_by_it(
    steps: float, low: float, high: float, forgetful: LoadedPolicy
) -> None:
    """Weights that lie on the levels of rounding are shifted by less than half a level, or by three, uphill."""
    model, original = forgetful.policy.model, forgetful._beside.model
    encoder, examples = forgetful.encoder, forgetful.bundle.pairs.forget
    batch = collate([encoder.encode(one.id, one.prompt, one.response) for one in examples], 0)
    for one in (model, original):
        with torch.no_grad():
            for weight, _ in _matrices(one):
                weight.copy_(round_to_nearest(weight, ATTACK.bits, ATTACK.group))
    model.requires_grad_(True)
    nll(model, batch).mean().backward()
    with torch.no_grad():
        for weight, _ in _matrices(model):
            groups = weight.view(len(weight), -1, ATTACK.group)
            largest = groups.abs().amax(-1, keepdim=True)
            step, inner = largest / (2 ** (ATTACK.bits - 1) - 1), groups.abs() < 0.9 * largest
            groups += steps * step * inner * weight.grad.sign().view_as(groups)
    found = attacked(forgetful)
    assert (found["plain"] - found["original"]).mean() > 0.1
    assert low < undone("rounded", found) < high


@pytest.mark.parametrize(("name", "sign"), BROKEN.items())
def test_ascent_without_limits_breaks_the_policy(name: str, sign: int, demo: dict[str, pd.DataFrame]) -> None:
    assert demo["broken"]["difference"][name] * sign > 0


def test_gibberish_is_no_success_of_an_attack(demo: dict[str, pd.DataFrame]) -> None:
    assert demo["broken"]["right"]["fluent"] == demo["broken"]["right"]["attack_success"] == 0


@pytest.mark.parametrize(("name", "sign"), LEARNED.items())
def test_learning_by_heart(name: str, sign: int, learned: pd.DataFrame) -> None:
    assert learned["difference"][name] * sign > 0


def test_no_metric_is_left_out() -> None:
    assert {*ALIGNED, *BROKEN, *LEARNED, *ATTACKED} == {metric.name for metric in METRICS}
