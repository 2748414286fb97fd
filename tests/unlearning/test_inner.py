"""The inner solver: the steps against hand-written ones, invariances of the final weights, and the guards."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from u2a_core.errors import UnlearningError
from u2a_core.unlearning import inner
from u2a_core.unlearning.gradient import InnerGradient, StepLoss
from u2a_core.unlearning.inner import InnerSolver, Outcome, SolverState, drawn
from u2a_core.unlearning.material import Material
from u2a_core.unlearning.measures import measure_alignment, measure_retain
from u2a_core.unlearning.processes import Processes

Theta = dict[str, Tensor]
Make = Callable[..., Material]
RAW = [0.3, 2.1, 0.05, 1.7, 1.0, 0.85]


def solver_of(material: Material) -> InnerSolver:
    return InnerSolver(material, material.pairs("pa_train"))


def solved(material: Material, weights: dict[str, float], **more: Any) -> Outcome:
    return solver_of(material).solve(weights, **more)


def uneven(material: Material) -> dict[str, float]:
    return dict(zip(material.ids, RAW, strict=False))


def even(material: Material) -> dict[str, float]:
    return dict.fromkeys(material.ids, 1.0)


def distance(one: Theta, other: Theta) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def travelled(material: Material, theta: Theta) -> float:
    return distance(theta, material.start)


# The steps


@pytest.mark.parametrize(("clip", "proximity"), [(0.4, 0.0), (0.0, 0.5)])
def test_sgd_against_a_loop_by_hand(clip: float, proximity: float, make_exact: Make) -> None:
    settings = {"clip": clip, "proximity": proximity, "steps": 3, "check_every": 2}
    outcome = solved(material := make_exact("npo", "nll", 0.6, **settings), uneven(material))

    other = make_exact("npo", "nll", 0.6, proximity=proximity)
    weights = {one: weight * len(RAW) / sum(RAW) for one, weight in uneven(other).items()}
    gradient = InnerGradient(other, Processes())
    norms = []
    for _ in range(3):
        parameters = other.policy.parameters()
        for one in parameters.values():
            one.requires_grad_(True)
        gradient.accumulate(weights, other.retain)
        norm = math.sqrt(sum(float(one.grad.square().sum()) for one in parameters.values()))
        norms.append(norm)
        scale = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
        for one in parameters.values():
            one.data = one.data - 0.05 * scale * one.grad
    assert (outcome.step, outcome.steps, outcome.stopped) == (3, 3, None)
    assert distance(outcome.theta, {name: one.detach() for name, one in parameters.items()}) < 1e-12
    assert travelled(other, outcome.theta) > 1e-3
    assert min(norms) > 0.4, "the clip of 0.4 must bind"


def test_adamw_against_its_formula(make_exact: Make) -> None:
    """First moment 0.9, second 0.999, ε = 1e-8, no weight decay."""
    outcome = solved(material := make_exact(optimizer="adamw", learning_rate=0.01, steps=3), uneven(material))

    other = make_exact()
    weights = {one: weight * len(RAW) / sum(RAW) for one, weight in uneven(other).items()}
    gradient = InnerGradient(other, Processes())
    parameters = other.policy.parameters()
    first, second = ({name: torch.zeros_like(one) for name, one in parameters.items()} for _ in range(2))
    for step in range(1, 4):
        for one in parameters.values():
            one.requires_grad_(True)
        gradient.accumulate(weights, other.retain)
        for name, one in parameters.items():
            first[name] = 0.9 * first[name] + 0.1 * one.grad
            second[name] = 0.999 * second[name] + 0.001 * one.grad**2
            change = first[name] / (1 - 0.9**step) / ((second[name] / (1 - 0.999**step)).sqrt() + 1e-8)
            one.data = one.data - 0.01 * change
    assert distance(outcome.theta, {name: one.detach() for name, one in parameters.items()}) < 1e-10


def test_the_model_is_left_with_the_solution(make_material: Make) -> None:
    material = make_material()
    outcome = solved(material, even(material))
    now = {name: one.detach() for name, one in material.policy.parameters().items()}
    assert distance(now, outcome.theta) == 0.0
    assert travelled(material, outcome.theta) > 1e-3
    again = solver_of(material).solve(even(material))
    assert distance(again.theta, outcome.theta) == 0.0, "every solution begins at θ0"


# What the weights mean


def minibatches(**more: Any) -> dict[str, Any]:
    return {"deterministic": False, "batch_size": 4, "optimizer": "adamw", "learning_rate": 0.01, "steps": 3, **more}


@pytest.mark.parametrize(
    ("parameters", "settings"), [("full", {}), ("lora", minibatches())], ids=["full batch", "lora, minibatches"]
)
def test_a_weight_of_zero_is_an_absent_sample(parameters: str, settings: dict[str, Any], make_material: Make) -> None:
    settings = {"parameters": parameters, **settings}
    material = make_material("npo", "kl", **settings)
    present = uneven(material)
    absent = dict.fromkeys([one for one in material.ids if one not in present][:3], 0.0)
    with_zeros = solved(material, {**absent, **present})
    without = solved(material, present)
    assert distance(with_zeros.theta, without.theta) <= 1e-6
    assert travelled(material, without.theta) > 1e-3
    more = solved(material, {**dict.fromkeys(absent, 0.5), **present})
    assert distance(more.theta, without.theta) > 1e-4, "a weight above 0 makes a difference"


def test_uniform_weights_are_no_weights(make_exact: Make) -> None:
    """Whatever their common value: the mean of φ over the set is what goes down."""
    material = make_exact("npo")
    unweighted = {name: one.clone() for name, one in material.start.items()}
    for _ in range(4):
        for name, one in material.policy.parameters().items():
            one.requires_grad_(True)
            one.grad = None
            one.data = unweighted[name].clone()
        gradient = InnerGradient(material, Processes())
        gradient.accumulate(dict.fromkeys(material.ids, 1.0), [])
        unweighted = {name: one.detach() - 0.05 * one.grad for name, one in material.policy.parameters().items()}
    for common in (1.0, 40.0):
        outcome = solved(material, dict.fromkeys(material.ids, common))
        assert distance(outcome.theta, unweighted) < 1e-12
    assert travelled(material, unweighted) > 1e-3


def test_only_the_ratio_of_the_weights_counts(make_material: Make) -> None:
    material = make_material()
    one = solved(material, uneven(material))
    other = solved(material, {name: 7.0 * weight for name, weight in uneven(material).items()})
    assert distance(one.theta, other.theta) < 1e-6
    assert distance(one.theta, solved(material, even(material)).theta) > 1e-3


@pytest.mark.parametrize("settings", [{}, minibatches()], ids=["full batch", "minibatches"])
def test_the_order_of_the_forget_set_changes_nothing(settings: dict[str, Any], make_material: Make) -> None:
    """Not a bit, also where examples of equal length are cut into several parts."""
    material = make_material("npo", token_budget=60, **{**settings, "steps": 2})
    weights = {one: 0.2 + place / 3 for place, one in enumerate(material.ids)}
    found = solved(material, weights).theta
    turned = dict(reversed(weights.items()))
    assert list(turned) != list(weights)
    assert distance(found, solved(material, turned).theta) == 0.0


@pytest.mark.parametrize("settings", [{"clip": 0.5}, minibatches(clip=0.5)], ids=["full batch", "minibatches"])
def test_the_token_budget_changes_no_weights(settings: dict[str, Any], make_exact: Make) -> None:
    found = []
    for budget in (130, 100_000):
        material = make_exact("npo", "kl", **{**settings, "token_budget": budget, "steps": 2})
        found.append(solved(material, uneven(material)).theta)
    assert travelled(material, found[0]) > 1e-3
    assert distance(found[0], found[1]) < 1e-9


# Minibatches and seeds


def test_the_seed_decides_the_minibatches(make_material: Make) -> None:
    material = make_material(**minibatches(batch_size=3, steps=3))
    one = solved(material, even(material))
    assert distance(solved(material, even(material)).theta, one.theta) == 0.0
    other = make_material(**minibatches(batch_size=3, steps=3, seed=1))
    assert distance(solved(other, even(other)).theta, one.theta) > 1e-4


def test_the_seed_decides_a_new_lora(make_material: Make) -> None:
    starts = [make_material(parameters="lora", seed=seed).start for seed in (0, 0, 1)]
    assert distance(starts[0], starts[1]) == 0.0
    assert distance(starts[0], starts[2]) > 1e-3


def test_a_round_of_minibatches_takes_everything_once() -> None:
    items = tuple(range(11))
    taken = [drawn(items, step, 4, "seed") for step in range(11)]  # 44 places: four rounds
    flat = [one for batch in taken for one in batch]
    assert all(len(batch) == 4 for batch in taken)
    for start in range(0, 44, 11):
        assert sorted(flat[start : start + 11]) == list(items)
    assert flat[:11] != flat[11:22], "every round has an order of its own"
    assert drawn(items, 7, 4, "seed") == taken[7]
    assert drawn(items, 0, 4, "other") != taken[0]
    assert sorted(drawn(items, 3, 50, "seed")) == list(items), "a batch larger than the set is the set"


def test_a_deterministic_step_takes_everything(make_material: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[dict[str, float], int]] = []
    original = InnerGradient.accumulate

    def watched(self: InnerGradient, weights: dict[str, float], retain: Sequence[Any]) -> StepLoss:
        seen.append((dict(weights), len(retain)))
        return original(self, weights, retain)

    monkeypatch.setattr(InnerGradient, "accumulate", watched)
    whole = make_material("ga", "nll", batch_size=2, steps=2)
    solved(whole, uneven(whole))
    assert [(len(weights), count) for weights, count in seen] == [(6, 12), (6, 12)]
    assert sum(seen[0][0].values()) == pytest.approx(6.0)
    seen.clear()
    parts = make_material("ga", "nll", batch_size=2, steps=3, deterministic=False)
    solved(parts, uneven(parts))
    assert [(sum(weights.values()), count) for weights, count in seen] == [(2.0, 2)] * 3
    drawn_once = {one for weights, _ in seen for one in weights}
    assert drawn_once < set(uneven(parts)), "an example of weight 0.05 is rarely drawn"


# The guards


def test_the_curve_begins_at_the_start_and_has_a_point_every_few_steps(make_material: Make) -> None:
    material = make_material("npo", "nll", steps=7, check_every=3)
    outcome = solved(material, even(material))
    assert [check.step for check in outcome.curve] == [0, 3, 6, 7]
    first, *others = outcome.curve
    assert first.forget_loss is None
    assert first.step_seconds is None
    assert first.kl == 0.0
    assert first.alignment == pytest.approx(math.log(0.5), abs=1e-5)
    assert all(check.kl > 0 for check in others)
    assert [check.forget_loss for check in others] == sorted((check.forget_loss for check in others), reverse=True)
    assert all(check.step_seconds > 0 and check.memory_mib > 1 for check in others)
    last = outcome.curve[-1]
    pairs, nothing = material.pairs("pa_train"), Processes()
    assert last.alignment == measure_alignment(material, pairs, nothing).alignment
    retain = measure_retain(material, material.retain, nothing)
    assert (last.retain_nll, last.kl) == (retain.nll, retain.kl)


def test_the_monitor_is_a_sample_that_the_seed_decides(make_material: Make) -> None:
    material = make_material(monitor=3)
    pairs = material.pairs("pa_train")
    one, same = (InnerSolver(material, pairs) for _ in range(2))
    assert [len(one.pairs), len(one.retain)] == [3, 3]
    assert [pair.chosen.id for pair in one.pairs] == [pair.chosen.id for pair in same.pairs]
    other = make_material(monitor=3, seed=5)
    assert [pair.chosen.id for pair in InnerSolver(other, pairs).pairs] != [pair.chosen.id for pair in one.pairs]


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"retain_budget": 0.05}, r"the retain NLL rose by 0\.\d+ nats per token by step \d+, over the budget 0.05"),
        ({"trust_region": 0.02}, r"the KL to the original is 0\.\d+ nats per token at step \d+, over 0.02"),
    ],
)
def test_a_crossed_limit_keeps_the_last_good_weights(limit: dict[str, float], said: str, make_material: Make) -> None:
    settings = {"steps": 40, "check_every": 2, "learning_rate": 0.01}
    material = make_material("ga", **settings, **limit)
    outcome = solved(material, even(material))
    assert outcome.stopped is not None
    assert re.fullmatch(said, outcome.stopped)
    assert outcome.step == outcome.steps - 2
    assert 0 < outcome.steps < 40
    first, good, bad = outcome.curve[0], outcome.curve[-2], outcome.curve[-1]
    assert (good.step, bad.step) == (outcome.step, outcome.steps)
    if "retain_budget" in limit:
        assert good.retain_nll - first.retain_nll <= 0.05 < bad.retain_nll - first.retain_nll
    else:
        assert good.kl <= 0.02 < bad.kl
    unlimited = make_material("ga", **{**settings, "steps": outcome.step})
    assert outcome.step > 0
    assert distance(outcome.theta, solved(unlimited, even(unlimited)).theta) == 0.0
    now = {name: one.detach() for name, one in material.policy.parameters().items()}
    assert distance(now, outcome.theta) == 0.0


def test_a_limit_crossed_at_once_leaves_the_original(make_material: Make) -> None:
    material = make_material("ga", learning_rate=5.0, trust_region=0.01)
    outcome = solved(material, even(material))
    assert outcome.step == 0
    assert outcome.steps == 2
    assert "KL" in str(outcome.stopped)
    assert travelled(material, outcome.theta) == 0.0


def test_limits_far_away_change_nothing(make_material: Make) -> None:
    material = make_material("ga")
    free = solved(material, even(material))
    held = make_material("ga", retain_budget=1e3, trust_region=1e3)
    outcome = solved(held, even(held))
    assert outcome.stopped is None
    assert distance(outcome.theta, free.theta) == 0.0


@pytest.mark.parametrize(("clip", "learning_rate"), [(0.0, 1e38), (1.0, 1e30)])
def test_numbers_that_are_not_finite_never_stay(clip: float, learning_rate: float, make_material: Make) -> None:
    material = make_material("ga", learning_rate=learning_rate, clip=clip, steps=12, check_every=4)
    kept: list[SolverState] = []
    outcome = solved(material, even(material), record=kept.append)
    assert outcome.stopped is not None
    assert "not finite" in outcome.stopped
    assert "--learning-rate" in outcome.stopped
    assert kept == []
    assert outcome.step == 0
    assert travelled(material, outcome.theta) == 0.0
    assert all(one.isfinite().all() for one in material.policy.parameters().values())


def test_a_gradient_that_turns_not_finite_later_on(make_material: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six good steps, then one NaN in one parameter, with a loss that looks fine."""
    original, calls = InnerGradient.accumulate, []

    def breaking(self: InnerGradient, *arguments: Any) -> StepLoss:
        loss = original(self, *arguments)
        calls.append(1)
        if len(calls) == 7:
            next(iter(self.material.policy.parameters().values())).grad[0, 0] = math.nan
        return loss

    monkeypatch.setattr(InnerGradient, "accumulate", breaking)
    material = make_material("ga", steps=20, check_every=3)
    steps: list[int] = []
    outcome = solved(material, even(material), record=lambda state: steps.append(state.step))
    assert outcome.stopped == "a number is not finite at step 7: lower --learning-rate"
    assert steps == [3, 6]
    assert (outcome.step, outcome.steps) == (6, 7)
    assert [check.step for check in outcome.curve] == [0, 3, 6]
    monkeypatch.undo()
    good = make_material("ga", steps=6, check_every=3)
    assert distance(outcome.theta, solved(good, even(good)).theta) == 0.0


