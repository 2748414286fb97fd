"""The Pareto figure against numbers by hand: gains and losses, sizes, symbols, intervals, and the front."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from u2a_core.figures.palette import ink
from u2a_core.figures.pareto import (
    LARGEST,
    SMALLEST,
    ParetoPoint,
    Window,
    diameter,
    frame_of,
    front,
    pareto_figure,
    pareto_points,
    spread,
)
from u2a_core.store.comparison import Comparison

ROWS = {  # kind; mean and half of J and of the retain NLL; seconds, seconds of the search, cost with it
    "original": ("original", (-0.7, None), (1.0, None), None, None, None),
    "dpo": ("baseline", (-0.4, 0.02), (1.2, 0.05), 10.0, None, 1.0),
    "ga-uniform": ("uniform", (-0.6, 0.03), (1.5, 0.1), 2.5, None, 0.25),
    "ga-u2a": ("u2a", (-0.5, 0.01), (1.1, None), 2.5, 37.5, 4.0),
    "retrain": ("baseline", (None, None), (None, None), None, None, None),
}


def comparison() -> Comparison:
    rows = []
    for name, (kind, gain, loss, seconds, search, cost) in ROWS.items():
        title = "GA < $x$" if name == "ga-uniform" else name.upper()
        values = {
            "alignment": gain, "retain_nll": loss, "seconds": (seconds, None), "search_seconds": (search, None),
            "cost_search": (cost, None),
        }  # fmt: skip
        for metric, (mean, half) in values.items():
            rows.append({"row": name, "title": title, "kind": kind, "metric": metric, "mean": mean, "half": half})
    table = pd.DataFrame(rows).astype({"mean": float, "half": float})
    return Comparison("one", Path("nowhere"), table, {})


def point(row: str, gain: float, loss: float) -> ParetoPoint:
    return ParetoPoint(row, row, "uniform", gain, loss, None, None, None, None)


def traces(figure: Any) -> dict[str, Any]:
    return {one.name: one for one in figure.data}


def test_points_are_differences_to_the_original() -> None:
    found = {one.row: one for one in pareto_points(comparison())}
    assert list(found) == ["original", "dpo", "ga-uniform", "ga-u2a"], "a row without values has no point"
    assert (found["original"].gain, found["original"].loss) == (0, 0)
    assert found["dpo"].gain == pytest.approx(0.3)
    assert found["dpo"].loss == pytest.approx(0.2)
    assert (found["dpo"].gain_half, found["dpo"].loss_half) == (0.02, 0.05)
    assert (found["ga-u2a"].seconds, found["ga-u2a"].cost) == (40, 4)
    assert found["ga-u2a"].loss_half is None
    assert found["original"].seconds is None


def test_the_figure_has_these_points_with_their_symbols_sizes_and_bars() -> None:
    colours = ink("paper", "light")
    figure = pareto_figure(pareto_points(comparison()))
    found = traces(figure)
    assert list(found) == ["not beaten in both", "U2A weights", "uniform weights", "baseline", "original policy"]
    expected = {
        "U2A weights": ("diamond", colours.helps, 0.2, 0.1, LARGEST),
        "uniform weights": ("circle", colours.neutral, 0.1, 0.5, LARGEST / 4),
        "baseline": ("square", colours.hurts, 0.3, 0.2, LARGEST / 2),
        "original policy": ("cross", colours.text, 0.0, 0.0, SMALLEST),
    }
    for name, (symbol, colour, gain, loss, size) in expected.items():
        trace = found[name]
        assert (trace.marker.symbol, trace.marker.color) == (symbol, colour)
        assert trace.y[0] == pytest.approx(gain)
        assert trace.x[0] == pytest.approx(loss)
        assert trace.marker.size[0] == pytest.approx(size)
    assert list(found["baseline"].error_y.array) == [0.02]
    assert list(found["baseline"].error_x.array) == [0.05]
    assert list(found["baseline"].customdata) == ["dpo"]
    line = found["not beaten in both"]
    assert list(line.x) == pytest.approx([0, 0.1, 0.2])
    assert list(line.y) == pytest.approx([0, 0.2, 0.3])


def test_titles_are_escaped_and_hover_tells_the_numbers() -> None:
    figure = pareto_figure(pareto_points(comparison()))
    trace = traces(figure)["uniform weights"]
    assert "GA &lt; &#36;x&#36;" in [one.text for one in figure.layout.annotations]
    assert "J +0.1" in trace.hovertext[0]
    assert "± 0.03 nats per pair" in trace.hovertext[0]
    assert "0.25 times DPO" in trace.hovertext[0]


def test_every_name_stands_in_the_margin_with_a_line_to_its_mark() -> None:
    figure = pareto_figure(pareto_points(comparison()))
    found = {one.text: one for one in figure.layout.annotations}
    assert list(found) == ["DPO", "GA-U2A", "GA &lt; &#36;x&#36;", "ORIGINAL"], "from the best gain down"
    assert (found["DPO"].x, found["DPO"].y) == (pytest.approx(0.2), pytest.approx(0.3))
    assert {one.ax for one in found.values()} == {figure.layout.xaxis.range[1]}
    heights = [one.ay for one in found.values()]
    assert all(above > below for above, below in pairwise(heights))


def test_a_row_far_from_all_others_does_not_squeeze_them() -> None:
    near = [point(str(place), 0.1 + 0.01 * place, 0.02 * place) for place in range(5)]
    far = replace(point("far < $y$", 0.4, 2.0), gain_half=0.5)
    window = frame_of([*near, far])
    assert window.left < 0 < 0.08 < window.right < 0.1
    assert window.low < 0.1 < 0.14 < window.high < 0.16
    assert not window.holds(far)
    figure = pareto_figure([*near, far])
    assert list(figure.layout.xaxis.range) == [window.left, window.right]
    told = "Beyond the frame: far &lt; &#36;y&#36; (J +0.4"
    assert told in figure.layout.title.subtitle.text
    assert len(figure.layout.annotations) == 5
    assert "Beyond" not in pareto_figure(near).layout.title.subtitle.text


def test_the_frame_holds_intervals_and_a_single_point() -> None:
    wide = replace(point("wide", 0.1, 0.0), gain_half=0.2, loss_half=0.3)
    window = frame_of([wide, point("other", 0.1, 0.1)])
    assert window.left < -0.3 < 0.3 < window.right
    assert window.low < -0.1 < 0.3 < window.high
    alone = frame_of([point("one", 0.5, 0.5)])
    assert alone == Window(0.4, 0.6, 0.4, 0.6)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([0.9, 0.5, 0.1], [0.9, 0.5, 0.1]),
        ([0.5, 0.5, 0.5], [0.5, 0.3, 0.1]),
        ([0.1, 0.1, 0.1], [0.4, 0.2, 0.0]),
        ([2.0, 1.0], [1.0, 0.8]),
        ([0.5], [0.5]),
        ([], []),
        ([0.5] * 11, [1 - place / 10 for place in range(11)]),
    ],
)
def test_names_are_spread_no_further_than_they_must(wanted: list[float], found: list[float]) -> None:
    assert spread(wanted, 0.2, 0.0, 1.0) == pytest.approx(found)


def test_the_front_holds_what_no_other_beats() -> None:
    best, cheap, beaten, tie, same = (
        point("best", 0.5, 0.4), point("cheap", 0.1, -0.1), point("beaten", 0.3, 0.5), point("tie", 0.1, 0.2),
        point("same", 0.5, 0.4),
    )  # fmt: skip
    assert front([best, beaten, tie, cheap]) == [cheap, best]
    assert front([best, same]) == [best, same]
    assert front([]) == []
    assert front([replace(best, gain=0.4), best]) == [best]


def test_the_area_grows_with_the_seconds() -> None:
    assert diameter(50, 100) ** 2 == pytest.approx(LARGEST**2 / 2)
    assert diameter(1e-9, 100) == diameter(None, 100) == diameter(0, 0) == SMALLEST
    assert math.isclose(diameter(100, 100), LARGEST)


def test_the_figure_is_the_same_every_time_and_says_when_it_is_empty() -> None:
    first, second = (pareto_figure(pareto_points(comparison()), "okabe-ito", "dark").to_json() for _ in range(2))
    assert first == second
    assert first != pareto_figure(pareto_points(comparison())).to_json()
    empty = pareto_figure([])
    assert "nothing to draw" in empty.layout.annotations[0].text
