"""How the weights ω of a forget set are spread: suggested ones as bars, those of the present set as a dotted line."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from u2a_core.figures.palette import PaletteName, ThemeName, frame, ink

BINS = 24


def weight_figure(
    present: Sequence[float], suggested: Sequence[float], theme: ThemeName = "light", palette: PaletteName = "paper"
) -> go.Figure:
    """Histograms of the ω of some examples (mean 1), now and as suggested, in the same bins."""
    colours = ink(palette, theme)
    edges = np.linspace(0, max(*present, *suggested) * (1 + 1e-9), BINS + 1)
    before, after = (np.histogram(weights, edges)[0] for weights in (present, suggested))
    hover = "ω near %{x:.3g}: %{y:,} examples<extra></extra>"
    figure = go.Figure(layout=frame(colours))
    bars = {"color": colours.helps, "opacity": 0.75}
    figure.add_bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=after,
        width=0.9 * edges[1],
        name="suggested",
        marker=bars,
        hovertemplate=hover,
    )
    line = {"color": colours.text, "width": 1.6, "dash": "dot"}
    figure.add_scatter(
        x=edges.repeat(2)[1:-1], y=before.repeat(2), name="now", mode="lines", line=line, hovertemplate=hover
    )
    lines = {"gridcolor": colours.grid, "linecolor": colours.grid, "zeroline": False, "rangemode": "tozero"}
    figure.update_layout(
        height=250,
        margin={"l": 60, "r": 16, "t": 34, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={
            "title": {"text": "weight ω (mean 1; 0: not unlearned)", "font": {"size": 13}},
            "showgrid": False,
            **lines,
        },
        yaxis={"title": {"text": "examples", "font": {"size": 13}}, **lines},
    )
    return figure
