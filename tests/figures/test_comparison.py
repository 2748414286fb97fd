"""Figures of page Compare: every sample is in a bar, what is pointed out is hatched, and hostile names stay text."""

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from u2a_core.evaluation.forgetting import OTHER, RETAIN, UNLEARNED
from u2a_core.figures.comparison import (
    MOST_BINS,
    MOST_PAIRS,
    Axis,
    Row,
    histogram_rows,
    nll_change_figure,
    pairs_figure,
)
from u2a_core.figures.reward_distribution import delta_pa_figure, reward_figure

HOSTILE = "<b>x</b>$y$"
NAMES = ("original policy", HOSTILE)
NUMBERS = np.random.default_rng(0)


def bars(figure: go.Figure) -> dict[str, tuple[int, int]]:
    """By vertical axis: samples in plain bars and in hatched ones."""
    found: dict[str, tuple[int, int]] = {}
    for trace in figure.data:
        plain, hatched = found.get(trace.yaxis or "y", (0, 0))
        count = int(np.sum(trace.y))
        found[trace.yaxis or "y"] = (plain, hatched + count) if trace.marker.pattern.shape else (plain + count, hatched)
    return found


def texts(figure: go.Figure) -> str:
    return json.dumps([figure.layout.to_plotly_json(), *(trace.hovertext for trace in figure.data if trace.hovertext)],
                      default=str)  # fmt: skip


def changes() -> pd.DataFrame:
    rise = {UNLEARNED: [0.0, 0.1, 0.5, 0.6], OTHER: [0.0, 0.2, 0.9], RETAIN: [-0.1, 0.8]}
    rows = [(kind, value) for kind, values in rise.items() for value in values]
    return pd.DataFrame(rows, columns=["kind", "rise"])


def test_rises_are_counted_row_by_row_and_pointed_out_beyond_the_limits() -> None:
    figure = nll_change_figure(changes(), 0.2, 0.5, "paper", "light")
    assert bars(figure) == {"y": (2, 2), "y2": (2, 1), "y3": (1, 1)}
    assert {trace.marker.pattern.fillmode for trace in figure.data if trace.marker.pattern.shape} == {"overlay"}
    labels = [note.text for note in figure.layout.annotations]
    assert labels == [
        "<b>unlearned</b>, 4: median +0.300",
        "<b>other candidates</b>, 3: median +0.200",
        "<b>retain data</b>, 2: median +0.350",
    ]


def test_a_kind_without_samples_has_no_row() -> None:
    figure = nll_change_figure(changes()[lambda table: table["kind"] != RETAIN], 0.2, 0.5, "paper", "light")
    assert set(bars(figure)) == {"y", "y2"}


def test_far_values_go_into_the_outermost_bars_and_none_is_lost() -> None:
    values = np.concatenate([NUMBERS.normal(size=5000), [1e6, -1e6]])
    figure = histogram_rows([Row("a", values)], Axis("x", cut=0.001), "t", ["l"], "paper", "dark")
    assert bars(figure)["y"] == (5002, 0)
    assert max(np.abs(figure.layout.xaxis.range)) < 5
    assert len(figure.data[0].x) <= MOST_BINS + 2


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [-2.0, -2.0, -2.0], [1e-12, 2e-12]])
def test_few_or_equal_values_are_drawn(values: list[float]) -> None:
    figure = histogram_rows([Row("a", np.array(values)), Row("none", np.array([]))], Axis("x"), "t", ["l"], "paper",
                            "light")  # fmt: skip
    assert bars(figure)["y"] == (len(values), 0)
    assert figure.layout.annotations[1].text == "<b>none</b>, 0"


def test_pairs_are_sorted_by_what_happened_to_them() -> None:
    left, right = np.array([-1.0, 1.0, 0.5, 0.0]), np.array([0.5, -0.5, 0.5, 0.1])
    figure = pairs_figure(["a", "b", "c", "d"], left, right, NAMES, "okabe-ito", "light")
    drawn = {trace.name: list(trace.customdata) for trace in figure.data}
    assert drawn == {"gained: 2": ["a", "d"], "lost: 1": ["b"], "as before: 1": ["c"]}
    gained = figure.data[0]
    assert (list(gained.x), list(gained.y)) == ([-1.0, 0.0], [1.5, 0.1])
    assert "Newly preferred: 2 pairs; no longer: 1" in figure.layout.title.subtitle.text
    assert len({trace.marker.symbol for trace in figure.data}) == 3  # shape tells them apart, too


def test_very_many_pairs_are_thinned_and_that_is_said() -> None:
    count = 3 * MOST_PAIRS
    values = NUMBERS.normal(size=count)
    figure = pairs_figure([str(one) for one in range(count)], values, values + 1, NAMES, "paper", "light")
    assert sum(len(trace.x) for trace in figure.data) == MOST_PAIRS
    assert f"{MOST_PAIRS:,} of {count:,} are drawn" in figure.layout.title.subtitle.text
    assert figure.data[0].name == f"gained: {count:,}"


def test_rewards_stand_one_below_the_other_and_those_without_are_counted() -> None:
    figure = reward_figure(np.array([1.0, np.nan, 3.0]), np.array([2.0, 2.0, 5.0]), NAMES, "paper", "light")
    assert bars(figure) == {"y": (2, 0), "y2": (3, 0)}
    assert "not drawn: 1 and 0" in figure.layout.title.subtitle.text
    empty = reward_figure(np.array([np.nan]), np.array([np.nan]), NAMES, "paper", "light")
    assert "u2a reward" in empty.layout.annotations[0].text


def test_delta_pa_of_both_sets_and_of_the_rest() -> None:
    scores = pd.DataFrame({"id": list("abcde"), "delta_pa": [1.0, 2.0, 3.0, -4.0, 5.0]})
    figure = delta_pa_figure(scores, [("one", {"a", "b"}), (HOSTILE, {"b", "c", "d"})], "paper", "light")
    assert bars(figure) == {"y": (2, 0), "y2": (3, 0), "y3": (1, 0)}
    assert [note.text.split(":")[0] for note in figure.layout.annotations][2] == "<b>not unlearned</b>, 1"


def test_hostile_names_are_no_markup() -> None:
    values = np.array([1.0, 2.0])
    for figure in (
        reward_figure(values, values, NAMES, "paper", "light"),
        pairs_figure([HOSTILE, "b"], values, values[::-1], NAMES, "paper", "light"),
        delta_pa_figure(pd.DataFrame({"id": ["a"], "delta_pa": [1.0]}), [(HOSTILE, ["a"])], "paper", "light"),
    ):
        said = texts(figure)
        assert "<b>x</b>" not in said
        assert "$y$" not in said
        assert "&lt;b&gt;x&lt;/b&gt;" in said


def test_the_same_numbers_give_the_same_figure() -> None:
    one, two = (nll_change_figure(changes(), 0.2, 0.5, "paper", "light").to_json() for _ in range(2))
    assert one == two


def test_dark_and_light_differ() -> None:
    one, two = (nll_change_figure(changes(), 0.2, 0.5, "paper", theme) for theme in ("light", "dark"))
    assert one.layout.paper_bgcolor != two.layout.paper_bgcolor
