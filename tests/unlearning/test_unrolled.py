"""The unrolled estimator against finite differences over ω of the whole run, in float64."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from u2a_core.errors import ScoringError
from u2a_core.influence.alignment_gradient import alignment_gradient
from u2a_core.influence.candidate_influence import CandidateInfluence
from u2a_core.influence.unrolled import explosion, recording, sweep, unrolled
from u2a_core.objectives.alignment import alignment
from u2a_core.unlearning.inner import InnerSolver
from u2a_core.unlearning.material import Material
from u2a_core.unlearning.measures import measure_alignment
from u2a_core.unlearning.processes import Processes

Make = Callable[..., Material]
RUNS: dict[str, dict[str, Any]] = {
    "sgd": {"learning_rate": 0.1, "steps": 2},
    "sgd clipped": {"learning_rate": 0.1, "steps": 2, "clip": 0.05},
    "sgd held back": {"learning_rate": 0.1, "steps": 2, "proximity": 0.7},
    "adamw": {"optimizer": "adamw", "learning_rate": 3e-3, "steps": 3},
    "adamw clipped": {"optimizer": "adamw", "learning_rate": 3e-3, "steps": 3, "clip": 0.05},
}


def uneven(material: Material) -> dict[str, float]:
    """ω of mean 1, the last two examples left out."""
    active = len(material.ids) - 2
    values = np.linspace(0.5, 1.5, active)
    return dict(zip(material.ids, [*(values / values.mean()), 0.0, 0.0], strict=True))


def solved(material: Material, weights: dict[str, float]) -> float:
    """J(θ_T) on pa_train."""
    pairs = material.pairs("pa_train")
    InnerSolver(material, pairs).solve({one: weight for one, weight in weights.items() if weight > 0})
    return measure_alignment(material, pairs, Processes()).alignment


@pytest.mark.parametrize(
    ("run", "objective", "retention"),
    [
        *((run, *objective) for run in RUNS for objective in (("npo", "kl"), ("ga", "nll"))),
        ("sgd", "yao", None),
        ("sgd", "dpo", "none"),
    ],
)
def test_against_finite_differences_of_the_whole_run(
    run: str, objective: str, retention: str | None, make_exact: Make
) -> None:
    """The solver keeps the mean of ω at 1, so weight is moved from one example to another: D_i − D_j."""
    material = make_exact(objective, retention, alignment_beta=0.5, **RUNS[run])
    weights = uneven(material)
    found = unrolled(material, weights, material.pairs("pa_train"), show=False)
    assert found.value == pytest.approx(solved(material, weights), abs=1e-12)
    derivative = found.derivative
    first, second = material.ids[1], material.ids[5]
    nudge = 1e-7
    values = []
    for sign in (1, -1):
        moved = {**weights, first: weights[first] + sign * nudge, second: weights[second] - sign * nudge}
        values.append(solved(material, moved))
    numeric = (values[0] - values[1]) / (2 * nudge)
    assert derivative[first] - derivative[second] == pytest.approx(numeric, rel=1e-4, abs=1e-7)


def test_an_example_that_is_left_out_has_the_derivative_of_letting_it_in(make_exact: Make) -> None:
    """ω_j = 0: its weight is taken from another example, one-sided."""
    material = make_exact("npo", "kl", alignment_beta=0.5, learning_rate=0.1, steps=2)
    weights = uneven(material)
    absent, giver = material.ids[-1], material.ids[4]
    derivative = unrolled(material, weights, material.pairs("pa_train"), show=False).derivative
    nudge = 1e-6
    change = solved(material, {**weights, absent: nudge, giver: weights[giver] - nudge}) - solved(material, weights)
    count = sum(weight > 0 for weight in weights.values())
    # one more active example makes Σ ω = count of them again: ω is scaled by (count + 1)/count, which changes nothing
    assert sum(weights.values()) == pytest.approx(count)
    assert derivative[absent] - derivative[giver] == pytest.approx(change / nudge, rel=1e-3)


def test_the_parameters_of_a_lora_against_finite_differences(make_exact: Make) -> None:
    material = make_exact("npo", "nll", alignment_beta=0.5, parameters="lora", rank=2, learning_rate=0.05, steps=3)
    weights = uneven(material)
    first, second = material.ids[0], material.ids[7]
    derivative = unrolled(material, weights, material.pairs("pa_train"), show=False).derivative
    values = [
        solved(material, {**weights, first: weights[first] + nudge, second: weights[second] - nudge})
        for nudge in (1e-6, -1e-6)
    ]
    assert derivative[first] - derivative[second] == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


def test_one_step_is_the_first_order_estimate(make_exact: Make) -> None:
    """θ1 = θ0 − η Σ ω_i ∇φ_i / n, so dJ/dω_i = −(η/n) ⟨∇J(θ1), ∇φ_i(θ0)⟩, and ∇J(θ1) → ∇J(θ0) as η → 0."""
    material = make_exact("npo", learning_rate=1e-6, steps=1)
    weights = dict.fromkeys(material.ids, 1.0)
    pairs = material.pairs("pa_train")
    found = unrolled(material, weights, pairs, show=False)
    material.reset()
    gradient = alignment_gradient(material.policy, pairs, alignment("dpo", 0.1), 8192, show=False).gradient
    expected = 1e-6 * CandidateInfluence(material, material.ids, show=False).along(gradient)
    assert np.array(list(found.derivative.values())) == pytest.approx(expected, rel=1e-4, abs=1e-14)
    assert found.growth == pytest.approx([1.0], rel=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_iterates_on_disk_give_the_same_bits(
    optimizer: str, make_exact: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = {"optimizer": optimizer, "learning_rate": 1e-3, "steps": 3, "clip": 0.1}
    material = make_exact("npo", "kl", **settings)
    weights, pairs = uneven(material), material.pairs("pa_train")
    with recording(material) as trajectory:
        assert trajectory.folder is None
    held = unrolled(material, weights, pairs, show=False)
    monkeypatch.setattr("u2a_core.influence.unrolled.available_memory", lambda _device: 0)
    with recording(material) as trajectory:
        folder = trajectory.folder
        assert folder is not None
        assert folder.parent == material.bundle.cache_folder
        outcome = InnerSolver(material, pairs).solve(
            {one: weight for one, weight in weights.items() if weight > 0}, trajectory=trajectory
        )
        assert len(list(folder.iterdir())) == 3
        kept = sweep(material, weights, pairs, outcome, trajectory, show=False)
    assert not folder.exists()
    assert kept.derivative == held.derivative
    assert kept.growth == held.growth


def test_the_token_budget_and_the_order_of_the_examples_change_nothing(make_exact: Make) -> None:
    found = []
    for budget, turned in ((8192, False), (120, True)):
        material = make_exact("npo", "kl", learning_rate=0.1, steps=2, token_budget=budget)
        weights = uneven(material)
        given = dict(reversed(weights.items())) if turned else weights
        derivative = unrolled(material, given, material.pairs("pa_train"), show=False).derivative
        found.append([derivative[one] for one in material.ids])
    assert found[0] == pytest.approx(found[1], rel=1e-9, abs=1e-15)


def test_it_ends_where_the_run_ended(make_exact: Make) -> None:
    """A run that crosses a limit is differentiated up to the weights that it kept."""
    material = make_exact("ga", "nll", learning_rate=0.05, steps=12, check_every=1, trust_region=0.05)
    weights, pairs = uneven(material), material.pairs("pa_train")
    found = unrolled(material, weights, pairs, show=False)
    kept = len(found.growth)
    assert 0 < kept < 12
    assert "the KL to the original" in found.metadata()["stopped"]
    assert found.metadata()["kept_step"] == kept
    shorter = make_exact("ga", "nll", learning_rate=0.05, steps=kept, check_every=1)
    assert unrolled(shorter, weights, pairs, show=False).derivative == pytest.approx(found.derivative, rel=1e-12)


def test_a_run_that_kept_no_step_is_refused(make_exact: Make) -> None:
    material = make_exact("ga", learning_rate=0.5, steps=3, check_every=3, trust_region=1e-9)
    with pytest.raises(ScoringError, match=r"kept no step, .*: the KL to the original is .* Lower --learning-rate or"):
        unrolled(material, uneven(material), material.pairs("pa_train"), show=False)


def test_steps_at_the_edge_of_stability_are_told_with_a_step_that_is_stable(make_exact: Make) -> None:
    """A proximity of curvature 100 alone is stable below η = 2/100."""
    wild = make_exact("ga", learning_rate=0.035, steps=8, proximity=100.0)
    weights = dict.fromkeys(wild.ids, 1.0)
    found = unrolled(wild, weights, wild.pairs("pa_train"), show=False)
    assert found.exploded
    assert max(found.growth) == pytest.approx(2.5, rel=0.1)
    assert found.warning is not None
    named = re.search(r"edge of stability; a --learning-rate below ([\d.e-]+) would be stable", found.warning)
    assert named
    rate = float(named.group(1))
    assert rate == pytest.approx(0.02, rel=0.1)
    calm = make_exact("ga", learning_rate=0.9 * rate, steps=8, proximity=100.0)
    after = unrolled(calm, weights, calm.pairs("pa_train"), show=False)
    assert not after.exploded
    assert after.warning is None
    assert found.metadata()["exploded"]


def test_ascent_that_runs_away_explodes(make_exact: Make) -> None:
    material = make_exact("ga", learning_rate=0.1, steps=12)
    assert unrolled(material, dict.fromkeys(material.ids, 1.0), material.pairs("pa_train"), show=False).exploded


def test_an_objective_that_curves_downwards_is_told_apart() -> None:
    """By the curvature in the step of the largest growth: no step size cures that."""
    norms = [1.0, 2.0, 8.0, 12.0]
    assert explosion(0.1, [1.0, 2.0, 8.0, 9.9], [1.0, 1.0, 1.0]) is None
    upwards = explosion(0.1, norms, [-1.0, 0.5, -1.0])
    assert upwards == (
        "the adjoint grew 12 times over 3 steps (at most 4 times in one): the steps are at the edge of stability; a "
        "--learning-rate below 0.04 would be stable"
    )
    downwards = explosion(0.1, norms, [1.0, -0.5, 1.0])
    assert downwards is not None
    assert downwards.endswith("curves downwards there; take fewer --steps, or anchor it with --retention")
    assert explosion(0.1, [1.0, math.inf], [1.0]) is not None


def test_minibatches_are_refused(make_exact: Make) -> None:
    material = make_exact("npo", deterministic=False)
    with pytest.raises(
        ScoringError, match=r"differentiates a deterministic run: say --deterministic .* or use another"
    ):
        unrolled(material, uneven(material), material.pairs("pa_train"), show=False)


def test_the_model_is_left_at_the_solution_with_nothing_attached(make_exact: Make) -> None:
    material = make_exact("npo", "kl", learning_rate=0.1, steps=2)
    weights, pairs = uneven(material), material.pairs("pa_train")
    found = unrolled(material, weights, pairs, show=False)
    assert measure_alignment(material, pairs, Processes()).alignment == pytest.approx(found.value, abs=1e-12)
    assert all(one.grad is None or not one.grad.requires_grad for one in material.policy.model.parameters())
    assert not any(one.requires_grad for one in material.policy.model.parameters())
