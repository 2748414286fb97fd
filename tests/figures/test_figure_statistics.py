"""Groups worked by hand."""

import pandas as pd
import pytest
from synthetic_scores import synthetic_scores

from u2a_core.errors import ScoringError
from u2a_core.figures.statistics import low_reward_groups, low_token_counts, reward_threshold


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
