"""Scalability and sustainability side by side: the NLL of retain data (utility) and that of what was unlearned
(forgetting), against the size of the forget set and the number of requests; and all six ways as a plain table.

Colour and shape tell the two apart; dashed: the original policy on the same examples.
"""

import html
import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from u2a_core.figures.palette import Ink, PaletteName, ThemeName, frame, ink, note
from u2a_core.store.six_ways import WAYS, SixWays

HEIGHT = 420  # pixels
SIDES = ([0, 0.46], [0.54, 1])  # of the panels, as shares of the figure
HOW_TO_READ = (
    "Circles: negative log-likelihood of the retain data, which should stay at its dashed line. Diamonds: that of what "
    "was unlearned so far, which should rise above its own. Left, the forget set grows, each size unlearned from the "
    "original policy; right, one request follows another, each begun where the one before ended. Both panels have the "
    "same scale; dashed is the original policy."
)


@dataclass(frozen=True)
class _Line:
    """One measure: its metric, its name in the legend, the shape of its marks, and the original policy's dashes."""

    metric: str
    name: str
    symbol: str
    dash: str


@dataclass(frozen=True)
class _Panel:
    """One way: its number, the title of the panel, the column along it and what that is called."""

    number: int
    title: str
    along: str
    axis: str


LINES = (
    _Line("retain_nll", "utility: NLL of retain data", "circle", "dash"),
    _Line("unlearned_nll", "forgetting: NLL of what was unlearned", "diamond", "dashdot"),
)
PANELS = (
    _Panel(5, "Scalability: growing forget sets", "examples", "candidates unlearned at once"),
    _Panel(6, "Sustainability: one request upon another", "point", "requests so far"),
)


def six_ways_figure(ways: SixWays, palette: PaletteName = "paper", theme: ThemeName = "light") -> go.Figure:
    """Two panels of the same scale, nats per token."""
    colours = ink(palette, theme)
    layout = {**frame(colours), "height": HEIGHT, "margin": {"l": 64, "r": 16, "t": 40, "b": 96}, "annotations": []}
    layout["legend"] = {**layout["legend"], "orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"}
    traces: list[dict[str, Any]] = []
    drawn = ways.table[ways.table["metric"].isin([line.metric for line in LINES]) & (ways.table["number"] >= 5)]
    scale = _range(drawn[["before", "after"]].to_numpy(float).ravel().tolist())
    for place, panel in enumerate(PANELS):
        number = "" if place == 0 else str(place + 1)
        rows = drawn[drawn["number"] == panel.number]
        for line in LINES:
            traces += _traces(rows[rows["metric"] == line.metric], line, panel, number, colours)
        layout |= _axes(panel, rows, number, place, scale, colours)
        inside = {"xref": f"x{number} domain", "yref": f"y{number} domain"}
        title = note(f"<b>{panel.title}</b>", colours, **inside, x=0, y=1, xanchor="left", yanchor="bottom", yshift=6)
        layout["annotations"].append({**title, "font": {"size": 13, "color": colours.text}})
        if rows.loc[rows["metric"] == "retain_nll", "after"].isna().all():
            missing = "no retain examples to measure"
            layout["annotations"].append(note(missing, colours, **inside, x=1, y=0, xanchor="right", yanchor="bottom"))
    return go.Figure(traces, layout)


def six_ways_shown(ways: SixWays) -> pd.DataFrame:
    """All six ways for a reader, a row a measure: way, forgotten, measure, original, after, unit, better, verdict,
    what the measure is, and what the way asks.
    """
    asks = {way.number: way.definition for way in WAYS}
    table = ways.table
    return pd.DataFrame(
        {
            "way": [f"{row.number}. {row.way}" for row in table.itertuples()],
            "forgotten": [_forgotten(row) for row in table.itertuples()],
            "measure": table["title"],
            "original": table["before"],
            "after": table["after"],
            "unit": table["unit"],
            "better": table["better"],
            "verdict": table["verdict"],
            "definition": table["definition"],
            "the way asks": table["number"].map(asks),
        }
    )


