"""Agreement and noise ceiling against hand-worked values, scipy, simulation, and what must not change them."""

import math
import subprocess
import sys
import warnings
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress, pearsonr, spearmanr

from u2a_core.evaluation import agreement as module
from u2a_core.evaluation.agreement import (
    KEPT_IDS,
    Agreement,
    Ceiling,
    Interval,
    agreement,
    compare,
    ids_digest,
    make_case,
    noise_ceiling,
)


def noisy(m: int, seed: int, slope: float = 2.0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    predicted = generator.normal(size=m)
    return predicted, slope * predicted + noise * generator.normal(size=m) + 0.5


def test_four_cases_worked_by_hand() -> None:
    # x: mean 1.5, squared deviations 5. y: mean 3; products (−1.5)(−4) + (−0.5)(−2) + 0.5 · 4 + 1.5 · 2 = 12.
    # Ranks of y: 1, 2, 4, 3; rho = 1 − 6 · 2 / (4 · 15) = 0.8. Sum of squared deviations of y: 16 + 4 + 16 + 4 = 40.
    found = agreement([0.0, 1.0, 2.0, 3.0], [-1.0, 1.0, 7.0, 5.0])
    assert found.rho.value == pytest.approx(0.8)
    assert found.slope.value == pytest.approx(2.4)
    assert found.intercept == pytest.approx(3 - 2.4 * 1.5)
    assert found.spread_ratio == pytest.approx(math.sqrt(5 / 40))
    assert (found.n, found.missing, found.same_sign, found.gains, found.reason) == (4, 0, 3, 3, None)


def test_a_zero_has_a_sign_of_its_own() -> None:
    found = agreement([0.0, 0.0, 1.0, -1.0, 2.0], [0.0, 1.0, 0.0, -1.0, -2.0])
    assert (found.same_sign, found.gains) == (2, 1)


@pytest.mark.parametrize("ties", [False, True])
def test_the_numbers_are_scipys(ties: bool) -> None:
    x, y = noisy(60, 1)
    if ties:
        x, y = np.round(x), np.round(y)
    found, line = agreement(x, y), linregress(x, y)
    assert found.rho.value == pytest.approx(spearmanr(x, y).statistic)
    assert (found.slope.value, found.intercept) == pytest.approx((line.slope, line.intercept))
    assert found.slope.value * found.spread_ratio == pytest.approx(pearsonr(x, y).statistic)


def test_the_interval_of_the_slope_is_that_of_plain_resampling() -> None:
    x, y = noisy(40, 2)
    generator = np.random.default_rng(9)
    slopes = [np.polyfit(x[row], y[row], 1)[0] for row in generator.integers(0, 40, size=(1500, 40))]
    expected = np.percentile(slopes, [2.5, 97.5])
    found = agreement(x, y).slope
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.06)


def test_the_interval_of_the_slope_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(100):
        slope = agreement(*noisy(40, seed, slope=3.0)).slope
        covered += slope.low <= 3.0 <= slope.high
    assert 0.87 <= covered / 100 <= 0.99


def test_resamples_that_are_all_one_case_have_no_slope() -> None:
    # Of the 27 equally likely resamples, 8 hold only the first two cases, whose predictions differ by rounding alone.
    found = agreement([1.0, 1.0 + 1e-15, 2.0], [0.0, 5.0, 1.0])
    assert max(abs(found.slope.low), abs(found.slope.high)) <= 4 + 1e-9


def test_the_order_of_the_cases_changes_no_number() -> None:
    x, y = noisy(30, 3)
    order = np.random.default_rng(0).permutation(30)
    first, second = agreement(x, y), agreement(x[order], y[order])
    assert (second.rho.value, second.slope.value, second.intercept, second.spread_ratio) == pytest.approx(
        (first.rho.value, first.slope.value, first.intercept, first.spread_ratio)
    )
    assert (second.same_sign, second.gains) == (first.same_sign, first.gains)


def test_a_rising_function_of_the_predictions_leaves_rho_and_its_interval() -> None:
    x, y = noisy(30, 4)
    assert agreement(np.exp(3 * x), y).rho == agreement(x, y).rho
    assert agreement(-x, y).rho.value == pytest.approx(-agreement(x, y).rho.value)


@pytest.mark.parametrize("factor", [1e-9, 0.1, 7.0, 1e12])
def test_scaled_predictions_scale_the_slope_inversely(factor: float) -> None:
    x, y = noisy(30, 5)
    first, second = agreement(x, y), agreement(factor * x, y)
    assert np.array(astuple(second.slope)) * factor == pytest.approx(np.array(astuple(first.slope)))
    assert second.spread_ratio == pytest.approx(factor * first.spread_ratio)
    assert (second.intercept, second.rho, second.same_sign) == (
        pytest.approx(first.intercept),
        first.rho,
        first.same_sign,
    )


