"""The trust figure: predicted against realised ΔPA, a panel an estimator, for groups and for single examples.

Blue circle: the realised ΔPA is above 0, unlearning helped; red diamond: it hurt; bar: ± one standard error over
repeated runs. Dashed: realised = predicted. Solid: least squares, whose slope stands in the panel's title.
"""

import html
import math
import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from u2a_core.evaluation.agreement import Agreement, Case, CaseTable
from u2a_core.evaluation.verdict import GROUPS, SINGLES, ceiling_sentence, rho_text, slope_text, spoken
from u2a_core.figures.excerpt import short_id, signed
from u2a_core.figures.marks import KINDS
from u2a_core.figures.palette import SIGN_HELP, Ink, ThemeName, empty_figure, frame, headline, ink, note
from u2a_core.store.trust import TrustReport, circumstances

HOW_TO_READ = (
    "Each mark is a group of negative examples, or a single one, that was really unlearned. To the right, unlearning "
    "it was predicted to help preference alignment more; upwards, it really helped more. On the dashed line the "
    "prediction is exact; a steeper trend means that predictions are too small. Blue circles helped, red diamonds hurt."
)
COLUMNS = 4
PANEL_HEIGHT, PANEL_GAP, PANEL_TITLE, LINE = 260, 130, 64, 17  # pixels
LINE_LETTERS = 130
IDS_IN_HOVER = 5
MANY = 60  # points of a panel above which they are smaller

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """One estimator and one kind of case: what is drawn there, and its numbers."""

    estimator: str
    noun: str
    table: CaseTable
    row: int
    column: int

    @property
    def agreement(self) -> Agreement:
        """The estimator's agreement with the cases."""
        return self.table.agreements[self.estimator]

    @property
    def drawn(self) -> list[int]:
        """The cases that have both a prediction and a realised value, by their place in the table."""
        cases = enumerate(self.table.cases)
        return [i for i, case in cases if None not in (case.predicted.get(self.estimator), case.mean_realised)]

    def values(self) -> tuple[Floats, Floats, Floats]:
        """Predicted and realised ΔPA of the drawn cases and the standard error of realised over repetitions, NaN for
        one.
        """
        cases = [self.table.cases[i] for i in self.drawn]
        x, y = [case.predicted[self.estimator] for case in cases], [case.mean_realised for case in cases]
        return np.array(x, dtype=float), np.array(y, dtype=float), np.array([_standard_error(case) for case in cases])


def trust_figure(report: TrustReport, theme: ThemeName = "light") -> go.Figure:
    """The figure of a report; `customdata` is the number of the case in its table, from 1.

    Where nothing was measured, the figure says so and what to do.
    """
    colours = ink("paper", theme)
    panels = _panels(report)
    if not panels:
        return empty_figure("No case was measured", "Run `u2a trust BUNDLE`.", colours)
    rows = max(panel.row for panel in panels)
    inner = rows * PANEL_HEIGHT + (rows - 1) * PANEL_GAP
    columns = max(panel.column for panel in panels)
    places: list[list[dict[str, Any] | None]] = [
        [{} if _is_taken(panels, row, column) else None for column in _upto(columns)] for row in _upto(rows)
    ]
    figure = make_subplots(
        rows, columns, specs=places, vertical_spacing=PANEL_GAP / inner if rows > 1 else 0, horizontal_spacing=0.07
    )
    figure.update_layout(_layout(report, inner, colours))
    named: set[str] = set()
    for panel in panels:
        _draw(figure, panel, named, colours)
    return figure.add_annotation(_caption(report, colours))


