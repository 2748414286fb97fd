"""What alignment costs in utility: every row of a comparison by its gain of J and its rise of the retain NLL.

The area of a mark tells the seconds, the symbol (and the colour) how the row was made; bars are 95 % intervals over
seeds. The dashed line joins the rows that no other one beats in both. Names stand in the margin, a line to each mark;
a row far from all others is named above the frame instead of squeezing it.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from u2a_core.figures.excerpt import signed
from u2a_core.figures.palette import Ink, PaletteName, ThemeName, empty_figure, frame, headline, ink
from u2a_core.store.comparison import Comparison

SMALLEST, LARGEST = 8.0, 34.0  # diameter of a mark, pixels
HEIGHT, TOP, BOTTOM, LINE = 600, 146, 62, 17  # of the figure, its margins and a name, pixels
FAR = 3.0  # interquartile ranges beyond the quartiles (Tukey's far out)
HOW_TO_READ = (
    "Upwards: J on pa_test rose more, better aligned. To the right: retain data became less likely, utility was lost. "
    "The area of a mark is its seconds, the search of U2A weights included; bars are 95 % intervals over seeds."
)
KINDS = {  # of rows: what they are called in the legend, and their symbol
    "u2a": ("U2A weights", "diamond"),
    "uniform": ("uniform weights", "circle"),
    "baseline": ("baseline", "square"),
    "original": ("original policy", "cross"),
}


@dataclass(frozen=True)
class Window:
    """What is drawn: losses from `left` to `right`, gains from `low` to `high`."""

    left: float
    right: float
    low: float
    high: float

    def holds(self, one: "ParetoPoint") -> bool:
        """Whether the point lies inside."""
        return self.left <= one.loss <= self.right and self.low <= one.gain <= self.high


@dataclass(frozen=True)
class ParetoPoint:
    """One row: `gain` of J in nats per pair and `loss`, the rise of the retain NLL in nats per token, both against the
    original policy, with half of their 95 % intervals (None: unknown); `seconds`, the search included, and `cost`, the
    same relative to DPO (None: unknown).
    """

    row: str
    title: str
    kind: str
    gain: float
    loss: float
    gain_half: float | None
    loss_half: float | None
    seconds: float | None
    cost: float | None


def pareto_points(comparison: Comparison) -> list[ParetoPoint]:
    """The rows that have both a gain and a loss, in the order of the table."""
    gains, losses = comparison.column("alignment"), comparison.column("retain_nll")
    seconds, searched, costs = (comparison.column(name) for name in ("seconds", "search_seconds", "cost_search"))
    found = []
    for row in gains.index:
        pair = _number(gains["mean"][row]), _number(losses["mean"][row])
        start = _number(gains["mean"]["original"]), _number(losses["mean"]["original"])
        if pair[0] is None or pair[1] is None or start[0] is None or start[1] is None:
            continue
        spent = _number(seconds["mean"][row])
        total = None if spent is None else spent + (_number(searched["mean"][row]) or 0.0)
        found.append(
            ParetoPoint(
                str(row), str(gains["title"][row]), str(gains["kind"][row]), pair[0] - start[0], pair[1] - start[1],
                _number(gains["half"][row]), _number(losses["half"][row]), total, _number(costs["mean"][row]),
            )
        )  # fmt: skip
    return found


def front(points: Sequence[ParetoPoint]) -> list[ParetoPoint]:
    """The points that no other one equals or beats in gain and loss and beats in one of them, by rising loss."""
    ordered = sorted(points, key=lambda one: (one.loss, -one.gain))
    found: list[ParetoPoint] = []
    for one in ordered:
        if not found or one.gain > found[-1].gain or (one.gain, one.loss) == (found[-1].gain, found[-1].loss):
            found.append(one)
    return found


def pareto_figure(
    points: Sequence[ParetoPoint], palette: PaletteName = "paper", theme: ThemeName = "light"
) -> go.Figure:
    """The figure; one that says why where there is nothing to draw. `customdata` is the row's name."""
    colours = ink(palette, theme)
    if not points:
        remedy = "No row has both J on pa_test and the NLL of retain data."
        return empty_figure("There is nothing to draw", remedy, colours)
    fill = {"u2a": colours.helps, "uniform": colours.neutral, "baseline": colours.hurts, "original": colours.text}
    most = max((one.seconds for one in points if one.seconds is not None), default=0.0)
    best = front(points)
    dashed = {"color": colours.muted, "width": 1.4, "dash": "dash"}
    window = frame_of(points)
    traces: list[dict[str, Any]] = [
        {"x": [one.loss for one in best], "y": [one.gain for one in best], "mode": "lines", "line": dashed,
         "name": "not beaten in both", "hoverinfo": "skip"}
    ]  # fmt: skip
    for kind, (name, symbol) in KINDS.items():
        members = [one for one in points if one.kind == kind]
        if members:
            style = {
                "symbol": symbol,
                "color": fill[kind],
                "opacity": 0.85,
                "line": {"width": 1, "color": colours.paper},
            }
            traces.append(_marks(members, name, style, most))
    return go.Figure([go.Scatter(**one) for one in traces], _layout(points, window, colours))


