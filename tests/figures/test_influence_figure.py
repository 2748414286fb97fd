"""Figure 1: where points stand, what they say, and which are drawn."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from synthetic_scores import synthetic_metadata, synthetic_scores

from u2a_core.figures.influence import InfluenceOptions, influence_figure, paper_influence_figure
from u2a_core.figures.polar import RADIUS_MODES, drawn_rows, extremes, places, stable_hashes
from u2a_core.store.scores import Scores


def scores_of(*deltas: float, **columns: Any) -> Scores:
    """Scores with these ΔPA, ids s0, s1, …"""
    table = synthetic_scores(len(deltas)).table.assign(
        delta_pa=list(deltas), id=[f"s{i}" for i in range(len(deltas))], **columns
    )
    return Scores(table, synthetic_metadata(len(deltas)))


def points(figure: go.Figure) -> list[go.Scattergl]:
    return [trace for trace in figure.data if trace.type.startswith("scatter")]


def texts(figure: go.Figure) -> str:
    """Everything that is written in the figure, hover labels apart."""
    annotations = [note.text for note in figure.layout.annotations]
    return "\n".join([figure.layout.title.text or "", figure.layout.title.subtitle.text or "", *annotations])


def test_linear_radius_is_the_size_of_delta_pa() -> None:
    deltas = [0.5, -0.25, 0.125, 0.0]
    figure = influence_figure(scores_of(*deltas))
    for trace in points(figure):
        for x, y, name in zip(trace.x, trace.y, trace.customdata, strict=True):
            assert math.hypot(x, y) == pytest.approx(abs(deltas[int(name[1:])]))


def test_the_angle_is_the_hash_and_nothing_else() -> None:
    # blake2b of "s0", 16 bytes; the first 8, little endian, over 2^64: fixed for ever, or saved lassos move.
    assert stable_hashes(["s0"])[0, 0] == np.uint64(7459913119689086274)
    first = places(scores_of(0.5, -0.25, 0.125).table)
    other = places(scores_of(3.0, 2.0, 1.0).table.iloc[::-1])
    assert first.angle.tolist() == other.angle[::-1].tolist()
    assert np.arctan2(first.y, first.x) % (2 * math.pi) == pytest.approx(first.angle)


def test_angles_fill_the_circle_evenly() -> None:
    counts = np.histogram(places(synthetic_scores(4000, tokens=2).table).angle, bins=8, range=(0, 2 * math.pi))[0]
    assert counts.min() > 400
    assert counts.max() < 600


def test_signed_log_and_rank_worked_by_hand() -> None:
    table = scores_of(9.0, -1.0, 0.5, 0.0).table  # median of 9, 1, 0.5 is 1
    assert places(table, "signed-log").radius == pytest.approx([1.0, math.log10(2), math.log10(1.5), 0.0])
    assert places(table, "rank").radius == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert places(scores_of(2.0, -2.0, 1.0).table, "rank").radius == pytest.approx([1.0, 1.0, 1 / 3])


@pytest.mark.parametrize("mode", RADIUS_MODES)
@pytest.mark.parametrize("scale", [1e-7, 1.0, 3e4])
def test_rings_are_few_labelled_and_hold_every_point(mode: Any, scale: float) -> None:
    table = synthetic_scores(300).table.assign(delta_pa=lambda frame: frame["delta_pa"] * scale)
    spots = places(table, mode)
    radii = [ring.radius for ring in spots.rings]
    assert 3 <= len(radii) <= 6
    assert radii == sorted(radii)
    assert min(np.diff(radii)) > spots.limit / 8
    assert spots.radius.max() <= spots.limit * (1 + 1e-9)
    assert radii[-1] == pytest.approx(spots.limit)


def test_a_ring_stands_where_its_label_says() -> None:
    table = synthetic_scores(300).table
    magnitude = table["delta_pa"].abs()
    for ring in places(table, "linear").rings:
        assert float(ring.label) == pytest.approx(ring.radius)
    for ring in places(table, "signed-log").rings:
        assert ring.radius == pytest.approx(math.log10(1 + float(ring.label) / magnitude.median()))
    for ring in places(table, "rank").rings:
        share, value = ring.label.split("%: ")
        assert ring.radius == float(share) / 100
        assert (magnitude <= float(value) * 1.005).mean() >= ring.radius - 0.01


def test_sign_is_colour_shape_and_word_with_counts() -> None:
    figure = influence_figure(scores_of(0.5, 0.25, -0.5, 0.0))
    seen = {trace.name: (trace.marker.symbol, trace.marker.color, len(trace.x)) for trace in points(figure)}
    assert list(seen) == ["helps (ΔPA &gt; 0): 2", "hurts (ΔPA &lt; 0): 1", "no effect (ΔPA = 0): 1"]
    assert [symbol for symbol, _, _ in seen.values()] == ["circle", "diamond", "square-open"]
    assert len({colour for _, colour, _ in seen.values()}) == 3
    assert [count for _, _, count in seen.values()] == [2, 1, 1]


def test_a_sign_that_does_not_occur_has_no_legend_entry() -> None:
    assert [trace.name for trace in points(influence_figure(scores_of(0.5, 1.0)))] == ["helps (ΔPA &gt; 0): 2"]


def test_many_points_alternate_and_each_sign_keeps_one_legend_entry() -> None:
    scores = synthetic_scores(650)
    traces = points(influence_figure(scores))
    assert len(traces) > 4
    assert [trace.legendgroup for trace in traces if trace.showlegend] == ["helps", "hurts"]
    drawn = [name for trace in traces for name in trace.customdata]
    assert sorted(drawn) == sorted(scores.table["id"])
    helps = set(scores.table.loc[scores.table["delta_pa"] > 0, "id"])
    assert all((name in helps) == (trace.legendgroup == "helps") for trace in traces for name in trace.customdata)


def test_the_title_names_estimator_objective_n_unit_and_sign() -> None:
    written = texts(influence_figure(synthetic_scores(20)))
    for words in ("implicit", "npo", "n = 20", "nats per pair", "ΔPA &gt; 0: unlearning helps", "no meaning"):
        assert words in written
    part = Scores(synthetic_scores(20).table.iloc[:5], synthetic_metadata(20))
    assert "n = 5 shown of 20" in texts(influence_figure(part))


def test_a_hover_label_tells_sign_unit_category_and_both_texts() -> None:
    label = points(influence_figure(scores_of(-0.0123, category=["privacy"])))[0].hovertext[0]
    for words in (
        "<b>s0</b>",
        "ΔPA −0.0123 nats per pair",
        "hurts",
        "low-reward tokens",
        "privacy",
        "Question 0",
        "Answer 0",
    ):
        assert words in label
    bare = points(influence_figure(scores_of(0.5, category=None, low_reward_proportion=np.nan)))[0].hovertext[0]
    assert "no token rewards" in bare
    assert "category" not in bare


@pytest.mark.parametrize("draw", [influence_figure, paper_influence_figure])
def test_text_of_a_data_set_cannot_be_markup(draw: Any) -> None:
    nasty = "<script>alert(1)</script> <b>bold</b> <a href='javascript:1'>x</a> &lt;i&gt; %{x}"
    scores = scores_of(0.5, prompt=[nasty], response=[nasty], category=[nasty])
    scores = Scores(scores.table.assign(id=["<b>id</b>"]), scores.metadata | {"estimator": nasty, "objective": nasty})
    figure = draw(scores, InfluenceOptions(labels=3))
    written = [points(figure)[0].hovertext[0], texts(figure)]
    for text in written:
        for tag in ("<script", "<a ", "<b>bold", "<b>id", " &lt;i&gt;"):
            assert tag not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_hover_label_is_bounded_and_wrapped() -> None:
    figure = influence_figure(scores_of(0.5, prompt=["word " * 5000], response=["x" * 50_000], category=["c" * 900]))
    label = points(figure)[0].hovertext[0]
    assert len(label) < 700
    assert max(len(line) for line in label.split("<br>")) <= 75
    assert "…" in label


def test_an_empty_table_says_why_and_what_to_do() -> None:
    empty = Scores(synthetic_scores(1).table.iloc[:0], synthetic_metadata(0))
    for draw in (influence_figure, paper_influence_figure):
        figure = draw(empty)
        assert not figure.data
        assert "no negative example" in texts(figure)
        assert "Loosen the filter" in texts(figure)


@pytest.mark.parametrize("mode", RADIUS_MODES)
def test_all_zero_and_single_rows_are_drawn(mode: Any) -> None:
    for deltas in ([0.0, 0.0], [0.5]):
        options = InfluenceOptions(radius=mode, distribution=True, labels=2)
        for draw in (influence_figure, paper_influence_figure):
            figure = draw(scores_of(*deltas), options)
            assert sum(len(trace.customdata) for trace in points(figure)) == len(deltas)
            assert "NaN" not in figure.to_json()


def test_above_the_limit_extremes_stay_the_rest_is_thinned_and_a_line_says_so() -> None:
    scores = synthetic_scores(2000, tokens=2)
    figure = influence_figure(scores, InfluenceOptions(max_points=300))
    drawn = {name for trace in points(figure) for name in trace.customdata}
    largest = scores.table.assign(size=scores.table["delta_pa"].abs()).nlargest(extremes(300), "size")["id"]
    assert len(drawn) == 300
    assert set(largest) <= drawn
    assert "300 of 2,000 points drawn" in texts(figure)
    assert figure.data[0].type == "heatmap"
    assert f"{(scores.table['delta_pa'] > 0).sum():,}" in points(figure)[0].name  # counts of all, not of the drawn
    whole = influence_figure(scores, InfluenceOptions(max_points=2000))
    assert "points drawn" not in texts(whole)
    assert "heatmap" not in {trace.type for trace in whole.data}


def test_the_thinning_is_stable_and_reaches_the_middle() -> None:
    table = synthetic_scores(2000, tokens=2).table
    kept = table["id"].iloc[drawn_rows(table, 300)]
    shuffled = table.sample(frac=1, random_state=1)
    assert set(kept) == set(shuffled["id"].iloc[drawn_rows(shuffled, 300)])
    below_median = set(table.loc[table["delta_pa"].abs() < table["delta_pa"].abs().median(), "id"])
    assert len(below_median & set(kept)) > 20
    angles = places(table).angle[drawn_rows(table, 300)]
    assert np.histogram(angles, bins=4, range=(0, 2 * math.pi))[0].min() > 45


def test_thinned_points_stand_where_they_stand_among_all() -> None:
    scores = synthetic_scores(500, tokens=2)
    few = influence_figure(scores, InfluenceOptions(max_points=100, radius="rank"))
    spots = places(scores.table, "rank")
    where = dict(zip(scores.table["id"], zip(spots.x, spots.y, strict=True), strict=True))
    for trace in points(few):
        for x, y, name in zip(trace.x, trace.y, trace.customdata, strict=True):
            assert (x, y) == where[name]


def test_the_paper_version_is_the_same_on_polar_axes() -> None:
    scores = scores_of(0.5, -0.25)
    helps, hurts = paper_influence_figure(scores).data
    spots = places(scores.table)
    assert {trace.type for trace in (helps, hurts)} == {"scatterpolar"}
    assert [helps.r[0], hurts.r[0]] == pytest.approx([0.5, 0.25])
    assert [helps.theta[0], hurts.theta[0]] == pytest.approx(np.degrees(spots.angle).tolist())


def test_palettes_and_themes_differ_in_colour_only() -> None:
    scores, seen = scores_of(0.5, -0.25), set()
    for palette in ("paper", "okabe-ito"):
        for theme in ("light", "dark"):
            figure = influence_figure(scores, InfluenceOptions(palette=palette, theme=theme))
            seen.add((figure.layout.paper_bgcolor, *(trace.marker.color for trace in figure.data)))
            assert [trace.marker.symbol for trace in figure.data] == ["circle", "diamond"]
    assert len(seen) == 4


def test_two_calls_give_the_same_json() -> None:
    options = InfluenceOptions(distribution=True, labels=5, max_points=200)
    for draw in (influence_figure, paper_influence_figure):
        assert draw(synthetic_scores(400), options).to_json() == draw(synthetic_scores(400), options).to_json()


def test_labels_name_the_largest_and_do_not_overlap() -> None:
    scores = scores_of(8.0, -4.0, 2.0, *([0.01] * 20))
    plain = len(influence_figure(scores).layout.annotations)
    named = influence_figure(scores, InfluenceOptions(labels=1)).layout.annotations
    assert len(named) == plain + 1
    assert any("s0 (+8.00)" in note.text for note in named)
    crowd = Scores(scores.table.assign(id=["same"] * len(scores.table)), scores.metadata)  # one angle: they pile up
    many = influence_figure(Scores(crowd.table.assign(delta_pa=8.0), crowd.metadata), InfluenceOptions(labels=20))
    assert len(many.layout.annotations) - plain <= 2


def test_the_distribution_counts_every_row_by_sign() -> None:
    scores = synthetic_scores(500)
    bars = [
        trace for trace in influence_figure(scores, InfluenceOptions(distribution=True)).data if trace.type == "bar"
    ]
    delta = scores.table["delta_pa"]
    assert [int(trace.y.sum()) for trace in bars] == [(delta > 0).sum(), (delta < 0).sum()]
    assert (bars[0].x > 0).all()
    assert (bars[1].x < 0).all()


def test_the_distribution_says_what_the_largest_tenth_carries() -> None:
    figure = influence_figure(scores_of(9.0, *([-1.0] * 9)), InfluenceOptions(distribution=True))
    assert "The largest 1 of 10<br>carry 50% of all |ΔPA|" in texts(figure)


def test_the_figure_is_plain_json_with_ids_as_strings() -> None:
    figure = json.loads(influence_figure(synthetic_scores(30)).to_json())
    assert all(isinstance(name, str) for trace in figure["data"] for name in trace["customdata"])
    assert figure["layout"]["yaxis"]["scaleanchor"] == "x"


def test_the_table_is_left_as_it_was() -> None:
    scores = synthetic_scores(50)
    before = scores.table.copy(deep=True)
    influence_figure(scores, replace(InfluenceOptions(), distribution=True, labels=3))
    pd.testing.assert_frame_equal(scores.table, before)