def _panels(report: TrustReport) -> list[Panel]:
    """Groups first, then single examples, each in rows of `COLUMNS`."""
    panels: list[Panel] = []
    for table, noun in ((report.groups, GROUPS), (report.singles, SINGLES)):
        first = panels[-1].row if panels else 0
        for place, name in enumerate(table.agreements):
            panels.append(Panel(name, noun, table, first + 1 + place // COLUMNS, 1 + place % COLUMNS))
    return panels


def _is_taken(panels: list[Panel], row: int, column: int) -> bool:
    return any((panel.row, panel.column) == (row, column) for panel in panels)


def _upto(count: int) -> range:
    return range(1, count + 1)


def _draw(figure: go.Figure, panel: Panel, named: set[str], colours: Ink) -> None:
    """Lines, marks, axes and title of one panel; `named` holds what the legend names already."""
    x, y, error = panel.values()
    spread = np.nan_to_num(error)
    x_range, y_range = _range(x), _range(np.concatenate([y - spread, y + spread]))
    for trace in [*_lines(panel.agreement, x, x_range, y_range, colours), *_marks(panel, x, y, error, colours)]:
        trace.showlegend = trace.legendgroup not in named
        named.add(trace.legendgroup)
        figure.add_trace(trace, panel.row, panel.column)
    where = {"row": panel.row, "col": panel.column}
    small = {"font": {"size": 12}, "standoff": 6}
    figure.update_xaxes(
        title={"text": "predicted ΔPA, nats per pair", **small}, range=x_range, **_axis(colours), **where
    )
    title = "realised ΔPA, nats per pair" if panel.column == 1 else ""
    figure.update_yaxes(title={"text": title, **small}, range=y_range, **_axis(colours), **where)
    axis = next(figure.select_xaxes(**where))
    vertical = next(figure.select_yaxes(**where))
    text = note(
        _title(panel), colours, x=axis.domain[0], y=vertical.domain[1], xanchor="left", yanchor="bottom", yshift=4
    )
    figure.add_annotation({**text, "font": {"size": 13, "color": colours.text}})


def _title(panel: Panel) -> str:
    """Estimator, number of cases, and its agreement."""
    found, total = panel.agreement, len(panel.table.cases)
    count = f"{total:,}" if found.missing == 0 else f"{found.n:,} of {total:,}"
    lines = [f"<b>{_literal(short_id(spoken(panel.estimator), 24))}</b>, {count} {panel.noun}"]
    if found.rho is None or found.slope is None:
        return "<br>".join([*lines, *textwrap.wrap(f"undefined: {found.reason}", 40)])
    return "<br>".join([*lines, rho_text(found.rho), slope_text(found.slope)])


def _lines(found: Agreement, x: Floats, x_range: list[float], y_range: list[float], colours: Ink) -> list[go.Scatter]:
    """Identity, as far as it crosses the panel, and least squares over the drawn cases."""
    lines = []
    low, high = max(x_range[0], y_range[0]), min(x_range[1], y_range[1])
    if low < high:
        lines.append(("realised = predicted", [low, high], [low, high], "dash", 1.4))
    if found.slope is not None and found.intercept is not None:
        ends = [float(x.min()), float(x.max())]
        heights = [found.intercept + found.slope.value * end for end in ends]
        lines.append(("least squares", ends, heights, "solid", 1.8))
    return [
        go.Scatter(
            x=across,
            y=upwards,
            mode="lines",
            name=name,
            legendgroup=name,
            legendrank=2000,
            hoverinfo="skip",
            line={"color": colours.muted, "width": width, "dash": dash},
        )
        for name, across, upwards, dash, width in lines
    ]


def _marks(panel: Panel, x: Floats, y: Floats, error: Floats, colours: Ink) -> list[go.Scatter]:
    """One trace a sign of realised ΔPA that occurs."""
    numbers = np.array(panel.drawn, dtype=int)
    traces = []
    for kind in KINDS:
        members = np.flatnonzero(np.sign(y) == kind.sign)
        if not len(members):
            continue
        colour = {1: colours.helps, -1: colours.hurts, 0: colours.neutral}[kind.sign]
        outline = {"width": 0.6, "color": colours.paper if kind.sign else colour}
        bar = {"type": "data", "array": error[members], "color": colour, "thickness": 1.2, "width": 3}
        trace = go.Scatter(
            x=x[members],
            y=y[members],
            error_y=None if np.isnan(error[members]).all() else bar,
            mode="markers",
            name=f"{kind.name} ({html.escape(kind.condition, quote=False)}, realised)",
            legendgroup=kind.name,
            marker={"symbol": kind.symbol, "size": 9 if len(x) <= MANY else 6, "color": colour, "line": outline},
            customdata=numbers[members] + 1,
            hovertext=[_hover(panel, number) for number in numbers[members]],
            hoverinfo="text",
            opacity=0.8,
        )
        traces.append(trace)
    return traces


def _hover(panel: Panel, number: int) -> str:
    """Which case, what was predicted and what came of it."""
    case, total = panel.table.cases[number], len(panel.table.cases)
    predicted, realised = case.predicted[panel.estimator], case.mean_realised
    assert predicted is not None  # noqa: S101 - only such cases are drawn
    assert realised is not None  # noqa: S101
    word = "helped" if realised > 0 else "hurt" if realised < 0 else "had no effect"
    kind = "Group" if panel.noun == GROUPS else "Single example"
    lines = [
        f"<b>{kind} {number + 1} of {total:,}</b>: {case.size:,} candidate{'s' if case.size != 1 else ''}",
        f"predicted ΔPA {signed(predicted)} nats per pair",
        f"realised ΔPA {signed(realised)} nats per pair: unlearning {word}",
    ]
    if len(case.realised) > 1:
        each = ", ".join(signed(value) for value in case.realised if value is not None)
        lines.append(f"mean of {len(case.realised)} runs: {each}")
    ids = [_literal(short_id(name, 40)) for name in case.ids[:IDS_IN_HOVER]]
    more = case.size - len(ids)
    return "<br>".join([*lines, *ids, *([f"and {more:,} more"] if ids and more else [])])


def _layout(report: TrustReport, inner: int, colours: Ink) -> dict[str, Any]:
    summary = report.verdict.split("\n")[0]
    lines = [
        *textwrap.wrap(summary, LINE_LETTERS),
        f"Measured {circumstances(report, GROUPS if report.groups.cases else SINGLES)} · {SIGN_HELP}",
    ]
    top, bottom = 90 + PANEL_TITLE + LINE * len(lines), 60 + LINE * len(_caption_lines(report))
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1 + PANEL_TITLE / inner, "yanchor": "bottom"}
    return {
        **frame(colours),
        "title": headline(
            "Predicted against realised ΔPA", [_literal(html.escape(one, quote=False)) for one in lines], colours
        ),
        "legend": {**frame(colours)["legend"], **legend},
        "margin": {"l": 78, "r": 24, "t": top, "b": bottom},
        "height": inner + top + bottom,
    }


def _caption(report: TrustReport, colours: Ink) -> dict[str, Any]:
    text = "<br>".join(html.escape(line, quote=False) for line in _caption_lines(report))
    return note(text, colours, x=0, y=0, xanchor="left", yanchor="top", yshift=-46)


def _caption_lines(report: TrustReport) -> list[str]:
    """The noise ceilings, and what the bars are where there are any."""
    tables = [(table, noun) for table, noun in ((report.groups, GROUPS), (report.singles, SINGLES)) if table.agreements]
    lines = [
        line for table, noun in tables for line in textwrap.wrap(ceiling_sentence(table.ceiling, noun), LINE_LETTERS)
    ]
    if any(table.ceiling.repetitions > 1 for table, _ in tables):
        lines.append("Bars: ± 1 standard error over repeated runs.")
    return lines


def _axis(colours: Ink) -> dict[str, Any]:
    """Lines and ticks; a heavier line at 0 where 0 lies in the panel."""
    lines = {"gridcolor": colours.grid, "linecolor": colours.grid, "tickcolor": colours.grid, "ticks": "outside"}
    zero = {"zeroline": True, "zerolinecolor": colours.muted, "zerolinewidth": 1}
    return {**lines, **zero, "tickfont": {"size": 11}, "nticks": 5, "exponentformat": "power", "minexponent": 5}


def _range(values: Floats) -> list[float]:
    """An axis that holds all values with room around them; from −1 to 1 where there is none."""
    if not len(values):
        return [-1.0, 1.0]
    low, high = float(values.min()), float(values.max())
    room = 0.07 * (high - low) or abs(low) or 1.0
    return [low - room, high + room]


def _standard_error(case: Case) -> float:
    values = [value for value in case.realised if value is not None]
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _literal(escaped: str) -> str:
    """Escaped text whose dollar signs are not read as TeX where a page has MathJax."""
    return escaped.replace("$", "&#36;")
