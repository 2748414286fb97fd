"""The outer solver on bi-level problems whose best weights are known, and on scripted ones that try its rules.

The toy: θ*(ω) = argmin (1/n) Σ ω_i ½‖θ − a_i‖² + (λ/2)‖θ‖², J = −½‖θ − t‖² with t = θ*(ω*), and n = d + 1 affinely
independent a_i, so that ω* is the one best choice of mean 1.
"""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from u2a_core.errors import UnlearningError
from u2a_core.unlearning.outer import OuterConfig, OuterSolver, OuterState
from u2a_core.unlearning.weights import Constraints

Floats = NDArray[np.float64]
KNOWN = np.array([0.4, 1.7, 0.9, 1.3, 0.7])


class Toy:
    """The quadratic bi-level problem, in closed form."""

    def __init__(self, points: Floats, damping: float, best: Floats) -> None:
        self.points, self.damping = points, damping
        self.target = self.solve(best)

    def solve(self, weights: Floats) -> Floats:
        theta: Floats = weights @ self.points / (weights.sum() + len(self.points) * self.damping)
        return theta

    def value(self, solution: Floats | None) -> tuple[float, float]:
        value = -0.5 * float(np.square(self._at(solution) - self.target).sum())
        return value, value

    def gradient(self, solution: Floats | None, weights: Floats, wanted: NDArray[np.bool_]) -> Floats:
        """−(1/n) ∇Jᵀ H⁻¹ ∇φ_i."""
        theta = self._at(solution)
        curvature = weights.mean() + self.damping
        slopes: Floats = (theta - self.points) @ (self.target - theta) / curvature
        return np.where(wanted, -slopes / len(self.points), 0.0)

    def retain(self, _solution: Floats | None) -> float | None:
        return None

    def _at(self, solution: Floats | None) -> Floats:
        return np.zeros(self.points.shape[1]) if solution is None else solution


def simplex_toy() -> Toy:
    """Five points in four dimensions, no two alike."""
    points = np.vstack([2 * np.eye(4), -np.ones(4)]) + 0.2 * np.random.default_rng(0).standard_normal((5, 4))
    return Toy(points, 0.3, KNOWN)


def two_sample_toy() -> Toy:
    return Toy(np.array([[1.0], [-1.0]]), 0.2, np.array([1.4, 0.6]))


def constraints(count: int, locked: tuple[int, ...] = (), excluded: tuple[int, ...] = ()) -> Constraints:
    flags = [np.isin(np.arange(count), list(places)) for places in (locked, excluded)]
    return Constraints(*flags)


def thorough(**settings: Any) -> OuterConfig:
    """Stops only when nothing can be gained any more."""
    usual = {"rounds": 40, "tolerance": 0.0, "patience": 10**6, "smallest_step": 1e-9}
    return OuterConfig(**{**usual, **settings})


def test_the_gradient_of_the_toy_itself() -> None:
    toy = simplex_toy()
    weights = np.array([1.0, 2.0, 0.5, 1.2, 0.3])
    numeric = [
        (toy.value(toy.solve(weights + nudge))[0] - toy.value(toy.solve(weights - nudge))[0]) / 2e-5
        for nudge in 1e-5 * np.eye(5)
    ]
    assert toy.gradient(toy.solve(weights), weights, np.ones(5, dtype=bool)) == pytest.approx(
        np.array(numeric), rel=1e-6
    )


@pytest.mark.parametrize("update", ["exponentiated", "projected"])
def test_it_finds_the_known_weights_by_steps_that_never_fall(update: str) -> None:
    toy, values = simplex_toy(), []
    solver = OuterSolver(toy, constraints(5), thorough(update=update, step=6.0))
    found = solver.solve(np.ones(5), record=lambda state: values.append(state.value))
    assert np.linalg.norm(found.best - KNOWN) / np.linalg.norm(KNOWN) <= 1e-3
    assert found.best_value > -1e-6
    assert values == sorted(values), "J of the kept iterate never falls"
    assert values[-1] > values[0]
    kept = [one.value for one in found.rounds if one.accepted]
    assert kept == sorted(kept)
    assert any(not one.accepted for one in found.rounds), "and some steps were indeed refused"
    assert found.best.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("strength", [0.04, 0.07])
