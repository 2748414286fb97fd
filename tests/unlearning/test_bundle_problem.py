"""The outer problem of a bundle: its derivative against one SGD step really taken, and against per-sample gradients."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import logsigmoid

from u2a_core.errors import ScoringError, UnlearningError
from u2a_core.influence import candidate_influence
from u2a_core.influence.unrolled import unrolled
from u2a_core.unlearning.bundle_problem import BundleProblem
from u2a_core.unlearning.inner import Outcome
from u2a_core.unlearning.material import Material
from u2a_core.unlearning.measures import measure_alignment, measure_retain
from u2a_core.unlearning.processes import Processes

Floats = NDArray[np.float64]
Make = Callable[..., Material]
ALONE = Processes()


def problem_of(material: Material, aside: float = 0.25) -> BundleProblem:
    return BundleProblem(material, material.ids, aside, show=False)


def every(problem: BundleProblem) -> NDArray[np.bool_]:
    return np.ones(len(problem.ids), dtype=bool)


def uneven(count: int) -> Floats:
    weights = np.linspace(0.2, 1.8, count)
    return weights / weights.mean()


@pytest.mark.parametrize(("objective", "clip"), [("ga", 0.0), ("dpo", 0.0), ("yao", 0.0), ("npo", 0.01), ("npo", 1e6)])
def test_the_derivative_against_one_small_step_really_taken(objective: str, clip: float, make_exact: Make) -> None:
    """θ1 = θ0 − η g or, clipped, θ0 − η κ g/‖g‖ with g = Σ ω_i ∇φ_i / n: dJ(θ1)/dω_i up to one factor, and O(η²).

    Weight is moved from one example to another, since the solver keeps their mean at 1.
    """
    nudge, retention = 0.05, "none" if objective == "yao" else None
    rate = 1e-5 if clip in (0.0, 1e6) else 1e-3
    material = make_exact(objective, retention, learning_rate=rate, steps=1, alignment_beta=0.2, clip=clip)
    problem = problem_of(material)
    weights = np.ones(len(problem.ids))
    derivative = problem.gradient(None, weights, every(problem))
    found, expected = [], []
    for giver in (1, 9):
        values = []
        for sign in (1, -1):
            moved = weights.copy()
            moved[0] += sign * nudge
            moved[giver] -= sign * nudge
            values.append(problem.value(problem.solve(moved))[0])
        found.append((values[0] - values[1]) / (2 * nudge))
        expected.append(derivative[0] - derivative[giver])
    factor = float(np.dot(found, expected) / np.dot(expected, expected))
    assert factor > 0
    assert found == pytest.approx(factor * np.array(expected), abs=5e-3 * float(np.abs(found).max()))
    assert derivative.std() == pytest.approx(1.0)
    assert np.ptp(expected) > 0.2 * np.abs(derivative).max()


class ByHand:
    """J, φ_i and the inner objective of a problem, and their gradients, formed one example at a time."""

    def __init__(self, problem: BundleProblem, logits: Callable[..., torch.Tensor]) -> None:
        self.problem, self.material, self.logits = problem, problem.material, logits

    def at(self, theta: dict[str, torch.Tensor]) -> "ByHand":
        self.material.reset(theta)
        self.theta = list(self.material.policy.parameters().values())
        for one in self.theta:
            one.requires_grad_(True)
        return self

    def total(self, example: Any) -> torch.Tensor:
        rows = self.logits(self.material.policy, example).log_softmax(-1)
        return rows[range(len(example.response_ids)), list(example.response_ids)].sum()

    def gradient(self, value: torch.Tensor) -> torch.Tensor:
        return torch.cat([part.flatten() for part in torch.autograd.grad(value, self.theta)])

    def alignment(self) -> torch.Tensor:
        parts = [
            logsigmoid(
                0.3
                * (
                    self.total(pair.chosen)
                    - pair.chosen_reference
                    - self.total(pair.rejected)
                    + pair.rejected_reference
                )
            )
            for pair in self.problem.train
        ]
        return self.gradient(torch.stack(parts).mean())

    def phi(self, one: str) -> torch.Tensor:
        own, *others = self.material.candidates[one]
        before = [float(part.sum()) for part in (self.material.references or {}).get(one, ())]
        if self.material.objective.name == "ga":
            return self.gradient(self.total(own) / len(own.response_ids))
        if self.material.objective.name == "npo":
            return self.gradient(-20 * logsigmoid(0.1 * (before[0] - self.total(own))))
        gain = self.total(others[0]) - before[1] - self.total(own) + before[0]
        return self.gradient(-20 * logsigmoid(0.1 * gain))

    def retain(self) -> torch.Tensor:
        parts = [-self.total(one) / len(one.response_ids) for one in self.material.retain]
        return self.gradient(torch.stack(parts).mean())


@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        ("npo", {"parameters": "lora", "rank": 2}),
        ("dpo", {}),
        ("npo", {"clip": 0.05, "learning_rate": 1.0}),
        ("ga", {"optimizer": "adamw", "learning_rate": 0.01}),
    ],
    ids=["npo-lora", "dpo", "npo-clipped", "ga-adamw"],
)
def test_the_derivative_at_a_solution_against_per_sample_gradients(
    objective: str, settings: dict[str, Any], make_exact: Make, naive_logits: Callable[..., torch.Tensor]
) -> None:
    """−⟨P (∇J − c g), ∇φ_i⟩ / n with ∇J at θ*(ω), the others half-way to it; c = 0 for a plain step."""
    material = make_exact(objective, "nll", 0.5, alignment_beta=0.3, **settings)
    problem = problem_of(material)
    weights = uneven(len(problem.ids))
    solution = problem.solve(weights)
    found = problem.gradient(solution, weights, every(problem))

    by_hand = ByHand(problem, naive_logits)
    uphill = by_hand.at(solution.theta).alignment()
    by_hand.at({name: (one + material.start[name]) / 2 for name, one in solution.theta.items()})
    parts = torch.stack([by_hand.phi(one) for one in problem.ids])
    step = torch.tensor(weights) @ parts / weights.sum() + 0.5 * by_hand.retain()
    if "optimizer" in settings:
        assert solution.second_moments is not None
        flat = torch.cat([one.flatten() for one in solution.second_moments.values()])
        scaling = 1 / ((flat / (1 - 0.999**4)).sqrt() + 1e-8)
    else:
        assert solution.second_moments is None
        scaling = torch.ones_like(step)
    plain = not {"clip", "optimizer"} & settings.keys()
    share = 0.0 if plain else float(uphill @ (scaling * step) / (step @ (scaling * step)))
    expected = -(parts @ (scaling * (uphill - share * step))).numpy() / len(problem.ids)
    factor = float(found @ expected / (expected @ expected))
    assert factor > 0
    assert found == pytest.approx(factor * expected, abs=1e-7 * float(np.abs(found).max()))
    assert found.std() == pytest.approx(1.0)
    assert np.ptp(expected) > 0.1 * np.abs(expected).max()


def test_the_derivative_is_a_number_also_where_no_step_could_be_kept(make_material: Make) -> None:
    """θ* is θ0 then, and AdamW's state belongs to steps that were undone."""
    for rate in (0.5, 1e30):
        material = make_material(optimizer="adamw", learning_rate=rate, trust_region=1e-3)
        problem = problem_of(material)
        weights = uneven(len(problem.ids))
        solution = problem.solve(weights)
        assert solution.step == 0
        assert solution.stopped is not None
        assert np.isfinite(problem.gradient(solution, weights, every(problem))).all()


