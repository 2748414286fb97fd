"""v = H⁻¹∇J against dense solves, and against the optimum of the inner problem itself; checkpoints, refusals, reports.

θ is a few hundred entries of a two-layer Llama in float64, so that H can be written out by double autograd.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from u2a_core.data.encode import EncodedResponse
from u2a_core.errors import ScoringError
from u2a_core.influence import implicit
from u2a_core.influence.alignment_gradient import EncodedPair, alignment_gradient
from u2a_core.influence.curvature import Forgetting, retain_batches, retain_diagonal
from u2a_core.influence.implicit import ImplicitConfig, implicit_direction
from u2a_core.models.policy import Policy
from u2a_core.objectives.alignment import alignment
from u2a_core.objectives.forgetting import forgetting_objective
from u2a_core.objectives.retention import forward_kl
from u2a_core.store.progress import Progress

pytestmark = pytest.mark.usefixtures("one_thread")
Vectors = dict[str, Tensor]
THETA = {
    "full": ("model.layers.0.input_layernorm.weight", "model.layers.1.self_attn.k_proj.weight"),
    "lora": ("layers.0.self_attn.v_proj.lora_A", "layers.0.self_attn.v_proj.lora_B", "layers.1.mlp.up_proj.lora_B"),
}
EXACT = ImplicitConfig(alpha=0.8, damping=0.1, tolerance=1e-9, iterations=200)


@dataclass(frozen=True)
class Problem:
    """A policy with few parameters, retain examples, candidates of two roles, preference pairs, and ∇J."""

    policy: Policy
    retain: list[EncodedResponse]
    candidates: list[tuple[EncodedResponse, ...]]
    pairs: list[EncodedPair]
    gradient: Vectors

    def solve(self, config: ImplicitConfig = EXACT, **changed: Any) -> tuple[Vectors, dict[str, Any]]:
        settings = {"retain": self.retain, "forgetting": self.forgetting("ga"), "token_budget": 1000, **changed}
        return implicit_direction(self.policy, self.gradient, config, show=False, **settings)

    def forgetting(self, name: str, **settings: Any) -> Forgetting:
        objective = forgetting_objective(name, **settings)
        return Forgetting(objective, [roles[: objective.roles] for roles in self.candidates], None)

    def alignment(self) -> float:
        return alignment_gradient(self.policy, self.pairs, alignment("dpo"), 1000, show=False).value

    @contextmanager
    def graph(self) -> Iterator[list[Tensor]]:
        """θ as part of the graph, with attention that can be differentiated twice."""
        parameters = list(self.policy.parameters().values())
        for one in parameters:
            one.requires_grad_(True)
        with sdpa_kernel(SDPBackend.MATH):
            yield parameters
        for one in parameters:
            one.requires_grad_(False)

    def logits(self, example: EncodedResponse) -> Tensor:
        """[T, V] of one example alone."""
        ids = torch.tensor([example.prompt_ids + example.response_ids])
        return self.policy.model(input_ids=ids, use_cache=False).logits[0, len(example.prompt_ids) - 1 : -1]

    def logps(self, example: EncodedResponse) -> Tensor:
        return self.logits(example).log_softmax(-1).gather(1, torch.tensor(example.response_ids)[:, None])[:, 0]

    def retain_kl(self, before: list[Tensor]) -> Tensor:
        """Mean over retain examples of the mean over tokens of KL(π° ‖ π_θ)."""
        values = [forward_kl(one, self.logits(example)) for one, example in zip(before, self.retain, strict=True)]
        return torch.stack([one.mean() for one in values]).mean()

    def retain_hessian(self) -> Tensor:
        """Its Hessian at θ0, [P, P], by double autograd."""
        with self.graph() as parameters:
            value = self.retain_kl([self.logits(one).detach() for one in self.retain])
            return rows(flat_gradient(value, parameters, create_graph=True), parameters)

    def own_matrix(self, name: str) -> Tensor:
        """(1/n) Σ_i Jᵀ (∂²φ_i/∂(log π)²) J, [P, P]."""
        forgetting = self.forgetting(name)
        total = torch.zeros(self.policy.size, self.policy.size, dtype=torch.float64)
        for roles in forgetting.candidates:
            with self.graph() as parameters:
                logps = [self.logps(one) for one in roles]
                J = torch.cat([rows(one, parameters) for one in logps])
            lengths = [len(one) for one in logps]

            def value(values: Tensor, lengths: list[int] = lengths) -> Tensor:
                parts = values.split(lengths)
                mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in parts], batch_first=True)
                packed = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
                return forgetting.objective.loss(packed[:, None], mask[:, None].bool(), None).sum()

            total += J.T @ torch.autograd.functional.hessian(value, torch.cat(logps).detach()) @ J
        return total / len(forgetting.candidates)


def flat(parts: Vectors) -> Tensor:
    return torch.cat([part.flatten() for part in parts.values()])


def flat_gradient(value: Tensor, parameters: list[Tensor], create_graph: bool = False) -> Tensor:
    return torch.cat([one.flatten() for one in torch.autograd.grad(value, parameters, create_graph=create_graph)])


def rows(outputs: Tensor, parameters: list[Tensor]) -> Tensor:
    """Jacobian of a flat vector, [M, P]."""
    seeds = torch.eye(len(outputs), dtype=outputs.dtype)
    found = torch.autograd.grad(outputs, parameters, seeds, is_grads_batched=True)
    return torch.cat([one.flatten(1) for one in found], 1)


def close(found: Vectors, expected: Tensor, relative: float = 1e-6) -> bool:
    return float((flat(found) - expected).norm()) <= relative * float(expected.norm())


Make = Callable[..., Problem]


@pytest.fixture(scope="module")
def make_problem(build_policy: Any, encode_lengths: Any, encode_pairs: Any, responses: list[EncodedResponse]) -> Make:
    def make(scored: str, dtype: torch.dtype = torch.float64) -> Problem:
        policy = build_policy("llama", scored, dtype)
        theta = tuple(name for name in policy.theta if any(part in name for part in THETA[scored]))
        policy = replace(policy, theta=theta)
        lengths = [(3, 4, 2), (1, 2, 5), (6, 1, 3), (2, 7, 1)]
        candidates = [tuple(encode_lengths(prompt, count) for count in counts) for prompt, *counts in lengths]
        pairs = encode_pairs(policy)
        gradient = alignment_gradient(policy, pairs, alignment("dpo"), 1000, show=False).gradient
        return Problem(policy, responses, candidates, pairs, gradient)

    return make


@pytest.fixture(scope="module", params=["lora", "full"])
def problem(request: pytest.FixtureRequest, make_problem: Make) -> Problem:
    return make_problem(request.param)


@pytest.fixture(scope="module")
def small(make_problem: Make) -> Problem:
    """The one that is solved in fewest iterations."""
    return make_problem("full")


@pytest.fixture(scope="module")
def hessian(problem: Problem) -> Tensor:
    """Of the retain KL, [P, P]."""
    return problem.retain_hessian()


def system(hessian: Tensor, config: ImplicitConfig) -> Tensor:
    return config.damping * torch.eye(len(hessian), dtype=torch.float64) + config.alpha * hessian


@pytest.mark.parametrize(("damping", "probes"), [(1.0, 0), (0.1, 0), (0.1, 8)])
def test_direction_equals_the_dense_solve(problem: Problem, hessian: Tensor, damping: float, probes: int) -> None:
    """With the preconditioner and without; the report says what was asked and what was reached."""
    config = replace(EXACT, damping=damping, probes=probes)
    found, report = problem.solve(config)
    matrix, right = system(hessian, config), flat(problem.gradient)
    assert list(found) == list(problem.policy.theta)
    assert close(found, torch.linalg.solve(matrix, right))
    assert not close(found, right / damping, 0.01)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    quotients = report["smallest_rayleigh"], report["largest_rayleigh"]
    assert (1 - 1e-9) * eigenvalues[0] <= quotients[0] < quotients[1] <= (1 + 1e-9) * eigenvalues[-1]
    residual = float((right - matrix @ flat(found)).norm() / right.norm())
    assert report["relative_residual"] == pytest.approx(residual, abs=1e-11)
    assert report["converged"]
    assert report["settings"]["probes"] == probes
    assert (report["retain_examples"], report["own_part_examples"]) == (5, 0)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@pytest.mark.parametrize("name", ["simnpo", "flat-js", "yao"])
def test_own_part_is_added(problem: Problem, hessian: Tensor, name: str) -> None:
    """simnpo: of the response alone, ≥ 0; flat-js with an alternative, of any sign; yao: linear, nothing is added."""
    config = replace(EXACT, damping=1.0, own_part=True)
    forgetting = problem.forgetting(name, **({"random_answers": 1} if name == "yao" else {}))
    found, report = problem.solve(config, forgetting=forgetting)
    own = torch.zeros_like(hessian) if name == "yao" else problem.own_matrix(name)
    assert close(found, torch.linalg.solve(system(hessian, config) + own, flat(problem.gradient)), 1e-8)
    without = torch.linalg.solve(system(hessian, config), flat(problem.gradient))
    assert close(found, without) == (name == "yao")
    assert report["own_part_examples"] == 4


def test_no_curvature_gives_the_gradient_over_damping(problem: Problem) -> None:
    """α = 0: v = ∇J/λ to rounding, after one iteration, with retain data or without."""
    for retain in (problem.retain, []):
        found, report = problem.solve(ImplicitConfig(alpha=0.0, damping=0.3), retain=retain)
        torch.testing.assert_close(flat(found), flat(problem.gradient) / 0.3, rtol=1e-14, atol=0)
        assert (report["iterations"], report["retain_examples"]) == (1, 0)
        assert report["smallest_rayleigh"] == pytest.approx(0.3)


def test_scores_predict_the_optimum_of_the_inner_problem(problem: Problem, hessian: Tensor) -> None:
    """dJ(θ*(ω))/dω_i at ω = 0 is −⟨v, ∇φ_i⟩/n, with θ*(ω) = argmin (1/n) Σ ω_i φ_i + α R + (λ/2) ‖θ − θ0‖² found by
    descent on that very function, R the mean KL to the policy at θ0 over the retain examples.
    """
    config = replace(EXACT, alpha=4.0, damping=0.08)
    v, _ = problem.solve(config)
    start = flat({name: one.detach().clone() for name, one in problem.policy.parameters().items()})
    step, before = system(hessian, config), [problem.logits(one) for one in problem.retain]

    def alignment_at_optimum(example: EncodedResponse, weight: float) -> float:
        theta = start.clone()
        for _ in range(2):
            put(problem.policy, theta)
            with problem.graph() as parameters:
                loss = weight * problem.logps(example).mean() / len(problem.candidates)
                slope = flat_gradient(loss + config.alpha * problem.retain_kl(before), parameters)
            theta = theta - torch.linalg.solve(step, slope + config.damping * (theta - start))
        put(problem.policy, theta)
        value = problem.alignment()
        put(problem.policy, start)
        return value

    for own, _ in problem.candidates[:2]:
        with problem.graph() as parameters:
            slope = flat_gradient(problem.logps(own).mean(), parameters)
        predicted = -float(flat(v) @ slope) / len(problem.candidates)
        first_order = -float(flat(problem.gradient) @ slope) / config.damping / len(problem.candidates)
        realised = (alignment_at_optimum(own, 1e-3) - alignment_at_optimum(own, -1e-3)) / 2e-3
        assert realised == pytest.approx(predicted, rel=1e-4)
        assert realised != pytest.approx(first_order, rel=0.05)


def put(policy: Policy, theta: Tensor) -> None:
    parameters = policy.parameters().values()
    for one, part in zip(parameters, theta.split([one.numel() for one in parameters]), strict=True):
        one.data.copy_(part.view_as(one))


def test_negative_curvature_names_a_damping_that_cures_it(problem: Problem, hessian: Tensor) -> None:
    config = replace(EXACT, alpha=0.0, damping=1e-4, own_part=True)
    forgetting = problem.forgetting("flat-pearson")
    lowest = float(torch.linalg.eigvalsh(problem.own_matrix("flat-pearson"))[0])
    assert lowest < -1e-3
    with pytest.raises(ScoringError, match="is not positive") as refusal:
        problem.solve(config, forgetting=forgetting)
    named = float(re.search(r"--damping (\S+)\.", str(refusal.value))[1])
    assert -lowest < named < -1.3 * lowest + 1e-3
    cured = replace(config, damping=named)
    found, report = problem.solve(cured, forgetting=forgetting)
    assert report["converged"]
    matrix = system(hessian, cured) + problem.own_matrix("flat-pearson")
    assert close(found, torch.linalg.solve(matrix, flat(problem.gradient)))


def test_too_few_iterations_are_reported(problem: Problem, hessian: Tensor) -> None:
    config = replace(EXACT, damping=1e-3, iterations=2)
    found, report = problem.solve(config)
    right = flat(problem.gradient)
    residual = float((right - system(hessian, config) @ flat(found)).norm() / right.norm())
    assert (report["converged"], report["iterations"]) == (False, 2)
    assert report["relative_residual"] == pytest.approx(residual)
    assert residual > 1e-3


def test_no_retain_data_is_refused_with_the_remedy(small: Problem) -> None:
    with pytest.raises(ScoringError, match=r"--estimator first_order, or prepare .* retain data"):
        small.solve(retain=[])
    own = replace(EXACT, damping=0.5, own_part=True)
    found, report = small.solve(own, retain=[], forgetting=small.forgetting("simnpo"))
    assert report["retain_examples"] == 0
    matrix = 0.5 * torch.eye(small.policy.size, dtype=torch.float64) + small.own_matrix("simnpo")
    assert close(found, torch.linalg.solve(matrix, flat(small.gradient)))


def test_a_sample_stands_for_all(small: Problem) -> None:
    """Two of four examples, the same ones in whatever order they come; another seed draws others."""
    few, four = replace(EXACT, damping=1.0, tolerance=1e-7, sample=2), small.retain[1:]
    pairs = {
        names: flat(small.solve(few, retain=[four[index] for index in names])[0]) for names in combinations(range(4), 2)
    }
    draws = set()
    for seed, retain in ((0, four), (0, four[::-1]), (1, four), (2, four)):
        found, report = small.solve(replace(few, seed=seed), retain=retain)
        assert report["retain_examples"] == 2
        (drawn,) = [names for names, expected in pairs.items() if close(found, expected)]
        draws.add((seed, drawn))
    assert len(draws) == 3
    assert len({drawn for _, drawn in draws}) > 1
    own = replace(few, own_part=True, sample=3)
    assert small.solve(own, forgetting=small.forgetting("simnpo"))[1]["own_part_examples"] == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"alpha": -1.0}, "α, the weight .* at least 0; it is -1"),
        ({"alpha": float("nan")}, "α, the weight .* it is nan"),
        ({"damping": 0.0}, "λ, the damping, .* greater than 0; it is 0"),
        ({"damping": float("inf")}, "λ, the damping, .* it is inf"),
        ({"tolerance": 0.0}, "tolerance .* between 0 and 1"),
        ({"tolerance": 1.0}, "tolerance .* between 0 and 1"),
        ({"iterations": 0}, "iterations .* at least 1"),
        ({"probes": -1}, "probes .* at least 0"),
        ({"sample": 0}, "sample .* at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(small: Problem, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        small.solve(replace(EXACT, **changed))


class KilledError(Exception):
    """Stands for the process's end."""