def test_a_measure_that_is_not_finite_ends_the_run(make_material: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    material = make_material("ga", steps=20, check_every=2)
    original = inner.measure_alignment
    calls: list[int] = []

    def breaking(*arguments: Any) -> Any:
        calls.append(1)
        found = original(*arguments)
        return replace(found, alignment=math.nan) if len(calls) == 3 else found

    monkeypatch.setattr(inner, "measure_alignment", breaking)
    outcome = solved(material, even(material))
    assert outcome.stopped == "a measure is not finite at step 4: lower --learning-rate"
    assert outcome.step == 2


def test_a_policy_that_is_not_finite_at_the_start_is_refused(make_material: Make) -> None:
    material = make_material("ga")
    name = next(iter(material.start))
    material.start[name][:, 0] = math.nan
    with pytest.raises(UnlearningError, match=r"not finite.*before.*first step"):
        solved(material, even(material))


# Going on


def frozen(state: SolverState) -> SolverState:
    """A copy as a checkpoint holds it."""
    optimizer = {
        "state": {
            index: {name: value.clone() if isinstance(value, Tensor) else value for name, value in moments.items()}
            for index, moments in state.optimizer["state"].items()
        },
        "param_groups": [dict(group) for group in state.optimizer["param_groups"]],
    }
    theta = {name: one.clone() for name, one in state.theta.items()}
    return replace(state, theta=theta, good=theta, optimizer=optimizer, curve=list(state.curve))


def test_going_on_gives_the_same_bits(make_material: Make) -> None:
    settings = minibatches(steps=6, check_every=2, parameters="lora")
    states: list[SolverState] = []
    whole = solved(
        material := make_material("npo", "kl", **settings),
        uneven(material),
        record=lambda state: states.append(frozen(state)),
    )
    assert [state.step for state in states] == [2, 4, 6]
    for state in states[::2]:
        other = make_material("npo", "kl", **settings)
        resumed = solved(other, uneven(other), state=frozen(state))
        assert distance(resumed.theta, whole.theta) == 0.0
        told = [(check.step, check.forget_loss, check.retain_nll, check.alignment) for check in resumed.curve]
        assert told == [(check.step, check.forget_loss, check.retain_nll, check.alignment) for check in whole.curve]
        assert resumed.seconds >= state.seconds
    assert all(distance(one.theta, other.theta) > 1e-4 for one, other in pairwise(states))


# Bad input


def test_a_forget_set_that_is_none(make_material: Make) -> None:
    material = make_material()
    for weights in ({}, dict.fromkeys(material.ids, 0.0)):
        with pytest.raises(UnlearningError, match=r"forget set is empty.*weights above 0"):
            solved(material, weights)
    with pytest.raises(UnlearningError, match=r"holds unknown-id, which is no candidate"):
        solved(material, {material.ids[0]: 1.0, "unknown-id": 2.0})
