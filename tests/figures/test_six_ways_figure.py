"""Scalability and sustainability: what is drawn, by hand; shapes, dashes, one scale; the same JSON twice."""

import sys
from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))  # points of six ways live with the store's tests
from six_ways_tables import NAMES, write_six_ways

from u2a_core.bundle import open_bundle
from u2a_core.figures.palette import ink
from u2a_core.figures.six_ways import held_by_limits, six_ways_figure, six_ways_shown
from u2a_core.store.six_ways import WAYS, SixWays, read_six_ways

RETAIN, FORGOTTEN = NAMES.index("retain_nll"), NAMES.index("unlearned_nll")


@pytest.fixture
def ways(tmp_path: Path) -> SixWays:
    bundle = replace(open_bundle("demo"), results_folder=tmp_path)
    write_six_ways(bundle, "one", stopped="over <b>5</b>")
    return read_six_ways(bundle, "one")


def lines(figure: go.Figure) -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    """Where every line stands, by axis and kind: `circle` and `diamond` after, with `dash` of the original."""
    found = {}
    for trace in figure.data:
        retain = trace.legendgroup == "retain_nll"
        kind = ("circle" if retain else "diamond") + (" dash" if trace.line.dash else "")
        assert trace.line.dash in (None, "dash" if retain else "dashdot")
        assert trace.marker.symbol == (None if "dash" in kind else kind)
        found[trace.xaxis, kind] = (list(trace.x), list(trace.y))
    return found


def test_every_point_is_drawn_against_size_and_requests(ways: SixWays) -> None:
    assert lines(six_ways_figure(ways)) == {
        ("x", "circle dash"): ([4, 8], [RETAIN] * 2),
        ("x", "circle"): ([4, 8], [RETAIN + 10, RETAIN + 20]),
        ("x", "diamond dash"): ([4, 8], [FORGOTTEN] * 2),
        ("x", "diamond"): ([4, 8], [FORGOTTEN + 10, FORGOTTEN + 20]),
        ("x2", "circle dash"): ([1, 2, 3], [RETAIN] * 3),
        ("x2", "circle"): ([1, 2, 3], [RETAIN + 10, RETAIN + 20, RETAIN + 30]),
        ("x2", "diamond dash"): ([1, 2, 3], [FORGOTTEN] * 3),
        ("x2", "diamond"): ([1, 2, 3], [FORGOTTEN + 10, FORGOTTEN + 20, FORGOTTEN + 30]),
    }


def test_runs_that_a_limit_held_are_named_once(ways: SixWays, tmp_path: Path) -> None:
    assert held_by_limits(ways) == ["Scalability, 8 candidates: over <b>5</b>; its weights are those of step 8."]
    bundle = replace(open_bundle("demo"), results_folder=tmp_path / "other")
    write_six_ways(bundle, "one")
    assert held_by_limits(read_six_ways(bundle, "one")) == []


def test_axes_have_units_ticks_at_the_points_and_one_scale(ways: SixWays) -> None:
    layout = six_ways_figure(ways).layout
    assert layout.yaxis.range == layout.yaxis2.range
    low, high = layout.yaxis.range
    assert low < min(RETAIN, FORGOTTEN) < max(RETAIN, FORGOTTEN) + 30 < high
    assert layout.yaxis.title.text == layout.yaxis2.title.text == "nats per token"
    assert (layout.xaxis.tickvals, layout.xaxis2.tickvals) == ((4, 8), (1, 2, 3))
    assert (layout.xaxis.title.text, layout.xaxis2.title.text) == ("candidates unlearned at once", "requests so far")
    assert [note.text for note in layout.annotations] == [
        "<b>Scalability: growing forget sets</b>", "<b>Sustainability: one request upon another</b>",
    ]  # fmt: skip


def test_the_legend_names_each_line_once(ways: SixWays) -> None:
    named = [trace.name for trace in six_ways_figure(ways).data if trace.showlegend]
    assert named == [
        "utility, original policy", "utility: NLL of retain data",
        "forgetting, original policy", "forgetting: NLL of what was unlearned",
    ]  # fmt: skip


def test_labels_tell_the_numbers_and_escape_what_is_not_ours(ways: SixWays) -> None:
    figure = six_ways_figure(ways)
    growing = next(one for one in figure.data if one.xaxis == "x" and one.marker.symbol == "diamond")
    assert growing.hovertext[0] == (
        f"<b>4 candidates</b><br>forgetting: NLL of what was unlearned: {FORGOTTEN} → {FORGOTTEN + 10} nats per token "
        "(worse)<br>weights of step 4 of 8"
    )
    assert growing.hovertext[1].endswith("<br>stopped: over &lt;b&gt;5&lt;/b&gt;")
    asked = next(one for one in figure.data if one.xaxis == "x2" and one.marker.symbol == "circle")
    assert [text.split("<br>")[0] for text in asked.hovertext] == [
        "<b>3 candidates in 1 request</b>", "<b>6 candidates in 2 requests</b>", "<b>8 candidates in 3 requests</b>",
    ]  # fmt: skip


def test_without_retain_data_it_says_so(ways: SixWays) -> None:
    table = ways.table.copy()
    table.loc[table["metric"] == "retain_nll", ["before", "after"]] = None
    figure = six_ways_figure(replace(ways, table=table))
    assert [note.text for note in figure.layout.annotations].count("no retain examples to measure") == 2
    assert lines(figure)["x", "circle"] == ([4, 8], [None, None])
    assert lines(figure)["x2", "diamond"][1] == [FORGOTTEN + 10, FORGOTTEN + 20, FORGOTTEN + 30]


def test_two_drawings_are_the_same_to_the_letter(ways: SixWays) -> None:
    again = replace(ways, table=ways.table.copy())
    assert six_ways_figure(ways).to_json() == six_ways_figure(again).to_json()


def test_palette_and_theme(ways: SixWays) -> None:
    colours = ink("okabe-ito", "dark")
    figure = six_ways_figure(ways, "okabe-ito", "dark")
    assert figure.layout.paper_bgcolor == colours.paper
    assert {trace.line.color for trace in figure.data} == {colours.helps, colours.hurts}


def test_the_plain_table_has_all_six_ways_with_their_definitions(ways: SixWays) -> None:
    shown = six_ways_shown(ways)
    assert len(shown) == len(ways.table)
    assert list(dict.fromkeys(shown["way"])) == [f"{way.number}. {way.title}" for way in WAYS]
    assert list(dict.fromkeys(shown["the way asks"])) == [way.definition for way in WAYS]
    last = shown.iloc[-1]
    assert (last["forgotten"], last["measure"]) == ("8 candidates in 3 requests", "Title of unlearned_nll")
    assert (last["original"], last["after"]) == (FORGOTTEN, FORGOTTEN + 30)
    assert last["definition"] == "What unlearned_nll is."
    assert shown["forgotten"].iloc[0] == "8 candidates"
