"""The trust figure: a panel an estimator and kind of case, every case a mark, words that cannot be markup."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from u2a_core.evaluation.agreement import CaseTable, compare, make_case
from u2a_core.evaluation.verdict import verdict
from u2a_core.figures.palette import ink
from u2a_core.figures.trust import COLUMNS, trust_figure
from u2a_core.store.trust import TrustReport

NOTHING = compare([], deterministic=True)


def report(groups: CaseTable, singles: CaseTable = NOTHING) -> TrustReport:
    names = dict.fromkeys([*groups.agreements, *singles.agreements])
    return TrustReport(
        bundle_hash="abc",
        objective_settings={"name": "npo"},
        unlearning={"optimizer": "sgd", "steps": 8},
        estimators={name: {} for name in names},
        groups=groups,
        singles=singles,
        verdict=verdict(groups, singles),
        notes=(),
        measured="2026-11-22T10:00:00+00:00",
        versions={},
        seconds=1.0,
    )


def table(*rows: tuple[float, float], size: int = 2) -> CaseTable:
    """One case per (predicted, realised), by the estimator first_order; deterministic."""
    made = [make_case([f"g{i}c{k}" for k in range(size)], [y], {"first_order": x}) for i, (x, y) in enumerate(rows)]
    return compare(made, deterministic=True)


def random_table(m: int, estimators: int, repetitions: int = 1, seed: int = 0) -> CaseTable:
    generator = np.random.default_rng(seed)
    made = [
        make_case(
            [f"c{i}"], generator.normal(size=repetitions), {f"e{k}": generator.normal() for k in range(estimators)}
        )
        for i in range(m)
    ]
    return compare(made, deterministic=repetitions == 1)


def points(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.mode == "markers"]


def lines(figure: go.Figure, name: str) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.mode == "lines" and trace.name == name]


def texts(figure: go.Figure) -> str:
    title = figure.layout.title
    names = [trace.name for trace in figure.data]
    return "\n".join([title.text, title.subtitle.text, *names, *(one.text for one in figure.layout.annotations)])


def axis_of(figure: go.Figure, trace: go.Scatter, letter: str) -> Any:
    return figure.layout[f"{letter}axis{(trace[f'{letter}axis'] or letter)[1:]}"]


def test_every_case_is_one_mark_where_it_belongs() -> None:
    rows = [(0.1, 0.3), (0.2, -0.1), (-0.1, 0.0), (0.4, 0.9)]
    figure = trust_figure(report(table(*rows)))
    seen = {number: (x, y) for t in points(figure) for number, x, y in zip(t.customdata, t.x, t.y, strict=True)}
    assert {number: seen[number] for number in sorted(seen)} == dict(enumerate(rows, start=1))
    for trace in points(figure):
        assert axis_of(figure, trace, "x").title.text == "predicted ΔPA, nats per pair"
        assert axis_of(figure, trace, "y").title.text == "realised ΔPA, nats per pair"


def test_the_sign_of_what_was_realised_is_colour_shape_and_word() -> None:
    figure = trust_figure(report(table((0.1, 0.3), (0.2, -0.1), (-0.1, 0.0), (0.4, 0.9))))
    colours = ink("paper", "light")
    assert {trace.name: (trace.marker.symbol, trace.marker.color, len(trace.x)) for trace in points(figure)} == {
        "helps (ΔPA &gt; 0, realised)": ("circle", colours.helps, 2),
        "hurts (ΔPA &lt; 0, realised)": ("diamond", colours.hurts, 1),
        "no effect (ΔPA = 0, realised)": ("square-open", colours.neutral, 1),
    }


@pytest.mark.parametrize("estimators", [1, 2, COLUMNS, COLUMNS + 1])
def test_there_is_a_panel_an_estimator_and_kind_and_all_cases_are_in_each(estimators: int) -> None:
    figure = trust_figure(report(random_table(15, estimators), random_table(11, 2, seed=1)))
    in_panel: dict[str, int] = {}
    for trace in points(figure):
        in_panel[trace.xaxis] = in_panel.get(trace.xaxis, 0) + len(trace.x)
    assert sorted(in_panel.values()) == [11] * 2 + [15] * estimators
    assert len([name for name in figure.layout if name.startswith("xaxis")]) == estimators + 2  # and no empty one
    places = {(axis.domain, figure.layout[f"yaxis{i or ''}"].domain) for i, axis in enumerate_axes(figure)}
    assert len(places) == estimators + 2
    for k in range(estimators):
        assert f"<b>e{k}</b>, 15 groups" in texts(figure)
    assert "<b>e1</b>, 11 single examples" in texts(figure)


def enumerate_axes(figure: go.Figure) -> list[tuple[int, Any]]:
    names = [name for name in figure.layout if name.startswith("xaxis")]
    return [(int(name[5:] or 0), figure.layout[name]) for name in names]


def test_each_sign_and_line_is_in_the_legend_once() -> None:
    figure = trust_figure(report(random_table(15, 3), random_table(11, 2)))
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(named) == sorted({trace.name for trace in figure.data})


def test_the_fitted_line_is_the_least_squares_line() -> None:
    found = table((0.0, -1.0), (1.0, 1.0), (2.0, 7.0), (3.0, 5.0))  # slope 2.4 through (1.5, 3)
    (fitted,) = lines(trust_figure(report(found)), "least squares")
    assert list(fitted.x) == [0.0, 3.0]
    assert list(fitted.y) == pytest.approx([-0.6, 6.6])


def test_the_identity_is_drawn_within_the_panel_or_not_at_all() -> None:
    crossing = trust_figure(report(table((0.0, -1.0), (1.0, 1.0), (2.0, 7.0), (3.0, 5.0))))
    (identity,) = lines(crossing, "realised = predicted")
    assert list(identity.x) == list(identity.y)
    (low, high), (bottom, top) = axis_of(crossing, identity, "x").range, axis_of(crossing, identity, "y").range
    assert list(identity.x) == [max(low, bottom), min(high, top)]
    assert low < 0.0 < 3.0 < high
    assert bottom < -1.0 < 7.0 < top
    far = trust_figure(report(table((100.0, 1.0), (101.0, 2.0), (102.0, 1.5))))
    assert lines(far, "realised = predicted") == []
    assert len(lines(far, "least squares")) == 1


def test_a_panel_is_titled_with_its_numbers_and_the_ceiling_is_noted() -> None:
    found = random_table(30, 1, repetitions=2)
    written = texts(trust_figure(report(found)))
    rho, slope = found.agreements["e0"].rho, found.agreements["e0"].slope
    minus = str.maketrans("-", "−")
    assert f"ρ = {rho.value:.2f} [{rho.low:.2f}, {rho.high:.2f}]".translate(minus) in written
    assert f"slope {slope.value:.3g} [{slope.low:.3g}, {slope.high:.3g}]".translate(minus) in written
    assert f"Noise ceiling: groups run twice agree with themselves to ρ = {found.ceiling.rho.value:.2f}".translate(
        minus
    ) in written.replace("<br>", " ")
    assert "Measured 2026-11-22 with NPO, 8 SGD steps · ΔPA &gt; 0: unlearning helps" in written
    assert verdict(found, NOTHING).split("\n")[0] in written.replace("<br>", " ")


def test_bars_are_standard_errors_of_repeated_runs() -> None:
    made = [make_case([str(i)], [i, i + 2.0], {"first_order": i}) for i in range(1, 5)]  # sd √2 of two: error 1
    figure = trust_figure(report(compare(made, deterministic=False)))
    (trace,) = points(figure)
    assert list(trace.error_y.array) == pytest.approx([1.0] * 4)
    assert list(trace.y) == [2.0, 3.0, 4.0, 5.0]
    assert axis_of(figure, trace, "y").range[0] < 1.0
    assert axis_of(figure, trace, "y").range[1] > 6.0
    assert "Bars: ± 1 standard error" in texts(figure)
    assert "mean of 2 runs: +1.00, +3.00" in trace.hovertext[0]
    once = trust_figure(report(table((1.0, 1.0), (2.0, 2.0), (3.0, 3.0))))
    assert points(once)[0].error_y.array is None
    assert "Bars" not in texts(once)


def test_a_label_names_the_case_both_values_and_some_candidates() -> None:
    figure = trust_figure(report(table((0.5, -0.25), (1.0, 2.0), (2.0, 1.0), size=7)))
    label = next(trace for trace in points(figure) if trace.marker.symbol == "diamond").hovertext[0]
    assert label.split("<br>") == [
        "<b>Group 1 of 3</b>: 7 candidates",
        "predicted ΔPA +0.500 nats per pair",
        "realised ΔPA −0.250 nats per pair: unlearning hurt",
        *(f"g0c{k}" for k in range(5)),
        "and 2 more",
    ]
    single = trust_figure(report(NOTHING, table((0.5, 1.0), (1.0, 2.0), (2.0, 1.0), size=1)))
    assert points(single)[0].hovertext[0].startswith("<b>Single example 1 of 3</b>: 1 candidate<br>")


def test_cases_without_both_values_are_not_drawn_and_counted() -> None:
    rows = [(0.1, 0.3), (math.nan, 0.2), (0.3, math.inf), (0.4, 0.9), (0.5, 1.0)]
    figure = trust_figure(report(table(*rows)))
    assert sorted(n for trace in points(figure) for n in trace.customdata) == [1, 4, 5]
    assert "<b>first order</b>, 3 of 5 groups" in texts(figure)


def test_an_undefined_agreement_says_why_and_what_there_is_is_drawn() -> None:
    figure = trust_figure(report(table((0.1, 0.3), (0.2, 0.1))))
    assert sum(len(trace.x) for trace in points(figure)) == 2
    assert lines(figure, "least squares") == []
    assert "undefined: only 2 pair(s)" in texts(figure)
    nowhere = trust_figure(report(table((math.nan, 0.3))))
    assert points(nowhere) == []
    assert "undefined: only 0 pair(s)" in texts(nowhere)
    assert "NaN" not in nowhere.to_json()


def test_constant_values_still_have_an_axis() -> None:
    figure = trust_figure(report(table((0.0, 5.0), (0.0, 5.0), (0.0, 5.0))))
    (trace,) = points(figure)
    assert axis_of(figure, trace, "x").range == (-1.0, 1.0)
    assert axis_of(figure, trace, "y").range == (0.0, 10.0)


def test_nothing_measured_says_what_to_do() -> None:
    figure = trust_figure(report(NOTHING))
    assert figure.data == ()
    assert "u2a trust BUNDLE" in figure.layout.annotations[0].text


def test_text_of_a_data_set_cannot_be_markup_or_formulae() -> None:
    nasty = "<b>id</b> $x$ &lt;i&gt;"
    made = [make_case([f"{nasty}{i}"], [i], {f"<i>e</i> $y$ {k}": i**k for k in (1, 2)}) for i in range(1, 5)]
    groups = compare(made, deterministic=True)
    figure = trust_figure(replace(report(groups), objective_settings={"name": "<b>n</b>"}))
    hover = [label for trace in points(figure) for label in trace.hovertext]
    assert all("&lt;b&gt;id&lt;/b&gt; &#36;x&#36; &amp;lt;i&amp;gt;" in label for label in hover)
    for text in (texts(figure), *hover):
        for markup in ("<i>", "$", "<b>id", "<B>N", " &lt;i&gt;"):
            assert markup not in text
    assert "&lt;i&gt;e&lt;/i&gt;" in texts(figure)


def test_two_builds_are_equal_and_themes_differ_in_colours_only() -> None:
    made = report(random_table(15, 2, repetitions=2), random_table(11, 2))
    light, dark = trust_figure(made), trust_figure(made, "dark")
    assert light.to_json() == trust_figure(made).to_json()
    assert light.layout.paper_bgcolor == ink("paper", "light").paper
    assert dark.layout.paper_bgcolor == ink("paper", "dark").paper
    swapped = dark.to_json()
    for name, colour in vars(ink("paper", "dark")).items():
        swapped = swapped.replace(f'"{colour}"', f'"{getattr(ink("paper", "light"), name)}"')
    assert json.loads(swapped) == json.loads(light.to_json())