@pytest.mark.parametrize("update", ["exponentiated", "projected"])
def test_with_sparsity_it_finds_the_optimum_of_the_penalised_problem(update: str, strength: float) -> None:
    """max over x of J(x, 2 − x) − β (√x + √(2 − x)), against a bounded one-dimensional search."""
    toy = two_sample_toy()

    def penalised(x: float) -> float:
        return -toy.value(toy.solve(np.array([x, 2 - x])))[0] + strength * (math.sqrt(x) + math.sqrt(2 - x))

    best = minimize_scalar(penalised, bounds=(1.0, 1.99), method="bounded", options={"xatol": 1e-10}).x
    assert abs(best - 1.4) > 0.01, "the penalty moves the optimum"
    found = OuterSolver(toy, constraints(2), thorough(update=update, sparsity=strength)).solve(np.ones(2))
    assert found.best[0] == pytest.approx(best, rel=1e-3)
    assert found.best_value == pytest.approx(-penalised(best), abs=1e-8)
    kept = [one.value for one in found.rounds if one.accepted]
    assert kept == sorted(kept)


def test_a_strong_penalty_empties_the_set_of_useless_weights() -> None:
    found = OuterSolver(simplex_toy(), constraints(5), thorough(sparsity=2.0)).solve(np.ones(5) + 0.1 * np.arange(5))
    assert (found.best > 0).sum() < 5
    assert found.best.mean() == pytest.approx(1.0)
    without = OuterSolver(simplex_toy(), constraints(5), thorough()).solve(np.ones(5) + 0.1 * np.arange(5))
    assert (without.best > 0).sum() == 5


@pytest.mark.parametrize("update", ["exponentiated", "projected"])
def test_locked_weights_stay_and_excluded_examples_stay_out(update: str) -> None:
    toy, held = simplex_toy(), constraints(5, locked=(1,), excluded=(3,))
    start = np.array([1.0, 1.25, 1.0, 1.0, 1.0])
    found = OuterSolver(toy, held, thorough(update=update)).solve(start)
    for one in found.rounds:
        assert one.weights[1] == 1.25
        assert one.weights[3] == 0.0
        assert sum(one.weights) == pytest.approx(4.0), "mean 1 over the four that are not excluded"
    best = minimize(
        lambda free: -toy.value(toy.solve(np.array([free[0], 1.25, free[1], 0.0, free[2]])))[0],
        np.full(3, 2.75 / 3),
        bounds=[(0, None)] * 3,
        constraints={"type": "eq", "fun": lambda free: free.sum() - 2.75},
        options={"ftol": 1e-15},
    )
    assert found.best[[0, 2, 4]] == pytest.approx(best.x, rel=1e-3, abs=1e-3)


# Rules, on scripted problems


class Script:
    """Gives the values of a list one after the other, whatever the weights; the derivative is fixed."""

    def __init__(
        self, aside: list[float], retain: list[float] | None = None, slope: tuple[float, ...] = (1.0, 0.0, -1.0)
    ) -> None:
        self.script, self.harm, self.slope = aside, retain, np.array(slope)
        self.asked: list[Floats] = []
        self.derived: list[Any] = []

    def solve(self, weights: Floats) -> int:
        self.asked.append(weights.copy())
        return len(self.asked) - 1

    def value(self, solution: int) -> tuple[float, float]:
        return 100.0 + solution, self.script[min(solution, len(self.script) - 1)]

    def gradient(self, solution: int | None, _weights: Floats, _wanted: NDArray[np.bool_]) -> Floats:
        self.derived.append(solution)
        return self.slope

    def retain(self, solution: int) -> float | None:
        return None if self.harm is None else self.harm[min(solution, len(self.harm) - 1)]