@pytest.fixture
def killed(tmp_path: Path, make_problem: Make, monkeypatch: pytest.MonkeyPatch) -> tuple[Problem, Path]:
    """A float32 problem, and the checkpoint of a solve that was killed in its fourth iteration."""
    problem, checkpoint, steps = make_problem("full", torch.float32), tmp_path / "implicit.safetensors", []

    def kill(*_: Any) -> None:
        steps.append(1)
        if len(steps) == 4:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "step", kill)
        with pytest.raises(KilledError):
            problem.solve(SINGLE, checkpoint=checkpoint, every=-1.0)
    assert not any(one.requires_grad for one in problem.policy.model.parameters())
    return problem, checkpoint


SINGLE = ImplicitConfig(damping=0.05, tolerance=1e-5, probes=2)


def resumed(problem: Problem, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Vectors, dict[str, Any], int]:
    """What going on gives, and the number of iterations that it took."""
    steps = []
    monkeypatch.setattr(Progress, "step", lambda *_: steps.append(1))
    found, report = problem.solve(SINGLE, checkpoint=checkpoint)
    return found, report, len(steps)


def test_a_killed_solve_goes_on_with_the_same_bits(
    killed: tuple[Problem, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, checkpoint = killed
    whole, expected = problem.solve(SINGLE)
    found, report, steps = resumed(problem, checkpoint, monkeypatch)
    assert steps == expected["iterations"] - 3 > 2
    assert torch.equal(flat(found), flat(whole))
    assert {**report, "seconds": 0} == {**expected, "seconds": 0}
    assert {path.name for path in checkpoint.parent.iterdir()} == {checkpoint.name}


def test_the_preconditioner_is_the_diagonal_of_h(make_problem: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, given = make_problem("full", torch.float64), []
    solve = implicit.conjugate_gradients

    def looking(system: Any, right: Any, preconditioner: Any, *others: Any) -> Any:
        given.append(preconditioner)
        return solve(system, right, preconditioner, *others)

    monkeypatch.setattr(implicit, "conjugate_gradients", looking)
    problem.solve(replace(EXACT, probes=3, seed=4))
    problem.solve(replace(EXACT, probes=0))
    batches = retain_batches(problem.policy, problem.retain, 1000)
    diagonal = retain_diagonal(problem.policy, batches, 3, 4)
    assert torch.allclose(flat(given[0]), EXACT.damping + EXACT.alpha * flat(diagonal), rtol=1e-9, atol=0)
    assert flat(diagonal).max() > 0.1 * EXACT.damping, "it tells something"
    assert given[1] is None


def test_only_a_solve_with_a_checkpoint_saves_and_not_too_often(make_problem: Make, tmp_path: Path) -> None:
    problem, checkpoint = make_problem("full", torch.float32), tmp_path / "implicit.safetensors"
    found, _ = problem.solve(SINGLE, checkpoint=None, every=-1.0)
    other, _ = problem.solve(SINGLE, checkpoint=checkpoint, every=math.inf)
    assert torch.equal(flat(found), flat(other))
    assert not checkpoint.exists()


@pytest.mark.parametrize("damage", ["garbage", "cut", "other shape", "other dtype", "other names", "no state"])
def test_an_unreadable_checkpoint_is_ignored(
    killed: tuple[Problem, Path], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, checkpoint = killed
    tensors, state = load_file(checkpoint), {"state": json.dumps({"rho": 1.0, "iterations": 3})}
    name = next(iter(tensors))
    if damage == "garbage":
        checkpoint.write_bytes(b"no tensors")
    elif damage == "cut":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    elif damage == "other shape":
        save_file({**tensors, name: torch.ones(1)}, checkpoint, state)
    elif damage == "other dtype":
        save_file({**tensors, name: tensors[name].double()}, checkpoint, state)
    elif damage == "other names":
        save_file({f"{key}.old": one for key, one in tensors.items()}, checkpoint, state)
    else:
        save_file(tensors, checkpoint)
    whole, expected = problem.solve(SINGLE)
    found, _, steps = resumed(problem, checkpoint, monkeypatch)
    assert steps == expected["iterations"]
    assert torch.equal(flat(found), flat(whole))


def test_nothing_depends_on_the_budget(small: Problem) -> None:
    config = ImplicitConfig(own_part=True)
    forgetting = small.forgetting("flat-js")
    expected = flat(small.solve(config, forgetting=forgetting, token_budget=1)[0])
    assert close(small.solve(config, forgetting=forgetting, token_budget=1000)[0], expected, 1e-8)


def test_the_model_is_left_as_it_was(problem: Problem) -> None:
    before = {name: one.clone() for name, one in problem.policy.model.named_parameters()}
    config = ImplicitConfig(own_part=True, probes=1)
    problem.solve(config, forgetting=problem.forgetting("flat-js"))
    for name, one in problem.policy.model.named_parameters():
        assert not one.requires_grad
        assert one.grad is None
        assert torch.equal(one, before[name])
    assert not any(module._forward_pre_hooks for module in problem.policy.model.modules())
