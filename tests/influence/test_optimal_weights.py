"""Optimal weights against other solvers, the conditions of an optimum, and by hand."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize

from u2a_core.errors import ScoringError, UnlearningError
from u2a_core.influence import optimal_weights as module
from u2a_core.influence.optimal_weights import optimal_weights
from u2a_core.influence.what_if import WhatIf
from u2a_core.store.sketches import SketchRows
from u2a_core.unlearning.weights import Constraints

Floats = NDArray[np.float64]


def rows(values: NDArray[np.floating]) -> SketchRows:
    count = len(values)
    return SketchRows(np.float32(values), np.ones(count, np.float32), pd.DataFrame({"id": np.arange(count)}))


def case(
    count: int, pairs: int, alignment: str = "dpo", horizon: float = 1.0, order: NDArray[np.intp] | None = None
) -> WhatIf:
    """Candidates, in some order, and pairs with directions in common, a mixture of helpful and harmful."""
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(3, 16))
    s, h = (draw.normal(size=(size, 3)) @ shared / 2 + draw.normal(size=(size, 16)) for size in (count, pairs))
    order = np.arange(count) if order is None else order
    return WhatIf(rows(s[order] / 4), rows(h / 4), draw.uniform(0, 0.3, count)[order], alignment, horizon)


def decisions(count: int, locked: tuple[int, ...] = (), excluded: tuple[int, ...] = ()) -> Constraints:
    return Constraints(*(np.isin(np.arange(count), list(places)) for places in (locked, excluded)))


def model(
    what_if: WhatIf, constraints: Constraints, pairs: NDArray[np.intp] | None, ridge: float
) -> tuple[Callable[[Floats], float], Callable[[Floats], Floats]]:
    """What is to be maximised and its derivative, from the formula, as functions of ω [n]."""
    cross = what_if.cross.astype(np.float64)[:, slice(None) if pairs is None else pairs]
    present, horizon = ~constraints.excluded, what_if.horizon
    pull = what_if.pull[slice(None) if pairs is None else pairs]
    curved = what_if.alignment == "dpo"

    def value(weights: Floats) -> float:
        along = weights[present] / present.sum() @ cross[present] + pull  # ⟨h_p, u⟩
        spread = ((weights[present] - 1) ** 2).mean()
        return float(-horizon * along.mean() - curved * horizon**2 / 2 * (along**2).mean() - ridge / 2 * spread)

    def slope(weights: Floats) -> Floats:
        along = weights[present] / present.sum() @ cross[present] + pull
        each = -horizon * (cross * (1 + curved * horizon * along)).mean(1) - ridge * (weights - 1)
        return np.where(present, each / present.sum(), 0.0)

    return value, slope


def assert_optimal(
    what_if: WhatIf,
    found: Floats,
    given: Floats,
    constraints: Constraints,
    cap: float = 4.0,
    ridge: float = 0.0,
    pairs: NDArray[np.intp] | None = None,
) -> None:
    """Feasible, and no weight can be moved to another for a gain: the conditions of Karush, Kuhn and Tucker."""
    free = constraints.free
    assert found[constraints.excluded].tolist() == [0] * int(constraints.excluded.sum())
    kept = constraints.locked & ~constraints.excluded
    assert found[kept].tolist() == given[kept].tolist()
    assert found[~constraints.excluded].mean() == pytest.approx(1, abs=1e-9)
    assert found[free].min() >= 0
    assert found[free].max() <= cap
    derivative = model(what_if, constraints, pairs, ridge)[1]
    slope, can_rise, can_fall = derivative(found), free & (found < cap), free & (found > 0)
    if can_rise.any() and can_fall.any():
        at_zero = derivative(np.where(constraints.locked, given, 0.0))
        curvature = cap * (what_if.horizon / (~constraints.excluded).sum()) ** 2 * (what_if.cross**2).mean(1)
        steepest = max(np.abs(at_zero[free]).max(), (what_if.alignment == "dpo") * curvature[free].max())
        assert slope[can_rise].max() - slope[can_fall].min() <= 1e-5 * steepest


def test_the_anchor_is_part_of_the_run() -> None:
    """Weights that are best with the anchor are not those that are best without it."""
    free = case(40, 16, "dpo", 3.0)
    anchored = free.anchored(np.random.default_rng(8).normal(size=free.anchor.shape), 2.0)
    constraints, given, pairs = decisions(40), np.ones(40), np.array([0, 2, 3, 5, 5, 9])
    found = optimal_weights(anchored, given, constraints, pairs).weights
    assert_optimal(anchored, found, given, constraints, pairs=pairs)
    other = optimal_weights(free, given, constraints, pairs).weights
    assert np.abs(found - other).max() > 0.01


# Against other solvers

CASES = [
    ("dpo", (), (), 4.0, 0.0, None),
    ("dpo", (0, 3), (5,), 4.0, 0.0, None),
    ("dpo", (), (1, 2), 1.5, 0.0, (0, 2, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15)),
    ("dpo", (7,), (), 4.0, 0.4, (1, 1, 4)),
    ("margin", (2,), (0,), 3.0, 0.5, None),
]


@pytest.mark.parametrize(("alignment", "locked", "excluded", "cap", "ridge", "pairs"), CASES)
@pytest.mark.parametrize("horizon", [0.3, 3.0])
def test_against_sequential_quadratic_programming(
    alignment: str,
    locked: tuple[int, ...],
    excluded: tuple[int, ...],
    cap: float,
    ridge: float,
    pairs: tuple[int, ...] | None,
    horizon: float,
) -> None:
    """All strictly concave: the weights themselves agree, not the value alone."""
    count = 9
    what_if, constraints = case(count, 24, alignment, horizon), decisions(count, locked, excluded)
    chosen = None if pairs is None else np.array(pairs)
    given = np.random.default_rng(1).uniform(0, 2, count)
    found = optimal_weights(what_if, given, constraints, chosen, cap, ridge)
    assert_optimal(what_if, found.weights, given, constraints, cap, ridge, chosen)
    value, slope = model(what_if, constraints, chosen, ridge)
    free = constraints.free

    def filled(part: Floats) -> Floats:
        weights = np.where(constraints.excluded, 0.0, given)
        weights[free] = part
        return weights

    room = (~constraints.excluded).sum() - filled(np.zeros(free.sum())).sum()
    other = minimize(
        lambda part: -value(filled(part)),
        np.full(free.sum(), room / free.sum()),
        jac=lambda part: -slope(filled(part))[free],
        bounds=[(0, cap)] * int(free.sum()),
        constraints={"type": "eq", "fun": lambda part: part.sum() - room},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert value(found.weights) == pytest.approx(-other.fun, abs=1e-9)
    np.testing.assert_allclose(found.weights[free], other.x, rtol=0, atol=2e-3)


def test_margin_without_ridge_is_a_linear_program() -> None:
    count, constraints = 40, decisions(40, (3,), (7, 8))
    what_if, given = case(count, 10, "margin"), np.full(40, 0.5)
    found = optimal_weights(what_if, given, constraints, cap=2.5)
    assert_optimal(what_if, found.weights, given, constraints, 2.5)
    free = constraints.free
    costs = what_if.slopes()[free]
    other = linprog(costs, A_eq=np.ones((1, len(costs))), b_eq=[38 - 0.5], bounds=(0, 2.5))
    np.testing.assert_allclose(found.weights[free], other.x, rtol=0, atol=1e-6)


# Conditions of an optimum


@pytest.mark.parametrize("alignment", ["dpo", "margin"])
@pytest.mark.parametrize("horizon", [1e-6, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("ridge", [0.0, 0.02])
def test_working_sets_end_at_the_optimum(
    alignment: str, horizon: float, ridge: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WORKING", 24)
    count, draw = 300, np.random.default_rng(3)
    what_if, given = case(count, 60, alignment, horizon), draw.uniform(0, 3, 300)
    constraints = decisions(count, tuple(draw.integers(0, 300, 20)), tuple(draw.integers(0, 300, 30)))
    found = optimal_weights(what_if, given, constraints, ridge=ridge * horizon)
    assert_optimal(what_if, found.weights, given, constraints, ridge=ridge * horizon)


def test_working_sets_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    what_if, constraints = case(200, 300, horizon=2.0), decisions(200)
    found = [optimal_weights(what_if, np.ones(200), constraints).weights]
    for size in (8, 50):
        monkeypatch.setattr(module, "WORKING", size)
        found.append(optimal_weights(what_if, np.ones(200), constraints).weights)
        np.testing.assert_allclose(found[-1], found[0], rtol=0, atol=1e-3)


def test_few_are_chosen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    what_if, sizes, improved = case(600, 100), [], module._Problem._improved

    def watched(problem: module._Problem, found: Floats, working: NDArray[np.intp], total: float) -> tuple:
        sizes.append(len(working))
        return improved(problem, found, working, total)

    monkeypatch.setattr(module, "WORKING", 60)
    monkeypatch.setattr(module._Problem, "_improved", watched)
    given, constraints = np.ones(600), decisions(600)
    assert_optimal(what_if, optimal_weights(what_if, given, constraints).weights, given, constraints)
    assert 1 < len(sizes) < 8
    assert max(sizes) < 300


@pytest.mark.parametrize("alignment", ["dpo", "margin"])
def test_nothing_feasible_is_better(alignment: str) -> None:
    count, draw = 30, np.random.default_rng(5)
    what_if, constraints = case(count, 12, alignment), decisions(count)
    found = optimal_weights(what_if, np.ones(count), constraints).weights
    value = model(what_if, constraints, None, 0.0)[0]
    assert value(found) > value(np.ones(count)) + 0.01
    for _ in range(200):
        other = np.minimum(draw.dirichlet(np.full(count, draw.uniform(0.2, 3))) * count, 4.0)
        between = found + draw.uniform(0, 1) * (other / other.mean() - found)
        if between.max() <= 4:
            assert value(between) <= value(found) + 1e-9


def test_both_predictions_are_those_of_the_weights() -> None:
    what_if, constraints, chosen = case(20, 12), decisions(20, (4,), (2,)), np.array([0, 3, 5])
    found = optimal_weights(what_if, np.ones(20), constraints, chosen)
    expected = what_if.predict(found.weights, chosen)
    assert found.first_order == expected.first_order
    assert found.second_order == expected.second_order
    assert found.first_order > what_if.predict(np.ones(20), chosen).first_order


def test_order_changes_nothing() -> None:
    order = np.random.default_rng(0).permutation(12)
    found = optimal_weights(case(12, 40), np.ones(12), decisions(12, (3,)))
    shuffled = decisions(12, (int(np.flatnonzero(order == 3)[0]),))
    other = optimal_weights(case(12, 40, order=order), np.ones(12), shuffled)
    np.testing.assert_allclose(other.weights, found.weights[order], rtol=0, atol=1e-3)
    assert other.second_order == pytest.approx(found.second_order, rel=1e-5)


# By hand


def test_ridge_by_hand() -> None:
    """Two candidates, margin, ω = (1 − x, 1 + x): maximise −τ/2 (b_1 + b_2 + x (b_2 − b_1)) − (ridge/2) x², for the
    mean of (ω − 1)² is x². So x = τ (b_1 − b_2)/(2 ridge) = 2 (0.3 − 0.1)/(2 · 0.5) = 0.4.
    """
    what_if = WhatIf(rows(np.array([[0.3], [0.1]])), rows(np.ones((1, 1))), np.zeros(2), "margin", 2.0)
    found = optimal_weights(what_if, np.ones(2), decisions(2), ridge=0.5)
    np.testing.assert_allclose(found.weights, [0.6, 1.4], rtol=0, atol=1e-5)
    assert found.first_order == pytest.approx(-(0.6 * 0.3 + 1.4 * 0.1), abs=1e-5)


def test_a_large_ridge_is_uniform_around_the_locks() -> None:
    found = optimal_weights(case(10, 5), np.full(10, 2.8), decisions(10, (0,), (9,)), ridge=1e6).weights
    np.testing.assert_allclose(found, [2.8, *[6.2 / 8] * 8, 0], rtol=0, atol=1e-5)


def test_the_cap_is_not_for_locked_weights() -> None:
    found = optimal_weights(case(10, 5), np.full(10, 6.0), decisions(10, (0,)), cap=2.0).weights
    assert found[0] == 6.0
    assert 0.5 < found[1:].max() <= 2.0


def test_a_weight_can_be_locked_at_0() -> None:
    given = np.array([0.0, *[1.0] * 9])
    found = optimal_weights(case(10, 5), given, decisions(10, (0,))).weights
    assert found[0] == 0
    assert found.sum() == pytest.approx(10)


def test_a_locked_weight_that_is_excluded_is_out() -> None:
    what_if = case(10, 5)
    found = optimal_weights(what_if, np.full(10, 3.0), decisions(10, (0, 1), (1,))).weights
    expected = optimal_weights(what_if, np.full(10, 3.0), decisions(10, (0,), (1,))).weights
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("alignment", ["dpo", "margin"])
def test_no_choice_left_by_the_cap_is_uniform(alignment: str) -> None:
    found = optimal_weights(case(10, 5, alignment), np.ones(10), decisions(10), cap=1.0).weights
    np.testing.assert_allclose(found, np.ones(10), rtol=0, atol=1e-6)


def test_candidates_without_effect_and_twins() -> None:
    """Nothing to choose between them, but the weights are still weights."""
    flat = WhatIf(rows(np.zeros((6, 2))), rows(np.ones((3, 2))), np.zeros(6), "dpo", 1.0)
    twins = WhatIf(rows(np.repeat(np.eye(2) - 0.5, 5, 0)), rows(np.eye(2)), np.zeros(10), "dpo", 1.0)
    for what_if in (flat, twins):
        given = np.ones(what_if.count)
        found = optimal_weights(what_if, given, decisions(what_if.count))
        assert found.weights.mean() == pytest.approx(1)
        assert 0 <= found.weights.min() <= found.weights.max() <= 4
        assert found.second_order >= what_if.predict(given).second_order - 1e-7


# What cannot be


def test_weights_that_are_not_optimal_are_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """However near: asked for more than float64 can give."""
    monkeypatch.setattr(module, "TOLERANCE", 1e-30)
    monkeypatch.setattr(module, "ACCEPTED", 1e-30)
    with pytest.raises(UnlearningError, match=r"were not found.*Set a ridge, or a shorter horizon"):
        optimal_weights(case(9, 5), np.ones(9), decisions(9), ridge=1.0)


def test_impossible_constraints_say_what_to_do() -> None:
    what_if = case(6, 5)

    def ask(
        weight: float = 1.0, locked: tuple[int, ...] = (), excluded: tuple[int, ...] = (), **settings: float
    ) -> None:
        optimal_weights(what_if, np.full(6, weight), decisions(6, locked, excluded), **settings)

    with pytest.raises(UnlearningError, match="no weight left to choose"):
        ask(locked=(0, 1, 2), excluded=(3, 4, 5))
    with pytest.raises(UnlearningError, match=r"add up to 6 of 5.*Lock fewer, or lower weights"):
        ask(weight=3.0, locked=(0, 1), excluded=(5,))
    with pytest.raises(UnlearningError, match=r"must be 1 on average.*cap is 0\.5\. Raise the cap"):
        ask(cap=0.5)
    with pytest.raises(UnlearningError, match=r"must be 5\.5 on average.*raise or unlock"):
        ask(weight=0.1, locked=(0, 1, 2, 3, 4))
    for cap in (np.nan, np.inf):
        with pytest.raises(UnlearningError, match="the cap is"):
            ask(cap=cap)
    for weight in (-0.5, np.nan):
        with pytest.raises(UnlearningError, match="locked weight is negative or not finite"):
            ask(weight=weight, locked=(0,))
    for ridge in (-1.0, np.nan, np.inf):
        with pytest.raises(UnlearningError, match="ridge must be at least 0"):
            ask(ridge=ridge)
    with pytest.raises(ScoringError, match="slice holds no pair"):
        optimal_weights(what_if, np.ones(6), decisions(6), np.array([], int))
