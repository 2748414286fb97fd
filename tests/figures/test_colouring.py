"""Figure 1 in other colours: the shape keeps the sign, and the legend says what colours mean."""

from typing import Any

import numpy as np
import pytest
from synthetic_scores import synthetic_scores

from u2a_core.figures.colouring import CATEGORIES, colour_groups
from u2a_core.figures.influence import InfluenceOptions, influence_figure, paper_influence_figure, with_selected
from u2a_core.figures.palette import ink
from u2a_core.store.scores import Scores


def drawn(figure: Any) -> list[Any]:
    return [trace for trace in figure.data if trace.customdata is not None]


@pytest.mark.parametrize("draw", [influence_figure, paper_influence_figure])
@pytest.mark.parametrize("mode", ["category", "low-reward"])
def test_points_have_the_colour_of_their_group_and_the_shape_of_their_sign(draw: Any, mode: Any) -> None:
    scores = synthetic_scores(400)
    groups = colour_groups(scores.table, mode, "light", ink("paper", "light"))
    code = dict(zip(scores.table["id"], groups.codes, strict=True))
    delta = dict(zip(scores.table["id"], scores.table["delta_pa"], strict=True))
    figure = draw(scores, InfluenceOptions(colour=mode))
    for trace in drawn(figure):
        assert [code[one] for one in trace.customdata] == list(trace.marker.color)
        assert all((delta[one] > 0) == (trace.marker.symbol == "circle") for one in trace.customdata)
        assert not trace.showlegend
        steps = dict(trace.marker.colorscale)  # the last colour at each edge
        edges = (np.arange(len(groups.names)) + 1) / len(groups.names)
        assert [steps[edge] for edge in edges][-1] == groups.colours[-1]
    legend = [trace.name for trace in figure.data if trace.customdata is None]
    assert sum(int(name.rsplit(": ", 1)[1]) for name in legend[2:]) == 400
    assert legend[0].startswith("helps")


def test_low_reward_groups_are_fifths_worked_by_hand() -> None:
    table = synthetic_scores(6).table.assign(low_reward_proportion=[0.0, 0.19, 0.2, 0.79, 1.0, None])
    groups = colour_groups(table, "low-reward", "dark", ink("paper", "dark"))
    assert groups.codes.tolist() == [0, 0, 1, 3, 4, 5]
    assert groups.names[0] == "0 to 20 %"
    assert len(groups.colours) == 6


def test_many_categories_share_the_last_colour() -> None:
    names = [f"c{i % 9}" for i in range(90)] + ["c3"] * 5
    table = synthetic_scores(95).table.assign(category=names)
    groups = colour_groups(table, "category", "light", ink("paper", "light"))
    assert groups.names[0] == "c3"
    assert groups.names[-1] == "3 other categories"
    assert groups.colours == CATEGORIES["light"]
    assert np.bincount(groups.codes).tolist() == [15, 10, 10, 10, 10, 10, 30]


def test_names_of_categories_are_text() -> None:
    scores = synthetic_scores(3)
    hostile = Scores(scores.table.assign(category="<b>x</b>"), scores.metadata)
    names = [trace.name for trace in influence_figure(hostile, InfluenceOptions(colour="category")).data]
    assert "&lt;b&gt;x&lt;/b&gt;: 3" in names


def test_selected_points_stand_out_in_a_copy() -> None:
    figure = influence_figure(synthetic_scores(40))
    before = figure.to_json()
    ids = {trace.customdata[0] for trace in drawn(figure)}
    marked = with_selected(figure, ids)
    assert [tuple(trace.selectedpoints) for trace in drawn(marked)] == [(0,), (0,)]
    assert figure.to_json() == before
    assert with_selected(figure, set()) is figure
