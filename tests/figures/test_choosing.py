"""Which rows are meant: shapes over the drawing, thresholds, filters."""

from typing import Any

import numpy as np
import pytest
from synthetic_scores import synthetic_scores

from u2a_core.figures.choosing import (
    MEASURES,
    NO_CATEGORY,
    Filters,
    beyond,
    inside,
    kept,
    measure,
    present_categories,
    within,
)
from u2a_core.figures.influence import InfluenceOptions, influence_figure
from u2a_core.figures.polar import RADIUS_MODES, places


def inside_by_winding(x: np.ndarray, y: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """A second way for shapes that do not cross themselves: the angle under which the outline is seen turns around."""
    angles = np.arctan2(outline[:, 1][None] - y[:, None], outline[:, 0][None] - x[:, None])
    turns = np.diff(np.concatenate([angles, angles[:, :1]], axis=1), axis=1)
    return np.abs(((turns + np.pi) % (2 * np.pi) - np.pi).sum(1)) > np.pi


def test_a_lasso_holds_what_it_goes_around() -> None:
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=(2, 5000))
    turns = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    size = 1 + 0.6 * np.sin(5 * turns)  # a star, not convex
    outline = np.stack([size * np.cos(turns), size * np.sin(turns)], axis=1)
    found = inside(x, y, outline[:, 0], outline[:, 1])
    assert found.tolist() == inside_by_winding(x, y, outline).tolist()
    assert 0 < found.sum() < len(x)


def test_the_order_of_points_and_the_way_round_do_not_matter() -> None:
    generator = np.random.default_rng(4)
    x, y = generator.normal(size=(2, 300))
    outline = generator.normal(size=(2, 12))  # crosses itself: even and odd
    found = inside(x, y, *outline)
    order = generator.permutation(300)
    assert inside(x[order], y[order], *outline).tolist() == found[order].tolist()
    assert inside(x, y, *outline[:, ::-1]).tolist() == found.tolist()
    assert inside(x, y, *np.roll(outline, 5, axis=1)).tolist() == found.tolist()


def test_a_lasso_through_a_points_height_counts_each_edge_once() -> None:
    x, y = np.array([0.0, -2.0, 2.0]), np.array([0.0, 0.0, 0.0])
    diamond = np.array([1.0, 0.0, -1.0, 0.0]), np.array([0.0, 1.0, 0.0, -1.0])  # corners at the points' own height
    assert inside(x, y, *diamond).tolist() == [True, False, False]


@pytest.mark.parametrize("mode", RADIUS_MODES)
def test_shapes_reach_rows_that_are_not_drawn(mode: Any) -> None:
    scores = synthetic_scores(900, tokens=2)
    table, spots = scores.table, places(scores.table, mode)
    third = spots.limit / 3
    turns = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = {"xref": "x", "yref": "y", "x": (third * np.cos(turns)).tolist(), "y": (third * np.sin(turns)).tolist()}
    found = within([circle], spots, table["delta_pa"].to_numpy())
    assert found.tolist() == (spots.radius < third).tolist()
    figure = influence_figure(scores, InfluenceOptions(radius=mode, max_points=100))
    drawn = {name for trace in figure.data if trace.customdata is not None for name in trace.customdata}
    assert set(table["id"][found]) - drawn


def test_boxes_include_their_edges_and_shapes_add_up() -> None:
    table = synthetic_scores(50).table
    spots, delta = places(table), table["delta_pa"].to_numpy()
    first, second = spots.x[3], spots.x[7]
    one = {"xref": "x", "x": [first, first], "y": [spots.limit, -spots.limit]}
    two = {"xref": "x", "x": [second, second], "y": [-spots.limit, spots.limit]}
    assert np.flatnonzero(within([one, two], spots, delta)).tolist() == [3, 7]
    empty = {"xref": "x", "x": [], "y": []}
    assert not within([empty], spots, delta).any()


def test_a_shape_over_the_histogram_means_a_range_of_delta_pa() -> None:
    table = synthetic_scores(80).table
    delta = table["delta_pa"].to_numpy()
    shape = {"xref": "x2", "yref": "y2", "x": [0.001, -0.004, 0.0], "y": [1, 2, 3]}
    assert within([shape], places(table), delta).tolist() == ((delta >= -0.004) & (delta <= 0.001)).tolist()


def test_thresholds_and_shares_worked_by_hand() -> None:
    values = np.array([3.0, 1.0, np.nan, 2.0, 2.0])
    assert beyond(values, "at least", 2.0).tolist() == [True, False, False, True, True]
    assert beyond(values, "at most", 1.5).tolist() == [False, True, False, False, False]
    assert beyond(values, "highest %", 25).tolist() == [True, False, False, False, False]
    assert beyond(values, "highest %", 26).tolist() == [True, False, False, True, True]  # two of four; the tie is in
    assert beyond(values, "lowest %", 1).tolist() == [False, True, False, False, False]
    assert beyond(values, "lowest %", 100).tolist() == [True, True, False, True, True]
    assert not beyond(values, "highest %", 0).any()
    assert not beyond(np.array([np.nan]), "highest %", 50).any()


def test_a_share_of_distinct_values_is_that_share() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    for share in (0.1, 7, 30):
        assert beyond(values, "highest %", share).sum() == 10 * share
        assert values[beyond(values, "lowest %", share)].max() < np.quantile(values, share / 100)


def test_measures_are_columns_of_the_scores() -> None:
    table = synthetic_scores(20).table
    for name in MEASURES:
        assert len(measure(table, name)) == 20
    assert measure(table, "|ΔPA|").tolist() == np.abs(table["delta_pa"]).tolist()


def test_filters_agree_with_a_look_at_every_row() -> None:
    table = synthetic_scores(400).table
    filters = Filters(("privacy", NO_CATEGORY), (1.0, 2.0), (14, 20), (0.1, 0.5), "QUESTION 1")
    expected = [
        (row.category in ("privacy", None) or row.category != row.category)
        and 1 <= row.severity <= 2
        and 14 <= row.n_tokens <= 20
        and 0.1 <= row.low_reward_proportion <= 0.5
        and "question 1" in row.prompt.lower()
        for row in table.itertuples()
    ]
    assert kept(table, filters).tolist() == expected
    assert 0 < sum(expected) < 400
    assert filters.active == 5


def test_no_filter_lets_all_through_and_missing_values_are_in_no_range() -> None:
    table = synthetic_scores(6).table.assign(severity=[None, 1.0, 2.0, None, 0.0, 1.5])
    assert kept(table, Filters()).all()
    assert Filters().active == 0
    assert kept(table, Filters(severity=(0.0, 1.5))).tolist() == [False, True, False, False, True, True]
    assert kept(table, Filters(text="(.*")).sum() == 0  # text, not a pattern
    assert kept(table, Filters(text=table["id"][4])).tolist() == [False] * 4 + [True, False]
    assert kept(table, Filters(text="ANSWER 2")).tolist() == [False, False, True, False, False, False]


def test_categories_are_named_and_none_comes_last() -> None:
    table = synthetic_scores(12).table
    assert present_categories(table) == ["insult", "privacy", "self-harm", "violence", NO_CATEGORY]
    assert present_categories(table.dropna(subset=["category"]))[-1] == "violence"
