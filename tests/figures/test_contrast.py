"""What makes a selection special."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu
from synthetic_scores import synthetic_scores

from u2a_core.figures.contrast import CHANCE, CLEAR, COLUMNS, TOO_FEW, contrasts


def row_of(found: pd.DataFrame, column: str, value: str = "") -> pd.Series:
    return found[found["column"].str.startswith(column) & (found["value"] == value)].iloc[0]


def test_numbers_agree_with_scipy() -> None:
    table = synthetic_scores(300).table
    selected = (table["delta_pa"] > 0.002).to_numpy()
    found = contrasts(table, selected)
    for column, name in (("n_tokens", "response tokens"), ("low_reward_proportion", "low-reward"), ("nll", "NLL")):
        values = table[column].to_numpy(dtype=float)
        ours, others = values[selected], values[~selected]
        u = mannwhitneyu(ours, others).statistic
        row = row_of(found, name)
        assert row["effect"] == pytest.approx(2 * u / (len(ours) * len(others)) - 1)
        pooled = np.sqrt(
            (ours.var(ddof=1) * (len(ours) - 1) + others.var(ddof=1) * (len(others) - 1)) / (len(values) - 2)
        )
        assert row["standardised"] == pytest.approx((ours.mean() - others.mean()) / pooled)
        assert (row["selected"], row["rest"]) == pytest.approx((ours.mean(), others.mean()))
        assert (row["n_selected"], row["n_rest"]) == (len(ours), len(others))


def test_the_verdict_is_that_of_the_exact_level() -> None:
    """Each verdict follows from scipy's asymptotic p-value times the number of tests."""
    table = synthetic_scores(260, seed=2).table
    selected = np.random.default_rng(1).random(260) < 0.3
    selected |= (table["low_reward_proportion"] > 0.45).to_numpy()
    found = contrasts(table, selected)
    tested = (found["verdict"] != TOO_FEW).sum()
    verdicts = set()
    for column, name in (("delta_pa", "ΔPA"), ("n_tokens", "response tokens"), ("reward", "mean"), ("nll", "NLL")):
        values = table[column].to_numpy(dtype=float)
        p = mannwhitneyu(values[selected], values[~selected], use_continuity=False, method="asymptotic").pvalue
        verdict = row_of(found, name)["verdict"]
        assert verdict == (CLEAR if p * tested < 0.05 else CHANCE)
        verdicts.add(verdict)
    assert verdicts == {CLEAR, CHANCE}


def test_a_category_is_compared_by_its_shares() -> None:
    table = synthetic_scores(200).table
    selected = (table["category"] == "privacy").to_numpy() & (np.arange(200) < 150)
    row = row_of(contrasts(table, selected), "category", "privacy")
    assert row["selected"] == 1
    assert row["rest"] == pytest.approx(10 / 170)
    assert row["effect"] == pytest.approx(1 - 10 / 170)
    assert row["verdict"] == CLEAR
    assert np.isnan(row["standardised"])


def test_what_is_special_comes_first_and_constants_are_left_out() -> None:
    table = synthetic_scores(150).table
    selected = (table["severity"] == 3).to_numpy()
    found = contrasts(table, selected)
    assert found["column"][0] == "severity"
    assert found["effect"].abs().is_monotonic_decreasing
    assert list(found.columns) == list(COLUMNS)
    assert not {"prompt tokens cut", "score of the chosen answer", "tag"} & set(found["column"])


def test_tags_count_once_a_row() -> None:
    tags = [["a", "b"] if i % 2 else ["b"] for i in range(60)]
    table = synthetic_scores(60).table.assign(tags=tags)
    row = row_of(contrasts(table, np.arange(60) % 2 == 1), "tag", "a")
    assert (row["selected"], row["rest"], row["effect"]) == (1, 0, 1)


def test_few_rows_tell_nothing() -> None:
    table = synthetic_scores(200).table
    found = contrasts(table, np.arange(200) < 4)
    assert set(found["verdict"]) == {TOO_FEW}
    assert set(found["n_selected"]) == {4}
    one = contrasts(table.iloc[:2], np.array([True, False]))
    assert set(one["verdict"]) == {TOO_FEW}


def test_chance_is_rarely_called_clear() -> None:
    generator, clear = np.random.default_rng(5), 0
    table = synthetic_scores(120, tokens=8).table
    for _ in range(40):
        clear += (contrasts(table, generator.random(120) < 0.3)["verdict"] == CLEAR).any()
    assert clear <= 6  # 5 % of 40 is 2


def test_missing_values_are_left_out_and_counted() -> None:
    table = synthetic_scores(40).table
    table.loc[:9, "reward"] = np.nan
    row = row_of(contrasts(table, np.arange(40) < 20), "mean token reward")
    assert (row["n_selected"], row["n_rest"]) == (10, 20)


@pytest.mark.parametrize("selected", [np.zeros(30, dtype=bool), np.ones(30, dtype=bool)])
def test_one_side_alone_has_no_contrast(selected: np.ndarray) -> None:
    found = contrasts(synthetic_scores(30).table, selected)
    assert found.empty
    assert list(found.columns) == list(COLUMNS)