def test_a_common_gain_moves_only_the_intercept_and_the_signs() -> None:
    x, y = noisy(30, 6)
    first, second = agreement(x, y), agreement(x, y + 100)
    assert second.intercept == pytest.approx(first.intercept + 100)
    assert astuple(second.slope) == pytest.approx(astuple(first.slope))
    assert (second.gains, second.same_sign) == (30, int((x > 0).sum()))


@pytest.mark.parametrize(
    ("predicted", "realised", "n", "missing", "reason"),
    [
        ([], [], 0, 0, "0 pair"),
        ([1.0, 2.0], [1.0, 2.0], 2, 0, "2 pair"),
        ([1.0, 2.0, math.nan, 4.0], [1.0, 2.0, 3.0, -math.inf], 2, 2, "2 pair"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], 3, 0, "same everywhere"),
        ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], 3, 0, "same everywhere"),
    ],
)
def test_what_cannot_be_told_is_none_with_a_reason(
    predicted: list[float], realised: list[float], n: int, missing: int, reason: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = agreement(predicted, realised)
    assert (found.rho, found.slope, found.intercept, found.spread_ratio) == (None, None, None, None)
    assert (found.n, found.missing) == (n, missing)
    assert reason in found.reason


def test_pairs_that_are_not_finite_are_left_out_and_counted() -> None:
    x, y = noisy(20, 7)
    with_gaps = agreement([*x, math.nan, 1.0], [*y, 1.0, math.inf])
    assert with_gaps.missing == 2
    assert with_gaps == Agreement(**{**vars(agreement(x, y)), "missing": 2})


numbers = st.floats(-1e100, 1e100).filter(lambda value: value == 0 or abs(value) > 1e-100)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), max_size=12))
def test_no_input_gives_nan_or_a_warning(pairs: list[tuple[float, float]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = agreement([x for x, _ in pairs], [y for _, y in pairs])
    assert (found.rho is None) == (found.reason is not None) == (found.slope is None)
    if found.rho is not None:
        values = [*astuple(found.rho), *astuple(found.slope), found.intercept, found.spread_ratio]
        assert all(math.isfinite(value) for value in values)


def test_a_ceiling_worked_by_hand() -> None:
    # Ranks 1 2 3 4 | 2 1 3 4 | 1 2 4 3. Sums of squared differences 2, 2 and 4: rho 0.8, 0.8 and 0.6; mean 11/15.
    ranks = np.array([[1, 2, 3, 4], [2, 1, 3, 4], [1, 2, 4, 3]], dtype=float).T
    found = noise_ceiling(ranks)
    assert found.repetitions == 3
    assert found.rho.value == pytest.approx(11 / 15)
    assert found.attainable == pytest.approx(math.sqrt(3 * (11 / 15) / (1 + 2 * 11 / 15)))  # sqrt(33/37)
    assert noise_ceiling(ranks[:, :2]).rho.value == pytest.approx(0.8)


def test_the_ceiling_of_two_is_their_spearman_with_its_interval() -> None:
    generator = np.random.default_rng(0)
    values = np.round(generator.normal(size=(40, 1)) + 0.7 * generator.normal(size=(40, 2)), 1)  # some ties
    picks = generator.integers(0, 40, size=(700, 40))
    drawn = [spearmanr(values[row]).statistic for row in picks]
    found = noise_ceiling(values).rho
    assert found.value == pytest.approx(spearmanr(values).statistic)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.05)


def test_the_attainable_agreement_is_what_a_perfect_prediction_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 20)  # the interval is not looked at
    generator = np.random.default_rng(1)
    truth = generator.normal(size=4000)
    for r in (2, 5):
        values = truth[:, None] + generator.normal(size=(4000, r))
        reached = spearmanr(truth, values.mean(axis=1)).statistic
        ceiling = noise_ceiling(values)
        assert ceiling.attainable == pytest.approx(reached, abs=0.015)
        assert ceiling.attainable > ceiling.rho.value + 0.2


def test_the_ceiling_does_not_depend_on_order_or_scale() -> None:
    values = np.random.default_rng(2).normal(size=(15, 1)) + np.random.default_rng(3).normal(size=(15, 3))
    first = noise_ceiling(values).rho.value
    assert noise_ceiling(values[:, [2, 0, 1]]).rho.value == pytest.approx(first)
    assert noise_ceiling(values[::-1]).rho.value == pytest.approx(first)
    assert noise_ceiling(np.exp(values) * [1.0, 10.0, 100.0]).rho.value == pytest.approx(first)


