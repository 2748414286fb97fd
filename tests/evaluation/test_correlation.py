"""Spearman against scipy and against plain resampling."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from u2a_core.evaluation import correlation
from u2a_core.evaluation.correlation import spearman


@pytest.mark.parametrize("ties", [False, True])
def test_rho_is_scipys(ties: bool) -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=80), generator.standard_t(2, size=80)
    if ties:
        x, y = np.round(x), np.round(y)
    assert spearman(x, y).coefficient == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_ranks_are_the_ranks_of_the_resample(ties: bool) -> None:
    generator = np.random.default_rng(2)
    x, y = generator.normal(size=(2, 30))
    if ties:
        x, y = np.round(x), np.round(2 * y)
    picks = generator.integers(0, 30, size=(50, 30))
    counts = np.stack([np.bincount(row, minlength=30) for row in picks])
    codes = [np.unique(values, return_inverse=True)[1] for values in (x, y)]
    orders = [np.argsort(code, kind="stable") for code in codes]
    expected = [spearmanr(x[row], y[row]).statistic for row in picks]
    assert correlation._weighted_spearman(counts, codes, orders) == pytest.approx(expected, abs=1e-12)


def test_the_interval_is_the_percentile_interval_of_plain_resampling() -> None:
    generator = np.random.default_rng(3)
    x = generator.normal(size=60)
    y = 0.5 * x + generator.normal(size=60)
    result = spearman(x, y, resamples=4000, seed=5)
    picks = generator.integers(0, 60, size=(1500, 60))
    low, high = np.percentile([spearmanr(x[row], y[row]).statistic for row in picks], [2.5, 97.5])
    assert result.low == pytest.approx(low, abs=0.03)
    assert result.high == pytest.approx(high, abs=0.03)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(4)
    truth = 6 / np.pi * np.arcsin(0.5 / 2)  # Spearman's rho of a bivariate normal with correlation 0.5
    covered = 0
    for trial in range(200):
        x, noise = generator.normal(size=(2, 50))
        result = spearman(x, 0.5 * x + np.sqrt(0.75) * noise, resamples=300, seed=trial)
        covered += result.low <= truth <= result.high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_interval_narrows_with_confidence_and_with_n_and_repeats_by_seed() -> None:
    generator = np.random.default_rng(6)
    x = generator.normal(size=400)
    y = x + 2 * generator.normal(size=400)

    def width(n: int, confidence: float) -> float:
        result = spearman(x[:n], y[:n], confidence=confidence)
        return result.high - result.low

    assert width(400, 0.5) < width(400, 0.95) < width(50, 0.95)
    assert spearman(x, y, seed=1) == spearman(x, y, seed=1)
    assert spearman(x, y, seed=1) != spearman(x, y, seed=2)


def test_the_size_of_a_batch_does_not_change_the_number_of_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    counts = correlation._counts

    def counting(generator: np.random.Generator, size: int, n: int) -> np.ndarray:
        sizes.append(size)
        return counts(generator, size, n)

    monkeypatch.setattr(correlation, "_counts", counting)
    monkeypatch.setattr(correlation, "BATCH_ENTRIES", 700)
    spearman(np.arange(10.0), np.arange(10.0), resamples=150)
    assert sizes == [70, 70, 10]


@pytest.mark.parametrize(
    ("x", "y", "reason", "n", "missing"),
    [
        ([], [], "0 pair", 0, 0),
        ([1, 2], [2, 1], "2 pair", 2, 0),
        ([1, 2, np.nan, 4], [1, 2, 3, np.inf], "2 pair", 2, 2),
        ([1, 1, 1, 1], [1, 2, 3, 4], "the same everywhere", 4, 0),
        ([1, 2, 3, 4], [5, 5, 5, 5], "the same everywhere", 4, 0),
    ],
)
def test_an_undefined_rho_says_why(x: list[float], y: list[float], reason: str, n: int, missing: int) -> None:
    result = spearman(x, y)
    assert (result.coefficient, result.low, result.high) == (None, None, None)
    assert reason in (result.reason or "")
    assert (result.n, result.missing) == (n, missing)


def test_values_that_are_not_finite_are_left_out_and_counted() -> None:
    result = spearman([1, 2, 3, np.nan, 4], [2, 1, 4, 0, np.inf])
    assert (result.n, result.missing) == (3, 2)
    assert result.coefficient == pytest.approx(0.5)
