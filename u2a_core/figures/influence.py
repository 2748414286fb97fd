"""Figure 1, the influence scatter: each negative example at distance |ΔPA|; blue circle: helps, red diamond: hurts.

Drawn on cartesian axes, so that click, box and lasso work and ids come back in `customdata`; `paper_influence_figure`
is the same on real polar axes, for print. At most `max_points` are drawn: all extremes, a fixed thinning of the rest, a
density layer beneath, and a line that says so. Another colouring leaves the shapes as they are.
"""

import html
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from u2a_core.figures.colouring import COLOUR_MEANING, ColourMode, colour_groups, coloured, legend_styles
from u2a_core.figures.distribution import add_distribution
from u2a_core.figures.excerpt import short_id, signed
from u2a_core.figures.marks import Rows, marks
from u2a_core.figures.palette import SIGN_HELP, Ink, PaletteName, ThemeName, empty_figure, frame, headline, ink, note
from u2a_core.figures.polar import Hashes, Places, RadiusMode, drawn_rows, extremes, places
from u2a_core.store.scores import Scores

DENSITY_CELLS = 90
LETTER_WIDTH = 0.034  # of the radius, for the type of the labels on the studio's figure; on a larger one it is less
HOW_TO_READ = (
    "Each mark is one negative example. Its distance from the centre is the size of ΔPA, the predicted change of "
    "preference alignment when that example is unlearned. Blue circles help, red diamonds hurt. "
    "The angle comes from a hash of the id and only spreads the marks. Point at a mark to read the example."
)
NO_ROWS = (
    "There is no negative example to draw",
    "Loosen the filter, or score a bundle whose forget split is not empty.",
)
RADIUS_MEANING = {
    "linear": "Distance from the centre: |ΔPA|",
    "signed-log": "Distance from the centre: log(1 + |ΔPA| / median)",
    "rank": "Distance from the centre: rank of |ΔPA|",
}


@dataclass(frozen=True)
class InfluenceOptions:
    """How Figure 1 looks; `labels` names that many of the largest |ΔPA|, `distribution` adds a histogram."""

    radius: RadiusMode = "linear"
    colour: ColourMode = "sign"
    palette: PaletteName = "paper"
    theme: ThemeName = "light"
    distribution: bool = False
    labels: int = 0
    max_points: int = 15_000


def influence_figure(
    scores: Scores, options: InfluenceOptions | None = None, hashes: Hashes | None = None
) -> go.Figure:
    """Figure 1 on cartesian axes (x = r cos θ, y = r sin θ); `customdata` is the id of each point. `hashes`:
    `stable_hashes` of the ids, for who has them already.
    """
    options = options or InfluenceOptions()
    colours, table = ink(options.palette, options.theme), scores.table
    if table.empty:
        return empty_figure(*NO_ROWS, colours)
    spots, rows = places(table, options.radius, hashes), drawn_rows(table, options.max_points, hashes)
    figure = go.Figure(layout=_cartesian_layout(scores, spots, rows, options, colours))
    if len(rows) < len(table):
        figure.add_trace(_density(spots, colours))
    for members, style in _traces(table, rows, options, colours, hashes):
        x, y = ([None], [None]) if members is None else (spots.x[members], spots.y[members])
        figure.add_trace(go.Scattergl(x=x, y=y, **style))
    if options.distribution:
        add_distribution(figure, table, colours)
    return figure


def with_selected(figure: go.Figure, ids: Set[str]) -> go.Figure:
    """A copy in which the points of these ids stand out, as after a lasso; the figure itself for no ids."""
    if not ids:
        return figure
    copy = go.Figure(figure)
    for trace in copy.data:
        if trace.customdata is not None:
            trace.selectedpoints = [place for place, name in enumerate(trace.customdata) if name in ids]
    return copy


