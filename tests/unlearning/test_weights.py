"""Moving ω: mean 1, locks and exclusions stay, the projection against a second solver, the steps by hand."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from u2a_core.errors import UnlearningError
from u2a_core.unlearning.weights import (
    SMALLEST_WEIGHT,
    Constraints,
    chosen,
    exponentiated,
    normalised,
    projected,
    sparsity_gradient,
)

Floats = NDArray[np.float64]
UPDATES = [exponentiated, projected]


def constraints(count: int, locked: tuple[int, ...] = (), excluded: tuple[int, ...] = ()) -> Constraints:
    flags = [np.isin(np.arange(count), list(places)) for places in (locked, excluded)]
    return Constraints(*flags)


FREE = constraints(5)
HELD = constraints(6, locked=(0,), excluded=(5,))
START = np.array([1.8, 0.7, 0.6, 1.4, 0.5, 0.0])
SLOPE = np.array([5.0, 1.0, -0.5, 0.2, -2.0, 9.0])


def test_weights_are_brought_to_mean_one() -> None:
    found = normalised(np.array([1.0, 2.0, 3.0, 4.0, 0.0]), FREE)
    assert found == pytest.approx(np.array([0.5, 1.0, 1.5, 2.0, 0.0]))


def test_the_mean_is_over_what_is_not_excluded_and_locks_stay() -> None:
    found = normalised(np.array([2.0, 1.0, 1.0, 4.0, 2.0, 3.0]), HELD)
    assert found[0] == 2.0
    assert found[5] == 0.0
    assert found[:5].mean() == pytest.approx(1.0)
    assert found[1:5] == pytest.approx(np.array([1.0, 1.0, 4.0, 2.0]) * 3 / 8)


def test_a_weight_next_to_nothing_is_nothing() -> None:
    found = normalised(np.array([1.0, 1e-10, 1e-3]), constraints(3))
    assert found[1] == 0.0
    assert found[2] > 0.0


def test_weights_that_leave_no_choice_are_refused() -> None:
    with pytest.raises(UnlearningError, match="Every example is locked or excluded"):
        normalised(np.ones(2), constraints(2, locked=(0,), excluded=(1,)))
    with pytest.raises(UnlearningError, match=r"locked weights add up to 3 of 3.*Lock fewer"):
        normalised(np.array([3.0, 1.0, 1.0]), constraints(3, locked=(0,)))
    with pytest.raises(UnlearningError, match="leaves nothing for the others"):
        normalised(np.array([1.0, 0.0, 0.0]), constraints(3, locked=(0,)))


@pytest.mark.parametrize("update", UPDATES)
def test_a_step_keeps_every_constraint(update: Callable[..., Floats]) -> None:
    for step in (0.01, 0.5, 3.0, 1e6):
        found = update(normalised(START, HELD), SLOPE, step, HELD)
        assert found[0] == START[0], "locked"
        assert found[5] == 0.0, "excluded"
        assert (found >= 0).all()
        assert found[:5].mean() == pytest.approx(1.0, rel=1e-12)
        assert np.isfinite(found).all()


@pytest.mark.parametrize("update", UPDATES)
def test_a_step_goes_uphill(update: Callable[..., Floats]) -> None:
    """A positive derivative relative to the others raises a weight: its example is unlearned more."""
    before = normalised(START, HELD)
    change = update(before, SLOPE, 0.1, HELD) - before
    assert change[1] > 0 > change[4]
    assert float(SLOPE @ change) > 0


def test_exponentiated_by_hand() -> None:
    weights = np.array([0.5, 1.0, 1.5])
    found = exponentiated(weights, np.array([1.0, 0.0, -2.0]), 0.3, constraints(3))
    raw = weights * np.exp(0.3 * np.array([1.0, 0.0, -2.0]))
    assert found == pytest.approx(raw * 3 / raw.sum(), rel=1e-12)


def test_exponentiated_depends_on_differences_alone_and_overflows_never() -> None:
    weights = np.array([0.5, 1.0, 1.5])
    slope = np.array([1.0, 0.0, -2.0])
    assert exponentiated(weights, slope + 1000.0, 0.3, constraints(3)) == pytest.approx(
        exponentiated(weights, slope, 0.3, constraints(3)), rel=1e-9
    )
    found = exponentiated(weights, 1e300 * slope, 1.0, constraints(3))
    assert found == pytest.approx(np.array([1.0, 2.0, 0.0]), abs=1e-6), "bounded alike on one side of the mean"


def test_a_weight_of_zero_stays_zero_under_one_update_and_comes_back_under_the_other() -> None:
    weights, slope = np.array([0.0, 1.5, 1.5]), np.array([5.0, 0.0, 0.0])
    assert exponentiated(weights, slope, 0.5, constraints(3))[0] == 0.0
    assert projected(weights, slope, 0.5, constraints(3))[0] > 0.5


@pytest.mark.parametrize("seed", range(5))
def test_projected_against_a_general_solver(seed: int) -> None:
    """The nearest point to ω + ηd on {ω ≥ 0, mean 1}."""
    numbers = np.random.default_rng(seed)
    weights, slope = normalised(numbers.random(7), constraints(7)), 2 * numbers.standard_normal(7)
    found = projected(weights, slope, 0.8, constraints(7))
    aim = weights + 0.8 * slope
    best = minimize(
        lambda x: 0.5 * np.sum((x - aim) ** 2),
        weights,
        jac=lambda x: x - aim,
        bounds=[(0, None)] * 7,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 7, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found == pytest.approx(best.x, abs=1e-6)
    assert 0 < (found == 0).sum() < 7


def test_the_slope_of_the_sparsity_term() -> None:
    weights = np.array([0.25, 1.0, 4.0])
    numeric = [
        (-0.3 * np.sqrt(weights + nudge).sum() + 0.3 * np.sqrt(weights - nudge).sum()) / 2e-6
        for nudge in 1e-6 * np.eye(3)
    ]
    assert sparsity_gradient(weights, 0.3) == pytest.approx(np.array(numeric), rel=1e-6)
    assert sparsity_gradient(weights, 0.0) == pytest.approx(np.zeros(3))
    at_zero = sparsity_gradient(np.array([0.0]), 1.0)
    assert at_zero == pytest.approx(-0.5 / np.sqrt(SMALLEST_WEIGHT))


def test_the_chosen_ones_are_those_of_the_highest_derivative() -> None:
    weights = np.array([1.8, 0.5, 0.9, 0.0, 1.8, 0.0])
    found = chosen(weights, np.array([-9.0, 1.0, 3.0, 2.0, 0.5, 50.0]), 2, HELD)
    assert found[0] == 1.8
    assert np.flatnonzero(found).tolist() == [0, 2, 3]
    assert found[2] == found[3], "a newcomer has the mean weight of those kept, here of one"
    assert found[:5].mean() == pytest.approx(1.0)
    ratio = chosen(np.array([1.0, 3.0, 0.0, 0.0]), np.array([5.0, 4.0, 3.0, 1.0]), 3, constraints(4))
    assert ratio / ratio[0] == pytest.approx(np.array([1.0, 3.0, 2.0, 0.0]))


def test_ties_go_by_place_and_newcomers_alone_are_equal() -> None:
    found = chosen(np.array([0.0, 0.0, 2.0, 2.0]), np.array([1.0, 1.0, 0.0, 0.0]), 1, constraints(4))
    assert found == pytest.approx(np.array([4.0, 0.0, 0.0, 0.0]))