def held_by_limits(ways: SixWays) -> list[str]:
    """Which of the runs of the ways 5 and 6 a limit took back to earlier weights, and which limit, a line each."""
    rows = ways.table[(ways.table["number"] >= 5) & ways.table["stopped"].notna()]
    return [_held(row) for row in rows.drop_duplicates(["number", "point"]).itertuples()]


def _held(row: Any) -> str:
    return f"{row.way}, {_forgotten(row)}: {row.stopped}; its weights are those of step {row.kept_step}."


def _forgotten(row: Any) -> str:
    requests = f" in {row.point} request{'s' if row.point > 1 else ''}" if row.number == 6 else ""
    return f"{row.examples:,} candidates{requests}"


def _traces(rows: pd.DataFrame, line: _Line, panel: _Panel, number: str, colours: Ink) -> list[dict[str, Any]]:
    """The measure after unlearning, and of the original policy."""
    colour = colours.helps if line.metric == "retain_nll" else colours.hurts
    along = rows[panel.along].tolist()
    shared = {"type": "scatter", "xaxis": f"x{number}", "yaxis": f"y{number}", "x": along, "legendgroup": line.metric}
    after = {
        "name": line.name, "y": _values(rows["after"]), "mode": "lines+markers", "showlegend": number == "",
        "line": {"color": colour, "width": 2}, "marker": {"symbol": line.symbol, "size": 10, "color": colour},
        "hovertext": [_hover(row, line) for row in rows.itertuples()], "hoverinfo": "text",
    }  # fmt: skip
    before = {
        "name": f"{line.name.partition(':')[0]}, original policy", "y": _values(rows["before"]), "mode": "lines",
        "showlegend": number == "", "line": {"color": colour, "width": 1.6, "dash": line.dash}, "hoverinfo": "skip",
    }  # fmt: skip
    return [{**shared, **before}, {**shared, **after}]


def _hover(row: Any, line: _Line) -> str:
    """Plain words of one mark; only `stopped` is not this program's own."""
    values = [f"{value:.4g}".replace("-", "−") for value in (row.before, row.after)]
    told = [f"<b>{_forgotten(row)}</b>", f"{line.name}: {values[0]} → {values[1]} nats per token ({row.verdict})"]
    told.append(f"weights of step {row.kept_step} of {row.steps}")
    if isinstance(row.stopped, str):
        told.append(f"stopped: {html.escape(row.stopped)}")
    return "<br>".join(told)


def _axes(
    panel: _Panel, rows: pd.DataFrame, number: str, place: int, scale: list[float] | None, colours: Ink
) -> dict[str, Any]:
    """Both axes of a panel; one tick a point."""
    shared = {
        "gridcolor": colours.grid, "linecolor": colours.grid, "tickcolor": colours.grid, "zeroline": False,
        "ticks": "outside", "tickfont": {"size": 12},
    }  # fmt: skip
    small = {"font": {"size": 12}, "standoff": 6}
    ticks = sorted(set(rows[panel.along].tolist()))
    across = {"title": {"text": panel.axis, **small}, "domain": SIDES[place], "tickvals": ticks, "anchor": f"y{number}"}
    upwards = {"title": {"text": "nats per token", **small}, "range": scale, "nticks": 7, "anchor": f"x{number}"}
    return {f"xaxis{number}": {**shared, **across}, f"yaxis{number}": {**shared, **upwards}}


def _values(column: pd.Series) -> list[float | None]:
    """Plain numbers; None where there is none."""
    return [None if math.isnan(value) else float(value) for value in column]


def _range(values: list[float]) -> list[float] | None:
    """From the lowest to the highest value with some air."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return None
    low, high = min(known), max(known)
    air = 0.1 * (high - low) or max(abs(high), 1.0) * 0.05
    return [low - air, high + air]