def paper_influence_figure(scores: Scores, options: InfluenceOptions | None = None) -> go.Figure:
    """Figure 1 the way the paper prints it: vector marks on real polar axes. No density layer, no lasso."""
    options = options or InfluenceOptions()
    colours, table = ink(options.palette, options.theme), scores.table
    if table.empty:
        return empty_figure(*NO_ROWS, colours)
    spots, rows = places(table, options.radius), drawn_rows(table, options.max_points)
    figure = go.Figure(
        layout={**frame(colours), "title": _title(scores, colours), "margin": _margin(len(rows) < len(table), options)}
    )
    for members, style in _traces(table, rows, options, colours):
        r, theta = ([None], [None]) if members is None else (spots.radius[members], np.degrees(spots.angle[members]))
        figure.add_trace(go.Scatterpolar(r=r, theta=theta, cliponaxis=False, **style))
    radii, texts = zip(*_ring_texts(spots), strict=True) if spots.rings else ((), ())
    ticks = {"tickvals": radii, "ticktext": texts}
    line = {"gridcolor": colours.grid, "linecolor": colours.grid}
    radial = {**ticks, **line, "range": [0, spots.limit], "angle": 90, "tickangle": 90, "layer": "below traces"}
    angular = {**line, "showticklabels": False, "ticks": "", "dtick": 45}
    figure.update_polars(bgcolor=colours.paper, radialaxis={**radial, "tickfont": {"size": 12}}, angularaxis=angular)
    figure.add_annotation(_caption(table, rows, options, colours))
    return figure.update_layout(legend=_legend(options))


def _traces(
    table: pd.DataFrame, rows: Rows, options: InfluenceOptions, colours: Ink, hashes: Hashes | None = None
) -> Iterator[tuple[Rows | None, dict[str, Any]]]:
    """Rows and style of each trace, bottom first; None for one that stands in the legend only."""
    drawn = marks(table, rows, colours, hashes)
    if options.colour == "sign":
        yield from drawn
        return
    groups = colour_groups(table, options.colour, options.theme, colours)
    for members, style in drawn:
        yield members, coloured(style, members, groups)
    for style in legend_styles(table, groups, colours):
        yield None, style


def _cartesian_layout(
    scores: Scores, spots: Places, rows: np.ndarray[Any, Any], options: InfluenceOptions, colours: Ink
) -> dict[str, Any]:
    """Frame, hidden square axes, rings as shapes with their labels, title and caption."""
    reach = 1.07 * spots.limit
    hidden = {"visible": False, "range": [-reach, reach]}
    rings = [
        {
            "type": "circle",
            "layer": "below",
            "line": {"color": colours.grid, "width": 1.2},
            **{"x0": -ring.radius, "x1": ring.radius, "y0": -ring.radius, "y1": ring.radius},
        }
        for ring in spots.rings
    ]
    return {
        **frame(colours),
        "title": _title(scores, colours),
        "xaxis": {**hidden, "domain": [0, 0.66] if options.distribution else [0, 1]},
        "yaxis": {**hidden, "scaleanchor": "x", "scaleratio": 1},
        "shapes": rings,
        "annotations": [
            *_ring_labels(spots, colours),
            *_extreme_labels(scores.table, spots, options.labels, colours),
            _caption(scores.table, rows, options, colours),
        ],
        "legend": {**frame(colours)["legend"], **_legend(options)},
        "margin": _margin(len(rows) < len(scores.table), options),
        "dragmode": "lasso",
    }