def test_at_the_start_and_at_a_solution_are_not_the_same(make_material: Make) -> None:
    problem = problem_of(make_material("npo", learning_rate=0.2))
    weights = uneven(len(problem.ids))
    before = problem.gradient(None, weights, every(problem))
    solution = problem.solve(weights)
    after = problem.gradient(solution, weights, every(problem))
    assert not np.allclose(before, after, rtol=1e-2)
    assert problem.gradient(None, weights, every(problem)) == pytest.approx(before, rel=1e-6)


def test_values_are_of_two_folds_and_pa_test_is_never_looked_at(
    make_material: Make, moved: Callable[..., None]
) -> None:
    material = make_material()
    problem = problem_of(material, aside=0.25)
    assert (len(problem.train), len(problem.aside)) == (6, 2)
    every = {pair.chosen.id for pair in material.pairs("pa_train")}
    folds = [{pair.chosen.id for pair in fold} for fold in (problem.train, problem.aside)]
    assert folds[0] | folds[1] == every
    assert not folds[0] & folds[1]
    assert {pair.chosen.id for pair in problem.solver.pairs} <= folds[0], "nor does the monitor see the fold kept aside"
    moved(material, 0.05)
    theta = {name: one.detach().clone() for name, one in material.policy.parameters().items()}
    train, aside = problem.value(Outcome(theta, 1, 1, None, [], 0.0))
    material.reset(theta)
    assert train == measure_alignment(material, problem.train, ALONE).alignment
    assert aside == measure_alignment(material, problem.aside, ALONE).alignment
    assert train != aside
    for value in problem.value(None):
        assert value == pytest.approx(math.log(0.5), abs=1e-5)


def test_the_seed_decides_the_folds(make_material: Make) -> None:
    def fold(**settings: Any) -> set[str]:
        return {pair.chosen.id for pair in problem_of(make_material(**settings)).aside}

    assert fold() == fold()
    assert any(fold(seed=seed) != fold() for seed in (1, 2, 3))


@pytest.mark.parametrize("aside", [0.0, 0.04, 0.97, 1.0])
def test_a_fold_that_would_be_empty(aside: float, make_material: Make) -> None:
    with pytest.raises(UnlearningError, match=rf"--aside {aside:g} of the 8 pairs of pa_train leaves a fold empty"):
        problem_of(make_material(), aside)


def test_the_rise_of_the_retain_nll(make_material: Make) -> None:
    problem = problem_of(make_material(learning_rate=0.2))
    solution = problem.solve(np.ones(len(problem.ids)))
    rise = problem.retain(solution)
    problem.material.reset(solution.theta)
    now = measure_retain(problem.material, problem.material.retain, ALONE)
    problem.material.reset()
    before = measure_retain(problem.material, problem.material.retain, ALONE)
    assert now is not None
    assert before is not None
    assert rise == pytest.approx(now.nll - before.nll, rel=1e-9)
    assert abs(now.nll - before.nll) > 1e-3
    assert problem.retain(None) == 0.0