def searched(problem: Script, start: Floats | None = None, **settings: Any) -> OuterState:
    start = np.ones(len(problem.slope)) if start is None else start
    return OuterSolver(problem, constraints(len(problem.slope)), OuterConfig(**settings)).solve(start)


def test_a_step_that_falls_on_the_pairs_kept_aside_is_undone_and_halved() -> None:
    """Whatever J on the pairs that the gradient sees, which only rises here."""
    problem = Script([1.0, 0.9, 0.8, 1.5, 1.4])
    found = searched(problem, rounds=5, step=0.4)
    assert [one.accepted for one in found.rounds] == [True, False, False, True, False]
    assert [one.step for one in found.rounds] == [0.4, 0.4, 0.2, 0.1, 0.2]
    logs = [np.log(weights[0] / weights[2]) for weights in problem.asked]
    unit = 2 / np.std([1.0, 0.0, -1.0])
    assert logs == pytest.approx(unit * np.array([0.0, 0.4, 0.2, 0.1, 0.3]), rel=1e-9, abs=1e-12)
    assert problem.derived == [None, 0, 3], "the derivative is taken anew only where a step was kept"
    assert found.best == pytest.approx(problem.asked[3])
    assert found.stopped == "5 rounds done"


def test_a_step_that_went_too_far_is_kept_and_the_next_one_is_shorter() -> None:
    """Where the derivative at the new weights points back. Without it the toy would be walked from side to side."""
    problem = Script([1.0, 2.0, 3.0, 4.0])
    original = problem.gradient
    problem.gradient = lambda at, weights, wanted: original(at, weights, wanted) * (-1 if at == 1 else 1)
    found = searched(problem, rounds=4, step=0.4)
    assert [one.accepted for one in found.rounds] == [True] * 4
    assert [one.step for one in found.rounds] == [0.4, 0.4, 0.2, 0.1]


def test_a_step_grows_as_long_as_it_leads_on_up_to_ten_times_the_first() -> None:
    found = searched(Script([float(value) for value in range(9)]), rounds=7, step=0.01)
    assert [one.step for one in found.rounds] == [0.01, 0.01, 0.02, 0.04, 0.08, 0.1, 0.1]


def test_a_step_that_changes_nothing_is_kept() -> None:
    found = searched(Script([1.0, 1.0]), rounds=2)
    assert [one.accepted for one in found.rounds] == [True, True]


def test_the_best_iterate_is_the_answer_not_the_last() -> None:
    problem = Script([1.0, 2.0, 3.0, 0.0, 0.0])
    found = searched(problem, rounds=5)
    assert (found.best_value, found.value) == (3.0, 3.0)
    assert found.best.tolist() == problem.asked[2].tolist()
    assert found.rounds[-1].weights != found.best.tolist()


def test_patience() -> None:
    found = searched(Script([1.0, 2.0, 2.001, 2.5, 2.501, 2.502, 9.0]), rounds=50, tolerance=0.01, patience=2)
    assert [one.value for one in found.rounds] == [1.0, 2.0, 2.001, 2.5, 2.501, 2.502]
    assert found.stopped == "2 rounds in a row gained less than 0.01"
    more = searched(Script([1.0, 2.0, 2.001, 2.5, 2.501, 2.502, 9.0, 9.0]), rounds=7, tolerance=0.01, patience=3)
    assert more.best_value == 9.0


def test_the_number_of_rounds_counts_inner_problems() -> None:
    for rounds in (1, 3):
        problem = Script([float(value) for value in range(9)])
        found = searched(problem, rounds=rounds)
        assert len(problem.asked) == len(found.rounds) == rounds
        assert [one.number for one in found.rounds] == list(range(rounds))
        assert found.stopped == f"{rounds} rounds done"


