"""Figures of page Compare: histograms one below the other on one axis, and pairs before against after.

Numbers are binned here, so that a figure is as small for 100,000 samples as for 40. What is pointed out is hatched; the
meaning never lies in a colour alone.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from u2a_core.evaluation.forgetting import OTHER, RETAIN, UNLEARNED
from u2a_core.figures.excerpt import short_id, signed
from u2a_core.figures.palette import Ink, PaletteName, ThemeName, empty_figure, frame, headline, ink, note

Floats = NDArray[np.float64]
MOST_BINS, FEWEST_BINS = 48, 8
ROW, GAP, TOP, BOTTOM = 92, 46, 96, 62  # pixels
MOST_PAIRS = 2000  # drawn


@dataclass(frozen=True)
class Row:
    """One histogram: `label` (escaped by the figure), its values, and which of them are pointed out, if any."""

    label: str
    values: Floats
    hatched: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Axis:
    """The axis that all rows share: `title` with unit; `cut` shares of the values on either side go into the outermost
    bins; `log`: counts on a logarithmic axis.
    """

    title: str
    cut: float = 0.0
    log: bool = False


def histogram_rows(
    rows: Sequence[Row], axis: Axis, title: str, lines: list[str], palette: PaletteName, theme: ThemeName
) -> go.Figure:
    """Histograms below one another, each with its median; `title` and `lines` stand above. Rows without values are
    said to have none.
    """
    colours = ink(palette, theme)
    known = [row.values for row in rows if len(row.values)]
    if not known:
        return empty_figure("There is nothing to draw", "None of the samples has such a value.", colours)
    edges = _edges(np.concatenate(known), axis.cut)
    inner = len(rows) * ROW + (len(rows) - 1) * GAP
    top = TOP + 17 * (len(lines) - 1)
    figure = make_subplots(len(rows), 1, shared_xaxes=True, vertical_spacing=GAP / inner if len(rows) > 1 else 0)
    figure.update_layout(
        **{**frame(colours), "title": headline(title, lines, colours), "height": inner + top + BOTTOM},
        margin={"l": 62, "r": 20, "t": top, "b": BOTTOM},
        bargap=0, barmode="stack", showlegend=False, dragmode="zoom",
    )  # fmt: skip
    for number, row in enumerate(rows, 1):
        _draw_row(figure, number, row, edges, axis, colours)
    figure.update_xaxes(title={"text": axis.title, "font": {"size": 13}}, row=len(rows), col=1)
    return figure


def nll_change_figure(
    changes: pd.DataFrame, below: float, above: float, palette: PaletteName, theme: ThemeName
) -> go.Figure:
    """How the NLL changed: what was unlearned (hatched where it rose less than `below`), other candidates and retain
    data (hatched where they rose more than `above`).
    """
    rows = []
    for kind, label in ((UNLEARNED, "unlearned"), (OTHER, "other candidates"), (RETAIN, "retain data")):
        rise = changes.loc[changes["kind"] == kind, "rise"].to_numpy(np.float64)
        rows.append(Row(label, rise, rise < below if kind == UNLEARNED else rise > above))
    lines = [
        "To the right: less likely than before, forgotten. "
        "Hatched: not forgotten (first row), overly forgotten (the others)."
    ]
    axis = Axis("rise of the NLL, nats per token", cut=0.001)
    return histogram_rows([row for row in rows if len(row.values)], axis, "What was forgotten", lines, palette, theme)


def pairs_figure(
    ids: Sequence[str], left: Floats, right: Floats, names: tuple[str, str], palette: PaletteName, theme: ThemeName
) -> go.Figure:
    """How much likelier the chosen response is than the rejected one on the left, and how that changed, pair by pair,
    in nats per token; `customdata` is the pair's id. Of very many pairs every k-th is drawn, which is said.
    """
    colours = ink(palette, theme)
    if not len(ids):
        return empty_figure("There are no pairs", "This bundle has no pairs in pa_test.", colours)
    change = right - left
    drawn = np.arange(0, len(ids), -(-len(ids) // MOST_PAIRS))
    gained, lost = int(((left <= 0) & (right > 0)).sum()), int(((left > 0) & (right <= 0)).sum())
    lines = [
        "To the right: the chosen response was the likelier one before. Upwards: it gained on the rejected one.",
        "Above the dashed line it is the likelier one now. "
        f"Newly preferred: {gained:,} pairs; no longer: {lost:,}."
        + (f" {len(drawn):,} of {len(ids):,} are drawn." if len(drawn) < len(ids) else ""),
    ]
    figure = go.Figure(layout=_pairs_layout(left, change, lines, names, colours))
    for label, symbol, colour, members in (
        ("gained", "circle", colours.helps, change > 0),
        ("lost", "diamond", colours.hurts, change < 0),
        ("as before", "square-open", colours.neutral, change == 0),
    ):
        rows = drawn[members[drawn]]
        if not members.any():
            continue
        hover = [
            f"<b>pair {_literal(short_id(str(ids[row]), 40))}</b><br>left {signed(left[row])}, right "
            f"{signed(right[row])} nats per token: {label}"
            for row in rows
        ]
        figure.add_trace(
            go.Scatter(
                x=left[rows], y=change[rows], mode="markers", name=f"{label}: {int(members.sum()):,}",
                marker={"symbol": symbol, "size": 7, "color": colour, "opacity": 0.75,
                        "line": {"width": 0.5, "color": colours.paper}},
                customdata=[str(ids[row]) for row in rows], hovertext=hover, hoverinfo="text",
            )
        )  # fmt: skip
    return figure


def _draw_row(figure: go.Figure, number: int, row: Row, edges: Floats, axis: Axis, colours: Ink) -> None:
    """The bars of one row, its axis, its name with the median, and a line there."""
    line = {"gridcolor": colours.grid, "linecolor": colours.grid, "tickfont": {"size": 11}}
    place = {"row": number, "col": 1}
    inside = np.clip(row.values, edges[0], edges[-1])
    hatched = np.zeros(len(inside), dtype=bool) if row.hatched is None else row.hatched
    centres = (edges[:-1] + edges[1:]) / 2
    hatch = {"shape": "/", "size": 5, "solidity": 0.4, "fgcolor": colours.paper, "fillmode": "overlay"}
    for name, values, marker in (
        ("", inside[~hatched], {"color": colours.neutral}),
        (", pointed out", inside[hatched], {"color": colours.hurts, "pattern": hatch}),
    ):
        counts = np.histogram(values, edges)[0]
        if counts.any():
            bar = go.Bar(
                x=centres, y=counts, width=float(edges[1] - edges[0]), marker={**marker, "line": {"width": 0}},
                hovertemplate=f"near %{{x:.3g}}: %{{y:,}}{name}<extra></extra>",
            )  # fmt: skip
            figure.add_trace(bar, **place)
    ticks = {"dtick": 1, "exponentformat": "none"} if axis.log else {"nticks": 4, "rangemode": "tozero"}
    power = {"exponentformat": "power", "minexponent": 4}
    figure.update_xaxes(
        range=[edges[0], edges[-1]], **power, zeroline=True, zerolinecolor=colours.muted, **line, **place
    )
    figure.update_yaxes(type="log" if axis.log else "linear", **ticks, **line, **place)
    domain = next(figure.select_yaxes(**place)).domain
    told = f"<b>{_literal(html.escape(row.label, quote=False))}</b>, {len(row.values):,}"
    if len(row.values):
        median = float(np.median(row.values))
        told += f": median {signed(median)}"
        figure.add_vline(median, line={"color": colours.text, "width": 1.5, "dash": "dot"}, **place)
    label = note(told, colours, x=0, y=domain[1], xanchor="left", yanchor="bottom", yshift=2)
    figure.add_annotation({**label, "font": {"size": 13, "color": colours.text}})


def _edges(values: Floats, cut: float) -> Floats:
    """The edges of the bins, more of them the more values there are; 0 is one of them where it lies inside."""
    low, high = (float(one) for one in np.quantile(values, [cut, 1 - cut]))
    bins = min(max(round(2 * len(values) ** 0.5), FEWEST_BINS), MOST_BINS)
    width = (high - low) / bins or abs(high) / bins or 1.0
    found: Floats = np.arange(np.floor(low / width), np.floor(high / width) + 2) * width
    return found


def _pairs_layout(
    before: Floats, change: Floats, lines: list[str], names: tuple[str, str], colours: Ink
) -> dict[str, Any]:
    axis = {
        "gridcolor": colours.grid, "linecolor": colours.grid, "zeroline": True, "zerolinecolor": colours.muted,
        "nticks": 7, "automargin": True,
    }  # fmt: skip
    left, right = (_literal(html.escape(one, quote=False)) for one in names)
    ends = [float(before.min()), float(before.max())]
    border = {"type": "line", "x0": ends[0], "y0": -ends[0], "x1": ends[1], "y1": -ends[1], "layer": "below"}
    return {
        **frame(colours),
        "title": headline("Chosen against rejected, pair by pair", lines, colours),
        "height": 470,
        "margin": {"l": 70, "r": 20, "t": 92 + 17 * len(lines), "b": 60},
        "xaxis": {**axis, "range": _range(before), "title": {"text": f"{left}, nats per token", "font": {"size": 13}}},
        "yaxis": {
            **axis, "range": _range(change),
            "title": {"text": f"{right} less {left}, nats per token", "font": {"size": 13}},
        },
        "shapes": [{**border, "line": {"color": colours.muted, "width": 1.4, "dash": "dash"}}],
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"},
    }  # fmt: skip


def _range(values: Floats) -> list[float]:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    room = 0.05 * (high - low) or 1.0
    return [low - room, high + room]


def _literal(escaped: str) -> str:
    """Escaped text whose dollar signs are not read as TeX where a page has MathJax."""
    return escaped.replace("$", "&#36;")