def test_runs_that_repeat_themselves_have_ceiling_one_and_opposites_attain_nothing() -> None:
    values = np.arange(12.0)
    same = noise_ceiling(np.stack([values, values, values], axis=1))
    assert astuple(same.rho) == pytest.approx((1.0, 1.0, 1.0))
    assert same.attainable == pytest.approx(1.0)
    opposite = noise_ceiling(np.stack([values, -values], axis=1))
    assert (opposite.rho.value, opposite.attainable) == (pytest.approx(-1.0), 0.0)


def test_one_repetition_is_one_for_deterministic_runs_and_not_measured_otherwise() -> None:
    values = np.arange(5.0)[:, None]
    assert noise_ceiling(values, deterministic=True) == Ceiling(1, Interval(1.0, 1.0, 1.0), 1.0)
    unmeasured = noise_ceiling(values)
    assert (unmeasured.rho, unmeasured.attainable) == (None, None)
    assert "only once" in unmeasured.reason
    with pytest.raises(ValueError, match="deterministic runs have 1 repetition, not 2"):
        noise_ceiling(np.ones((3, 2)), deterministic=True)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([[1, 2], [2, 3], [math.nan, 4], [4, math.inf]], "only 2 case"),
        ([[1, 2], [1, 3], [1, 4]], "same value"),
    ],
)
def test_a_ceiling_that_cannot_be_told_says_why(values: list[list[float]], reason: str) -> None:
    found = noise_ceiling(values)
    assert (found.repetitions, found.rho, found.attainable) == (2, None, None)
    assert reason in found.reason


def test_cases_are_compared_with_the_mean_of_their_repetitions() -> None:
    generator = np.random.default_rng(4)
    realised = generator.normal(size=(12, 3))
    cases = [
        make_case([f"c{i}"], row, {"first_order": i, "unrolled": row.mean()} if i else {"first_order": i})
        for i, row in enumerate(realised)
    ]
    table = compare(cases, deterministic=False)
    assert table.cases == tuple(cases)
    assert table.ceiling == noise_ceiling(realised)
    assert list(table.agreements) == ["first_order", "unrolled"]
    expected = agreement(np.arange(12.0), realised.mean(axis=1))
    assert table.agreements["first_order"].rho == expected.rho
    unrolled = table.agreements["unrolled"]
    assert (unrolled.n, unrolled.missing) == (11, 1)  # the first case has no such prediction
    assert unrolled.slope.value == pytest.approx(1.0)


def test_a_case_with_a_repetition_that_is_not_finite_is_left_out() -> None:
    cases = [make_case([str(i)], [i, math.nan if i == 2 else i + 1], {"unrolled": i}) for i in range(5)]
    assert cases[2].realised == (2.0, None)
    assert cases[2].mean_realised is None
    assert cases[3].mean_realised == 3.5
    found = compare(cases, deterministic=False)
    assert (found.agreements["unrolled"].n, found.agreements["unrolled"].missing) == (4, 1)


def test_cases_must_be_repeated_equally_often_and_none_is_no_error() -> None:
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        compare([make_case("a", [1.0], {}), make_case("b", [1.0, 2.0], {})], deterministic=False)
    with pytest.raises(ValueError, match="at least 1"):
        compare([make_case("a", [], {})], deterministic=False)
    empty = compare([], deterministic=True)
    assert (empty.cases, empty.agreements, empty.ceiling.reason) == ((), {}, "no case was measured")


def test_deterministic_is_passed_on() -> None:
    cases = [make_case([str(i)], [i], {"unrolled": i}) for i in range(5)]
    assert compare(cases, deterministic=True).ceiling.attainable == 1.0
    assert compare(cases, deterministic=False).ceiling.attainable is None


def test_a_large_case_is_named_by_size_and_digest() -> None:
    ids = [str(i) for i in range(KEPT_IDS + 1)]
    large, small = make_case(ids, [0.0], {}), make_case(ids[1:], [0.0], {})
    assert (large.ids, large.size, large.digest) == ((), KEPT_IDS + 1, ids_digest(ids))
    assert (small.ids, small.size) == (tuple(ids[1:]), KEPT_IDS)
    assert ids_digest(reversed(ids)) == ids_digest(ids)
    assert ids_digest(["a", "bc"]) != ids_digest(["ab", "c"])


def test_nothing_here_imports_torch_or_the_packages_of_the_studio() -> None:
    code = (
        "import sys, u2a_core.evaluation.verdict, u2a_core.store.trust; assert 'plotly' not in sys.modules; "
        "import u2a_core.figures.trust; "
        "print([name for name in ('torch', 'transformers', 'streamlit') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
