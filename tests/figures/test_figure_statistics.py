"""Spearman against scipy and against plain resampling; groups worked by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from synthetic_scores import synthetic_scores

from u2a_core.errors import ScoringError
from u2a_core.figures import statistics
from u2a_core.figures.statistics import low_reward_groups, low_token_counts, reward_threshold, spearman


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
    assert statistics._weighted_spearman(counts, codes, orders) == pytest.approx(expected, abs=1e-12)


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
    counts = statistics._counts

    def counting(generator: np.random.Generator, size: int, n: int) -> np.ndarray:
        sizes.append(size)
        return counts(generator, size, n)

    monkeypatch.setattr(statistics, "_counts", counting)
    monkeypatch.setattr(statistics, "BATCH_ENTRIES", 700)
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


def samples(*rows: tuple[str, float, list[float] | None, str | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["id", "delta_pa", "token_rewards", "category"])


def test_groups_worked_by_hand() -> None:
    table = samples(
        ("d", 0.7, [-1, -1, -1, -1], "x"),  # 4 of 4 low
        ("a", 0.1, [1, 1], "x"),  # 0 of 2
        ("c", 0.5, [-1, 1], "y"),  # 1 of 2
        ("b", 0.3, [-1, 1, 1, 1], None),  # 1 of 4
    )
    groups = low_reward_groups(table, threshold=0.0, group_size=2)
    assert groups["group"].tolist() == [1, 2]
    assert groups["ids"].tolist() == [["a", "b"], ["c", "d"]]
    assert groups["proportion"].tolist() == pytest.approx([1 / 6, 5 / 6])  # tokens pooled, not a mean of proportions
    assert groups["delta_pa"].tolist() == pytest.approx([0.2, 0.6])
    assert groups["standard_error"].tolist() == pytest.approx([0.1, 0.1])  # sd 0.1414 over sqrt 2

    by_category = low_reward_groups(table, threshold=0.0, by="category")
    assert by_category["label"].tolist() == ["(no category)", "y", "x"]
    assert by_category["ids"].tolist() == [["b"], ["c"], ["a", "d"]]
    assert by_category["proportion"].tolist() == pytest.approx([1 / 4, 1 / 2, 4 / 6])
    assert by_category["standard_error"].isna().tolist() == [True, True, False]


def test_a_token_at_the_threshold_is_not_low() -> None:
    counts = low_token_counts(samples(("a", 0.0, [-1.0, 0.0, 1.0], None)), threshold=0.0)
    assert counts[["low", "tokens"]].to_numpy().tolist() == [[1, 3]]


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (8, [4, 4]),
        (9, [4, 5]),  # 1 is smaller than half a group
        (10, [4, 4, 2]),  # 2 is half a group
        (11, [4, 4, 3]),
        (1, [1]),  # no full group to join
        (3, [3]),
        (0, []),
    ],
)
@pytest.mark.parametrize("by", ["proportion", "random"])
def test_the_remainder_joins_or_stays_and_no_sample_is_lost(n: int, sizes: list[int], by: str) -> None:
    table = samples(*((f"{i:02}", float(i), [-1.0] * i + [1.0] * (n - i), None) for i in range(n)))
    groups = low_reward_groups(table, threshold=0.0, group_size=4, by=by, seed=3)
    assert sorted(groups["size"]) == sorted(sizes)
    assert sorted(name for ids in groups["ids"] for name in ids) == table["id"].tolist()
    assert groups["proportion"].is_monotonic_increasing


def test_random_groups_follow_the_seed_and_not_the_row_order() -> None:
    table = synthetic_scores(100).table
    shuffled = table.sample(frac=1, random_state=0)
    for by in ("random", "proportion"):
        first = low_reward_groups(table, 0.0, 10, by, seed=1)
        pd.testing.assert_frame_equal(first, low_reward_groups(shuffled, 0.0, 10, by, seed=1))
    other = low_reward_groups(table, 0.0, 10, "random", seed=2)
    assert other["ids"].tolist() != low_reward_groups(table, 0.0, 10, "random", seed=1)["ids"].tolist()


def test_samples_without_rewards_are_in_no_group() -> None:
    table = samples(("a", 1.0, None, None), ("b", 2.0, [1.0], None))
    assert low_reward_groups(table, 0.0)["ids"].tolist() == [["b"]]


def test_the_threshold_is_a_quantile_of_all_tokens_pooled() -> None:
    table = samples(("a", 0.0, [0.0, 1.0, 2.0, 3.0], None), ("b", 0.0, [4.0], None), ("c", 0.0, None, None))
    assert reward_threshold(table, 0.25) == 1.0
    assert reward_threshold(table, 1.0) == 4.0
    with pytest.raises(ScoringError, match="no token rewards"):
        reward_threshold(table.iloc[2:])


def test_a_group_size_below_one_is_refused() -> None:
    with pytest.raises(ScoringError, match="group size 0"):
        low_reward_groups(synthetic_scores(5).table, 0.0, group_size=0)
