"""The histogram of token rewards: every token counted once, on its side of τ; what a click means."""

import numpy as np
import pytest

from u2a_core.figures.palette import ink
from u2a_core.figures.reward_histogram import chosen_threshold, reward_histogram

COLOURS = ink("okabe-ito", "dark")
REWARDS = np.random.default_rng(0).normal(size=5000)


@pytest.mark.parametrize("threshold", [-0.7, 0.0, 2.2, -99.0, 99.0])
def test_every_token_is_counted_on_its_side(threshold: float) -> None:
    low, high = reward_histogram(REWARDS, threshold, COLOURS).data
    assert sum(low.y) == sum(one < threshold for one in REWARDS)
    assert sum(low.y) + sum(high.y) == len(REWARDS)
    counts, edges = np.histogram(REWARDS, len(low.x))
    np.testing.assert_array_equal(low.y + high.y, counts)
    np.testing.assert_allclose(low.customdata, edges[1:])
    assert low.marker.pattern.shape
    assert not high.marker.pattern.shape


def test_the_threshold_is_drawn_and_told() -> None:
    figure = reward_histogram(REWARDS, -0.7, COLOURS)
    (line,) = figure.layout.shapes
    assert line.x0 == line.x1 == -0.7
    told = figure.layout.annotations[0].text
    assert told == f"τ = −0.7; {(REWARDS < -0.7).mean():.1%} of 5,000 tokens are low"


def test_equal_rewards_can_be_drawn_and_two_calls_are_equal() -> None:
    low, high = reward_histogram(np.full(3, 2.0), 2.0, COLOURS).data
    assert (sum(low.y), sum(high.y)) == (0, 3)
    assert reward_histogram(REWARDS, 0, COLOURS).to_json() == reward_histogram(REWARDS, 0, COLOURS).to_json()


def test_a_click_or_a_box_chooses_its_right_end() -> None:
    assert chosen_threshold([{"customdata": 1.5}, {"customdata": -2.0}], []) == 1.5
    assert chosen_threshold([{"customdata": 1.5}], [{"x": [0.75, -3.0]}]) == 0.75
    assert chosen_threshold([], []) is None
