"""Figure 2: groups, marks, the threshold in words, and both correlations whatever they are."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from synthetic_scores import synthetic_metadata, synthetic_scores

from u2a_core.evaluation.correlation import spearman
from u2a_core.figures.low_reward import LowRewardOptions, low_reward_cut, low_reward_figure
from u2a_core.figures.statistics import low_reward_groups, low_token_counts
from u2a_core.store.scores import Scores


def marks(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.mode == "markers"]


def texts(figure: go.Figure) -> str:
    title = figure.layout.title
    return "\n".join([title.text or "", title.subtitle.text or "", *(note.text for note in figure.layout.annotations)])


def scores_of(*rows: tuple[float, int], **columns: Any) -> Scores:
    """One sample per (ΔPA, number of low tokens out of 4)."""
    rewards = [[-1.0] * low + [1.0] * (4 - low) for _, low in rows]
    table = synthetic_scores(len(rows)).table.assign(
        id=[f"s{i}" for i in range(len(rows))], delta_pa=[delta for delta, _ in rows], token_rewards=rewards, **columns
    )
    return Scores(table, synthetic_metadata(len(rows)))


def test_marks_stand_at_proportion_and_mean_with_standard_errors() -> None:
    scores = synthetic_scores(200)
    options = LowRewardOptions(group_size=20)
    figure = low_reward_figure(scores, options)
    groups = low_reward_groups(scores.table, 0.0, 20).set_index("group")
    seen = [number for trace in marks(figure) for number in trace.customdata]
    assert sorted(seen) == list(range(1, 11))
    for trace in marks(figure):
        for number, x, y, error in zip(trace.customdata, trace.x, trace.y, trace.error_y.array, strict=True):
            row = groups.loc[number]
            assert (x, y, error) == (row["proportion"], row["delta_pa"], row["standard_error"])


def test_shape_is_the_half_and_colour_the_sign() -> None:
    scores = scores_of((-1.0, 0), (1.0, 1), (-1.0, 2), (1.0, 3))
    figure = low_reward_figure(scores, LowRewardOptions(group_size=1))
    seen = {trace.customdata[0]: (trace.marker.symbol, trace.name.split(":")[0]) for trace in marks(figure)}
    assert seen == {
        1: ("square", "low half, hurts"),
        2: ("square", "low half, helps"),
        3: ("circle", "high half, hurts"),
        4: ("circle", "high half, helps"),
    }
    colours = {trace.customdata[0]: trace.marker.color for trace in marks(figure)}
    assert colours[1] == colours[3]
    assert colours[2] == colours[4]
    assert colours[1] != colours[2]


def test_the_middle_group_of_an_odd_number_is_a_square() -> None:
    figure = low_reward_figure(scores_of((1.0, 0), (1.0, 2), (1.0, 4)), LowRewardOptions(group_size=1))
    assert {trace.marker.symbol: len(trace.x) for trace in marks(figure)} == {"square": 2, "circle": 1}


def test_a_group_of_one_has_no_error_bar_and_a_zero_group_is_neither() -> None:
    figure = low_reward_figure(scores_of((0.0, 0), (1.0, 2)), LowRewardOptions(group_size=1))
    assert [trace.name for trace in marks(figure)] == ["low half, no effect: 1", "high half, helps: 1"]
    assert all(np.isnan(trace.error_y.array).all() for trace in marks(figure))
    assert "NaN" not in figure.to_json()


def test_both_correlations_are_reported_with_their_intervals() -> None:
    scores = synthetic_scores(300)
    written = texts(low_reward_figure(scores, LowRewardOptions(group_size=20)))
    groups, samples = low_reward_groups(scores.table, 0.0, 20), low_token_counts(scores.table, 0.0)
    for rows in (groups, samples):
        result = spearman(rows["proportion"], rows["delta_pa"])
        numbers = [f"{value:+.2f}".replace("-", "−") for value in (result.coefficient, result.low, result.high)]
        assert f"ρ = {numbers[0]} (95% interval {numbers[1]} to {numbers[2]}, n = {len(rows)}" in written


def test_a_correlation_against_the_paper_is_reported_too() -> None:
    scores = scores_of(*((-float(low), low) for low in range(5)), *((-float(low) - 0.1, low) for low in range(5)))
    written = texts(low_reward_figure(scores, LowRewardOptions(group_size=1)))
    assert "groups ρ = −0.98" in written


def test_an_undefined_correlation_says_why_and_few_groups_are_doubted() -> None:
    same = scores_of((1.0, 2), (2.0, 2), (3.0, 2), (4.0, 2))
    written = texts(low_reward_figure(same, LowRewardOptions(group_size=1)))
    assert "groups undefined (one of the two quantities is the same everywhere)" in written
    few = scores_of((1.0, 1), (2.0, 2), (3.0, 3), (4.0, 4))
    assert "n = 4; so few make it too narrow" in texts(low_reward_figure(few, LowRewardOptions(group_size=1)))


def test_the_trend_is_the_least_squares_line() -> None:
    scores = scores_of((1.0, 0), (3.0, 2), (5.0, 4))
    trend = next(t for t in low_reward_figure(scores, LowRewardOptions(group_size=1)).data if t.mode == "lines")
    assert trend.x.tolist() == [0.0, 1.0]
    assert trend.y.tolist() == pytest.approx([1.0, 5.0])


@pytest.mark.parametrize(
    ("options", "recorded", "expected", "words"),
    [
        (LowRewardOptions(threshold=0.5, quantile=0.1), 0.0, 0.5, "absolute"),
        (LowRewardOptions(quantile=0.5), 0.0, 1.0, "the 0.5 quantile of all token rewards"),
        (LowRewardOptions(), -0.3, -0.3, "recorded with the scores"),
        (LowRewardOptions(), None, 0.5, "the 0.25 quantile of all token rewards"),
    ],
)
def test_where_the_threshold_comes_from(
    options: LowRewardOptions, recorded: float | None, expected: float, words: str
) -> None:
    scores = scores_of((1.0, 0), (2.0, 1), (3.0, 2))  # 3 tokens at -1, 9 at +1; the 0.25 quantile lies at 2.75
    scores = Scores(scores.table, scores.metadata | {"low_reward_threshold": recorded})
    threshold, origin = low_reward_cut(scores, options)
    assert threshold == pytest.approx(expected)
    assert origin == words
    figure = low_reward_figure(scores, LowRewardOptions(options.threshold, options.quantile, group_size=1))
    assert f"τ = {threshold:.4g}, {origin}".replace("-", "−") in figure.layout.xaxis.title.text.replace("-", "−")


def test_axes_name_the_mean_the_unit_and_the_zero_line_is_drawn() -> None:
    figure = low_reward_figure(synthetic_scores(200))
    assert "mean of its members, nats per pair" in figure.layout.yaxis.title.text
    zero = figure.layout.shapes[0]
    assert (zero.type, zero.y0, zero.y1) == ("line", 0, 0)
    assert "unlearning helps" in texts(figure)


def test_too_few_groups_say_what_to_do() -> None:
    figure = low_reward_figure(synthetic_scores(40), LowRewardOptions(group_size=64))
    assert not figure.data
    assert "Only one group of 64 fits in 40 samples" in texts(figure)
    assert "--group-size 5" in texts(figure)
    assert low_reward_figure(synthetic_scores(40), LowRewardOptions(group_size=5)).data
    one = scores_of((1.0, 1), (2.0, 2), category=["x", "x"])
    assert "one category" in texts(low_reward_figure(one, LowRewardOptions(by="category")))


def test_no_rewards_and_no_rows_say_what_to_do() -> None:
    scores = synthetic_scores(10)
    bare = Scores(scores.table.assign(token_rewards=None), scores.metadata)
    assert "no token rewards" in texts(low_reward_figure(bare))
    assert "has a reward model" in texts(low_reward_figure(bare))
    assert "no negative example" in texts(low_reward_figure(Scores(scores.table.iloc[:0], synthetic_metadata(0))))


def test_samples_without_rewards_are_counted_not_hidden() -> None:
    scores = scores_of((1.0, 0), (2.0, 1), (3.0, 2))
    scores.table.at[0, "token_rewards"] = None
    written = texts(low_reward_figure(scores, LowRewardOptions(group_size=1)))
    assert "1 samples without token rewards left out" in written
    assert "2 samples in 2 groups" in written


def test_hover_tells_size_and_a_few_ids_escaped() -> None:
    scores = scores_of(*((1.0, low) for low in (0, 0, 0, 0, 0, 0, 0, 4)))
    scores = Scores(scores.table.assign(id=[f"<b>{i}</b>" for i in range(8)]), scores.metadata)
    two = marks(low_reward_figure(scores, LowRewardOptions(group_size=4)))[0].hovertext[0]
    assert "Group 1 of 2" in two
    assert "4 samples, 0.0% of their tokens low-reward" in two
    assert "&lt;b&gt;0&lt;/b&gt;" in two
    assert "<b>0" not in two


def test_many_ids_are_cut_with_a_count_and_categories_are_escaped() -> None:
    scores = scores_of(*((1.0, low % 4) for low in range(16)), category=["<i>x</i>"] * 8 + ["y"] * 8)
    label = next(
        text
        for trace in marks(low_reward_figure(scores, LowRewardOptions(by="category")))
        for text in trace.hovertext
        if "&lt;i&gt;x&lt;/i&gt;" in text
    )
    assert "and 3 more" in label
    assert "<i>" not in label


@pytest.mark.parametrize("by", ["proportion", "random", "category"])
def test_two_calls_give_the_same_json_and_leave_the_table(by: Any) -> None:
    scores = synthetic_scores(200)
    before = scores.table.copy(deep=True)
    options = LowRewardOptions(group_size=20, by=by)
    assert low_reward_figure(scores, options).to_json() == low_reward_figure(synthetic_scores(200), options).to_json()
    pd.testing.assert_frame_equal(scores.table, before)