def test_without_retain_data_its_rise_is_not_known(make_material: Make) -> None:
    material = make_material()
    material.retain.clear()
    problem = problem_of(material)
    assert problem.retain(None) is None


def test_a_weight_of_zero_is_not_unlearned(make_material: Make) -> None:
    problem = problem_of(make_material())
    weights = uneven(len(problem.ids))
    weights[2] = 0.0
    solution = problem.solve(weights)
    by_hand = problem.solver.solve(
        {one: float(weight) for one, weight in zip(problem.ids, weights, strict=True) if one != problem.ids[2]}
    )
    assert all(torch.equal(solution.theta[name], by_hand.theta[name]) for name in by_hand.theta)


def test_the_order_of_the_ids_is_that_of_the_weights(make_material: Make) -> None:
    material = make_material("npo")
    ids = material.ids[3:8]
    turned = BundleProblem(material, ids[::-1], 0.25, show=False)
    straight = BundleProblem(material, ids, 0.25, show=False)
    weights = uneven(5)
    one, other = straight.solve(weights), turned.solve(weights[::-1])
    assert all(torch.equal(one.theta[name], other.theta[name]) for name in one.theta)
    found = straight.gradient(one, weights, every(straight))
    assert found == pytest.approx(turned.gradient(other, weights[::-1], every(turned))[::-1], rel=1e-9)


def test_a_derivative_that_is_not_finite_is_refused_by_id(make_material: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(make_material())
    original = candidate_influence.batch_influence

    def broken(*arguments: Any, **named: Any) -> Any:
        found = original(*arguments, **named)
        found.samples[0] = math.nan
        return found

    monkeypatch.setattr(candidate_influence, "batch_influence", broken)
    with pytest.raises(UnlearningError, match=r"influence of [0-9a-f]{16}.* is not finite: lower --learning-rate"):
        problem.gradient(None, np.ones(len(problem.ids)), every(problem))


def test_only_what_is_wanted_is_derived(make_material: Make) -> None:
    problem = problem_of(make_material("npo"))
    weights = np.ones(len(problem.ids))
    wanted = np.arange(len(weights)) % 3 == 0
    whole, part = (problem.gradient(None, weights, flags) for flags in (every(problem), wanted))
    assert (part[~wanted] == 0).all()
    assert part[wanted] == pytest.approx(whole[wanted] * whole.std() / whole[wanted].std(), rel=1e-5)


def test_the_unrolled_derivative_is_that_of_the_run_on_the_training_fold(make_exact: Make) -> None:
    material = make_exact("npo", "nll", learning_rate=0.02, steps=3)
    problem = BundleProblem(material, material.ids, 0.25, show=False, estimator="unrolled")
    weights = uneven(len(problem.ids))
    weights[2] = 0.0
    wanted = np.arange(len(weights)) != 5
    found = problem.gradient(problem.solve(weights), weights, wanted)
    given = dict(zip(problem.ids, weights.tolist(), strict=True))
    expected = unrolled(material, given, problem.train, show=False).derivative
    values = np.array([expected[one] for one in problem.ids])
    assert found[5] == 0
    assert found[wanted] == pytest.approx(values[wanted] / values[wanted].std(), rel=1e-9)


def test_an_exploding_sweep_is_refused_as_a_guide(make_exact: Make) -> None:
    material = make_exact("ga", learning_rate=0.035, steps=8, proximity=100.0)
    problem = BundleProblem(material, material.ids, 0.25, show=False, estimator="unrolled")
    weights = np.ones(len(problem.ids))
    solution = problem.solve(weights)
    with pytest.raises(
        UnlearningError, match=r"predicts nothing here: .* would be stable. Or take --estimator first_o"
    ):
        problem.gradient(solution, weights, every(problem))


def test_the_implicit_derivative_sees_the_curvature(make_exact: Make) -> None:
    found = {}
    for estimator in ("first_order", "implicit"):
        material = make_exact("npo", "kl", alpha=50.0, learning_rate=0.02, steps=3)
        problem = BundleProblem(material, material.ids, 0.25, show=False, estimator=estimator)
        weights = np.ones(len(problem.ids))
        found[estimator] = problem.gradient(None, weights, every(problem))
    assert np.isfinite(found["implicit"]).all()
    assert found["implicit"].std() == pytest.approx(1.0)
    assert not np.allclose(found["implicit"], found["first_order"], rtol=0.05)


def test_bad_estimators(make_exact: Make) -> None:
    with pytest.raises(UnlearningError, match="--estimator guess is unknown; choose one of first_order, implicit"):
        BundleProblem(make_exact("ga"), ["a"], 0.25, show=False, estimator="guess")
    material = make_exact("ga", deterministic=False)
    with pytest.raises(ScoringError, match="say --deterministic"):
        BundleProblem(material, material.ids, 0.25, show=False, estimator="unrolled")