def test_a_direction_without_improvement_ends_the_search() -> None:
    found = searched(Script([1.0, 0.0]), rounds=50, step=0.5)
    assert found.stopped == "no step in the direction of the gradient is an improvement"
    assert [one.accepted for one in found.rounds] == [True] + [False] * 7
    assert found.rounds[-1].step == 0.5 / 2**6
    assert found.best.tolist() == [1.0, 1.0, 1.0]


def test_weights_that_cannot_move_end_the_search() -> None:
    found = searched(Script([1.0], slope=(1.0, 1.0, 1.0)), rounds=9)
    assert found.stopped == "the weights do not change any more"
    assert len(found.rounds) == 1


# Narrowing

SLOPE = (0.5, -1.0, 2.0, 1.0, -2.0, 0.0, 3.0, -3.0)


def selected(problem: Script) -> list[list[int]]:
    return [np.flatnonzero(weights).tolist() for weights in problem.asked]


def test_the_selection_is_halved_for_as_long_as_that_is_an_improvement_then_steps_follow() -> None:
    problem = Script([1.0, 2.0, 3.0, 2.9, 4.0, 3.0], slope=SLOPE)
    found = searched(problem, rounds=6, narrow=0.1, step=0.1)
    assert selected(problem) == [list(range(8)), [0, 2, 3, 6], [2, 6], [6], [2, 6], [2, 6]]
    assert all(weights.mean() == pytest.approx(1.0) for weights in problem.asked)
    assert [one.accepted for one in found.rounds] == [True, True, True, False, True, False]
    assert problem.derived == [None, 2, 4], "derivatives at the solutions that were kept, none while narrowing"
    assert problem.asked[4][6] > problem.asked[4][2], "a step along the derivative, within the selection"


def test_narrowing_ends_at_the_smallest_share_and_no_derivative_is_taken_for_nothing() -> None:
    problem = Script([1.0, 2.0, 3.0, 4.0], slope=SLOPE)
    found = searched(problem, rounds=3, narrow=0.25)
    assert selected(problem)[-1] == [2, 6]
    assert problem.derived == [None], "no round is left that would use another"
    assert found.share is None
    problem = Script([1.0, 2.0, 3.0, 4.0], slope=SLOPE)
    searched(problem, rounds=4, narrow=0.25, step=0.1)
    assert selected(problem) == [list(range(8)), [0, 2, 3, 6], [2, 6], [2, 6]]


def test_a_start_over_the_retain_budget_is_narrowed_all_the_same() -> None:
    problem = Script([5.0, 1.0, 0.5], retain=[9.0, 0.1, 0.1], slope=SLOPE)
    found = searched(problem, rounds=3, narrow=0.1, retain_budget=0.5)
    assert [one.accepted for one in found.rounds] == [False, True, False]
    assert found.best_value == 1.0


def test_narrowing_that_was_interrupted_goes_on_the_same() -> None:
    def run(stop: int | None) -> tuple[OuterState, list[OuterState]]:
        states: list[OuterState] = []
        solver = OuterSolver(simplex_toy(), constraints(5), OuterConfig(rounds=7, narrow=0.4, step=2.0))
        return solver.solve(np.ones(5), record=lambda state: states.append(copy.deepcopy(state))), states

    whole, states = run(None)
    for state in states[:-1]:
        solver = OuterSolver(simplex_toy(), constraints(5), OuterConfig(rounds=7, narrow=0.4, step=2.0))
        again = solver.solve(np.ones(5), state)
        assert [one.weights for one in again.rounds] == [one.weights for one in whole.rounds]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"narrow": 0.7}, r"--narrow 0.7 is no share to narrow to: give at most 0.5, say 0.05"),
        ({"narrow": 0.0}, "--narrow 0"),
        ({"narrow": 0.1, "top": 0.5}, "--choose and --narrow both decide .*: give one of them"),
    ],
)
def test_bad_narrowing(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UnlearningError, match=message):
        OuterConfig(**settings)