def frame_of(points: Sequence[ParetoPoint]) -> Window:
    """The ranges of losses and gains that hold the intervals of all points but those far out."""
    losses, gains = ([getattr(one, name) for one in points] for name in ("loss", "gain"))
    fences = [_fences(values) for values in (losses, gains)]
    near = [
        one for one, *place in zip(points, losses, gains, strict=True)
        if all(low <= value <= high for value, (low, high) in zip(place, fences, strict=True))
    ] or points  # fmt: skip
    across = _reach([(one.loss, one.loss_half) for one in near])
    return Window(*across, *_reach([(one.gain, one.gain_half) for one in near]))


def _fences(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.25, 0.75])
    return float(low - FAR * (high - low)), float(high + FAR * (high - low))


def _reach(values: Sequence[tuple[float, float | None]]) -> tuple[float, float]:
    """A range with all intervals and some space around them."""
    least, most = (
        min(value - (half or 0.0) for value, half in values),
        max(value + (half or 0.0) for value, half in values),
    )
    space = 0.06 * (most - least) or 0.1
    return least - space, most + space


def spread(wanted: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Places for falling `wanted` ones, at least `least` apart and as near as that allows, from `high` down to `low`;
    closer together where there is no room.
    """
    least = min(least, (high - low) / max(len(wanted) - 1, 1))
    found: list[float] = []
    for value in wanted:
        found.append(min(value, found[-1] - least if found else high))
    for place in reversed(range(len(found))):
        found[place] = max(found[place], found[place + 1] + least if place + 1 < len(found) else low)
    return found


def _marks(members: Sequence[ParetoPoint], name: str, style: dict[str, Any], most: float) -> dict[str, Any]:
    bars = {"type": "data", "color": style["color"], "thickness": 1.2, "width": 4}
    return {
        "x": [one.loss for one in members],
        "y": [one.gain for one in members],
        "error_x": {**bars, "array": [one.loss_half for one in members]},
        "error_y": {**bars, "array": [one.gain_half for one in members]},
        "mode": "markers",
        "name": name,
        "marker": {**style, "size": [diameter(one.seconds, most) for one in members]},
        "customdata": [one.row for one in members],
        "hovertext": [_told(one) for one in members],
        "hoverinfo": "text",
    }


def diameter(seconds: float | None, most: float) -> float:
    """Of a mark whose area grows with its seconds, `most` seconds having the largest; the smallest where unknown."""
    return SMALLEST if not seconds or not most else max(SMALLEST, LARGEST * math.sqrt(seconds / most))


def _names(points: Sequence[ParetoPoint], window: Window, colours: Ink) -> list[dict[str, Any]]:
    """The names in the right margin, from the best gain down, each with a line to its mark."""
    drawn = sorted((one for one in points if window.holds(one)), key=lambda one: -one.gain)
    least = LINE * (window.high - window.low) / (HEIGHT - TOP - BOTTOM)
    heights = spread([one.gain for one in drawn], least, window.low, window.high)
    line = {"arrowhead": 0, "arrowwidth": 0.8, "arrowcolor": colours.muted, "showarrow": True, "standoff": 4}
    font = {"size": 12, "color": colours.text}
    return [
        {**line, "x": one.loss, "y": one.gain, "xref": "x", "yref": "y", "axref": "x", "ayref": "y", "ax": window.right,
         "ay": height, "text": _literal(one.title), "xanchor": "left", "align": "left", "font": font}
        for one, height in zip(drawn, heights, strict=True)
    ]  # fmt: skip


def _layout(points: Sequence[ParetoPoint], window: Window, colours: Ink) -> dict[str, Any]:
    axis = {
        "gridcolor": colours.grid, "linecolor": colours.grid, "zeroline": True, "zerolinecolor": colours.muted,
        "nticks": 7, "automargin": True,
    }  # fmt: skip
    lines = [
        "Up: better aligned. Right: retain data less likely. Area: seconds, the search included.",
        "Bars: 95 % intervals over seeds. Dashed: rows that no other one beats in both.",
    ]
    beyond = [
        f"{_literal(one.title)} (J {signed(one.gain)}, retain NLL {signed(one.loss)})"
        for one in points
        if not window.holds(one)
    ]
    lines += [f"Beyond the frame: {'; '.join(beyond)}."] if beyond else []
    return {
        **frame(colours),
        "title": headline("Alignment gained against utility lost", lines, colours),
        "height": HEIGHT,
        "margin": {"l": 74, "r": 190, "t": TOP, "b": BOTTOM},
        "annotations": _names(points, window, colours),
        "xaxis": {
            **axis,
            "range": [window.left, window.right],
            "title": {"text": "rise of the NLL of retain data, nats per token", "font": {"size": 13}},
        },
        "yaxis": {
            **axis,
            "range": [window.low, window.high],
            "title": {"text": "gain of J on pa_test, nats per pair", "font": {"size": 13}},
        },
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "itemsizing": "constant",
        },
        "dragmode": "zoom",
    }


def _told(one: ParetoPoint) -> str:
    def spread(half: float | None) -> str:
        return "" if half is None else f" ± {half:.3g}"

    lines = [
        f"<b>{_literal(one.title)}</b>",
        f"J {signed(one.gain)}{spread(one.gain_half)} nats per pair",
        f"retain NLL {signed(one.loss)}{spread(one.loss_half)} nats per token",
    ]
    if one.seconds is not None:
        lines.append(f"{one.seconds:.3g} seconds, the search included")
    if one.cost is not None:
        lines.append(f"{one.cost:.3g} times DPO")
    return "<br>".join(lines)


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)


def _literal(text: str) -> str:
    """Escaped text whose dollar signs are not read as TeX where a page has MathJax."""
    return html.escape(text, quote=False).replace("$", "&#36;")