def _legend(options: InfluenceOptions) -> dict[str, Any]:
    size = {} if options.colour == "sign" else {"font": {"size": 12}}
    return {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom", **size}


def _margin(thinned: bool, options: InfluenceOptions) -> dict[str, int]:
    """Room for the lines of legend and caption."""
    other = options.colour != "sign"
    return {"l": 8, "r": 8, "t": 168 if other else 124, "b": 46 + 16 * (thinned + other)}


def _title(scores: Scores, colours: Ink) -> dict[str, Any]:
    metadata, n = scores.metadata, len(scores.table)
    total = metadata.get("n", n)
    shown = f"n = {n:,}" if total == n else f"n = {n:,} shown of {total:,}"
    facts = [shown, *(f"{key} {metadata.get(key, 'not recorded')}" for key in ("estimator", "objective"))]
    lines = [
        html.escape(" · ".join(facts), quote=False),
        html.escape(f"ΔPA in nats per pair · {SIGN_HELP}", quote=False),
    ]
    return headline("Influence of unlearning each negative example", lines, colours)


def _ring_labels(spots: Places, colours: Ink) -> list[dict[str, Any]]:
    """The rings' values up the vertical axis, on a ground of their own so that points do not cross them."""
    place = {"xref": "x", "yref": "y", "x": 0, "bgcolor": colours.paper, "opacity": 0.88, "borderpad": 1}
    return [note(text, colours, **place, y=radius) for radius, text in _ring_texts(spots)]


def _ring_texts(spots: Places) -> list[tuple[float, str]]:
    """Radius and label of each ring; the outermost names the unit."""
    texts = [(ring.radius, ring.label) for ring in spots.rings]
    return [*texts[:-1], *((radius, f"{label} nats per pair") for radius, label in texts[-1:])]


def _extreme_labels(table: pd.DataFrame, spots: Places, count: int, colours: Ink) -> list[dict[str, Any]]:
    """Ids at the `count` largest |ΔPA|, beside their points; one that would cover another or a ring's is left out."""
    taken = [(-0.07, 0.07, ring.radius / spots.limit) for ring in spots.rings[:-1]] + [(-0.2, 0.2, 1.0)]
    labels: list[dict[str, Any]] = []
    for row in np.argsort(-np.abs(table["delta_pa"].to_numpy()), kind="stable")[:count]:
        x, y = float(spots.x[row] / spots.limit), float(spots.y[row] / spots.limit)
        plain = f"{short_id(table['id'].iloc[row], 11)} ({signed(float(table['delta_pa'].iloc[row]))})"
        width = 0.03 + LETTER_WIDTH * len(html.unescape(plain))
        outwards = 1 if x >= 0 else -1
        for side in (outwards, -outwards):
            left, right = sorted((x, x + side * width))
            fits = left > -1.05 and right < 1.05
            if not fits or any(right > a and left < b and abs(y - height) < 0.06 for a, b, height in taken):
                continue
            taken.append((left, right, y))
            place = {"xref": "x", "yref": "y", "x": float(spots.x[row]), "y": float(spots.y[row]), "xshift": 7 * side}
            labels.append(note(plain, colours, **place, xanchor="left" if side > 0 else "right"))
            break
    return labels


def _caption(
    table: pd.DataFrame, rows: np.ndarray[Any, Any], options: InfluenceOptions, colours: Ink
) -> dict[str, Any]:
    """What radius and angle mean and, where points were left out, how many are drawn of how many."""
    lines = [f"{RADIUS_MEANING[options.radius]}. The angle is a hash of the id and has no meaning."]
    if options.colour != "sign":
        lines.append(f"Colour: {COLOUR_MEANING[options.colour]}. Circle: helps; diamond: hurts.")
    if len(rows) < len(table):
        lines.append(
            f"{len(rows):,} of {len(table):,} points drawn: the {extremes(options.max_points):,} largest |ΔPA| "
            "and a fixed thinning of the rest; the shading is the density of all."
        )
    return note("<br>".join(lines), colours, x=0, y=0, xanchor="left", yanchor="top", yshift=-8)


def _density(spots: Places, colours: Ink) -> go.Heatmap:
    """How many of all rows lie in each cell of a square grid, in logarithmic greys; empty cells stay clear."""
    edges = np.linspace(-spots.limit, spots.limit, DENSITY_CELLS + 1)
    counts = np.histogram2d(spots.y, spots.x, bins=[edges, edges])[0]
    centres = (edges[:-1] + edges[1:]) / 2
    shade = np.where(counts > 0, np.log10(1 + counts), np.nan)
    scale = [[0, colours.paper], [1, colours.muted]]
    return go.Heatmap(
        x=centres, y=centres, z=shade, zmin=0, colorscale=scale, showscale=False, hoverinfo="skip", opacity=0.75
    )