def test_a_step_beyond_the_retain_budget_is_never_kept() -> None:
    problem = Script([1.0, 5.0, 2.0, 9.0], retain=[0.1, 0.51, 0.5, 0.6])
    found = searched(problem, rounds=4, retain_budget=0.5)
    assert [one.accepted for one in found.rounds] == [True, False, True, False]
    assert [one.retain for one in found.rounds] == [0.1, 0.51, 0.5, 0.6]
    assert found.best_value == 2.0
    assert [one.accepted for one in searched(Script([1.0, 5.0], [9.0, 9.0]), rounds=2).rounds] == [True, True]


def test_a_value_that_is_no_number_is_never_kept() -> None:
    found = searched(Script([1.0, math.nan, math.inf, 1.2]), rounds=4)
    assert [one.accepted for one in found.rounds] == [True, False, False, True]
    assert found.best_value == 1.2
    none = searched(Script([math.nan]), rounds=3)
    assert none.best_value == -math.inf
    assert not any(one.accepted for one in none.rounds)


def test_a_first_iterate_that_is_refused_is_no_yardstick() -> None:
    found = searched(Script([9.0, 1.0, 2.0], retain=[1.0, 0.0, 0.0]), rounds=3, retain_budget=0.5)
    assert [one.accepted for one in found.rounds] == [False, True, True]
    assert found.best_value == 2.0


def test_the_top_share_is_chosen_anew_in_every_round() -> None:
    problem = Script([1.0, 2.0, 3.0], slope=(1.0, 4.0, 2.0, 0.0, 3.0, -1.0))
    original = problem.gradient

    def turning(solution: int | None, weights: Floats, wanted: NDArray[np.bool_]) -> Floats:
        return original(solution, weights, wanted) * (1 if solution is None else -1)

    problem.gradient = turning
    found = searched(problem, rounds=2, top=0.5)
    assert np.flatnonzero(problem.asked[0]).tolist() == [1, 2, 4]
    assert problem.asked[0][[1, 2, 4]] == pytest.approx(2.0)
    assert np.flatnonzero(problem.asked[1]).tolist() == [0, 3, 5], "the first iterate turned the derivative round"
    assert [one.selected for one in found.rounds] == [3, 3]


def test_a_round_says_everything_in_plain_numbers() -> None:
    found = searched(Script([1.0, 2.0], retain=[0.25]), rounds=2, sparsity=0.5)
    last = json.loads(json.dumps(asdict(found.rounds[1])))
    assert last["alignment_train"] == 101.0
    assert last["alignment_aside"] == 2.0
    assert last["value"] == pytest.approx(2.0 - 0.5 * np.sqrt(last["weights"]).sum())
    assert last["retain"] == 0.25
    assert last["selected"] == 3
    assert last["weighting_seconds"] >= 0
    assert last["unlearning_seconds"] >= 0
    assert len(last["weights"]) == 3


@pytest.mark.parametrize("make", [simplex_toy, two_sample_toy])
def test_going_on_gives_the_same_bits(make: Callable[[], Toy]) -> None:
    size = len(make().points)
    config = thorough(rounds=12, sparsity=0.01, top=0.8 if size == 5 else None)
    states: list[OuterState] = []
    whole = OuterSolver(make(), constraints(size), config).solve(
        np.ones(size), record=lambda state: states.append(copy.deepcopy(state))
    )
    assert len(states) > 4
    for state in (states[0], states[3], states[-1]):
        found = OuterSolver(make(), constraints(size), config).solve(np.full(size, 9.0), state)
        assert found.best.tolist() == whole.best.tolist()
        assert [one.weights for one in found.rounds] == [one.weights for one in whole.rounds]
        assert found.stopped == whole.stopped
