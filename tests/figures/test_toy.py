"""The bi-level toy: closed forms against numerical minimisation and finite differences; the figure shows them."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

from u2a_core.figures.palette import ink
from u2a_core.figures.toy import ANCHORS, TOY, Toy, told, toy_figure

ANY = Toy(
    start=np.array([0.4, -0.7]),
    goal=np.array([1.1, 0.9]),
    points=np.random.default_rng(3).normal(size=(6, 2)),
    first=2,
)
WEIGHTS = np.array([0.8, 2.0, 0.0, 1.1, 0.6, 3.0])


def inner(toy: Toy, theta: np.ndarray, weights: np.ndarray, anchor: float) -> float:
    phi = 0.5 * ((theta - toy.points) ** 2).sum(1)
    return float(weights @ phi / weights.sum() + 0.5 * anchor * ((theta - toy.start) ** 2).sum())


@pytest.mark.parametrize("anchor", [0.1, 1.0, 10.0])
def test_the_solution_minimises_the_inner_problem(anchor: float) -> None:
    found = minimize(lambda theta: inner(ANY, theta, WEIGHTS, anchor), np.zeros(2), tol=1e-12)
    assert ANY.solution(WEIGHTS, anchor) == pytest.approx(found.x, abs=1e-6)


def test_only_the_proportions_of_the_weights_count() -> None:
    assert ANY.solution(3 * WEIGHTS, 0.5) == pytest.approx(ANY.solution(WEIGHTS, 0.5), abs=1e-14)
    assert ANY.predicted(3 * WEIGHTS, 0.5) == pytest.approx(ANY.predicted(WEIGHTS, 0.5), rel=1e-12)


def test_the_gradient_is_that_of_finite_differences() -> None:
    step = 1e-5
    for i in range(len(WEIGHTS)):
        up, down = WEIGHTS.copy(), WEIGHTS.copy()
        up[i] += step
        down[i] -= step
        slope = (ANY.alignment(ANY.solution(up, 0.7)) - ANY.alignment(ANY.solution(down, 0.7))) / (2 * step)
        assert ANY.gradient(WEIGHTS, 0.7)[i] == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("toy", [TOY, ANY])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_the_best_share_is_that_of_a_numerical_search(toy: Toy, anchor: float) -> None:
    found = minimize_scalar(
        lambda share: -toy.realised(toy.weights(share), anchor), bounds=(0, 1), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    assert toy.best_share(anchor) == pytest.approx(found.x, abs=1e-5)


def test_at_an_inner_optimum_the_gradient_along_the_share_is_zero() -> None:
    best = TOY.best_share(0.1)
    along = TOY.weights(1.0) - TOY.weights(0.0)
    assert 0.5 < best < 1
    assert TOY.gradient(TOY.weights(best), 0.1) @ along == pytest.approx(0, abs=1e-12)


def test_prediction_tends_to_the_realised_change_as_the_anchor_grows() -> None:
    errors = []
    for anchor in (1.0, 10.0, 100.0, 1000.0):
        predicted, realised = ANY.predicted(WEIGHTS, anchor), ANY.realised(WEIGHTS, anchor)
        errors.append(abs(predicted / realised - 1))
        moved = ANY.solution(WEIGHTS, anchor) - ANY.start
        assert predicted - realised == pytest.approx(0.5 * moved @ moved, rel=1e-9)  # all that is left out
    assert all(after < before / 5 for before, after in pairwise(errors))
    assert errors[-1] < 5e-3


def test_the_influence_of_samples_is_the_formula_and_adds_up() -> None:
    anchor, n = 0.5, len(ANY.points)
    towards, hessian = ANY.goal - ANY.start, (1 + anchor) * np.eye(2)
    expected = [-(1 / n) * towards @ np.linalg.solve(hessian, ANY.start - point) for point in ANY.points]
    assert ANY.influence(anchor) == pytest.approx(expected, rel=1e-12)
    assert ANY.influence(anchor).sum() == pytest.approx(ANY.predicted(np.ones(n), anchor), rel=1e-12)


def test_weights_have_mean_one_and_the_share_asked_for() -> None:
    for share in (0.0, 0.35, 1.0):
        weights = ANY.weights(share)
        assert weights.mean() == pytest.approx(1)
        assert weights.min() >= 0
        assert weights[:2].sum() / weights.sum() == pytest.approx(share)
    assert TOY.weights(0.6) == pytest.approx(np.ones(5))


def test_the_groups_of_the_page_are_those_that_help_and_hurt() -> None:
    assert ((TOY.influence(1.0) > 0) == [True, True, True, False, False]).all()


def by_name(figure, name: str):
    (trace,) = [one for one in figure.data if one.name == name]
    return trace


@pytest.mark.parametrize(("share", "anchor"), [(0.6, 0.5), (0.0, 0.1), (1.0, 10.0)])
def test_the_figure_shows_the_closed_forms(share: float, anchor: float) -> None:
    figure, weights = toy_figure(share, anchor), TOY.weights(share)
    (arrow,) = [one for one in figure.data if one.text and "θ*" in one.text]
    assert (arrow.x[1], arrow.y[1]) == pytest.approx(TOY.solution(weights, anchor))
    curve = by_name(figure, "realised")
    assert np.interp(share, curve.x, curve.y) == pytest.approx(TOY.realised(weights, anchor))
    (now,) = [one for one in figure.data if one.hovertext and "realised now" in one.hovertext]
    assert now.y == pytest.approx((TOY.predicted(weights, anchor), TOY.realised(weights, anchor)))
    best = by_name(figure, "best ω")
    assert best.y[0] >= max(curve.y) - 1e-9
    low, high = figure.layout.yaxis2.range
    assert low < min(min(one.y) for one in (curve, by_name(figure, "predicted")))
    assert high > max(max(one.y) for one in (curve, by_name(figure, "predicted")))


def test_a_weight_of_zero_draws_a_sample_small_and_its_hover_says_so() -> None:
    hurting = by_name(toy_figure(1.0, 0.5), "B: unlearning hurts")
    helping = by_name(toy_figure(1.0, 0.5), "A: unlearning helps")
    assert max(hurting.marker.size) < min(helping.marker.size)
    assert all("ω = 0.00" in text for text in hurting.hovertext)
    assert hurting.marker.symbol != helping.marker.symbol


def test_palette_theme_and_reruns() -> None:
    figure = toy_figure(0.5, 1.0, "okabe-ito", "dark")
    assert by_name(figure, "A: unlearning helps").marker.color == ink("okabe-ito", "dark").helps
    assert figure.to_json() == toy_figure(0.5, 1.0, "okabe-ito", "dark").to_json()


def test_the_words_say_what_happens() -> None:
    assert "the model gets worse" in told(0.0, 0.1)
    assert "the model gets better" in told(1.0, 10.0)
    assert f"{TOY.best_share(0.1):.0%} on group A" in told(0.3, 0.1)
