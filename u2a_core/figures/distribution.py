"""The tail of ΔPA beside Figure 1: a histogram with logarithmic counts, and how much the largest tenth carries."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from u2a_core.figures.palette import Ink, note

BINS_A_SIDE = 18


def add_distribution(figure: go.Figure, table: pd.DataFrame, colours: Ink) -> None:
    """A histogram of ΔPA beside the scatter, counts on a logarithmic axis; no bin holds both signs."""
    delta = table["delta_pa"].to_numpy(dtype=np.float64)
    magnitude = np.sort(np.abs(delta))[::-1]
    width = float(magnitude[0]) / BINS_A_SIDE or 1.0
    edges = np.arange(BINS_A_SIDE + 1) * width
    for sign, colour in ((1, colours.helps), (-1, colours.hurts)):
        counts = np.histogram(np.minimum(sign * delta[sign * delta > 0], edges[-1]), bins=edges)[0]
        centres = sign * (edges[:-1] + edges[1:]) / 2
        bars = {"marker": {"color": colour, "line": {"width": 0}}, "showlegend": False, "xaxis": "x2", "yaxis": "y2"}
        hover = "ΔPA near %{x:.3g}: %{y} examples<extra></extra>"
        figure.add_trace(go.Bar(x=centres, y=counts, width=0.92 * width, hovertemplate=hover, **bars))
    tenth = max(1, len(magnitude) // 10)
    share = magnitude[:tenth].sum() / (magnitude.sum() or 1.0)
    axis = {
        "showgrid": False,
        "linecolor": colours.grid,
        "tickcolor": colours.grid,
        "ticks": "outside",
        "zeroline": False,
    }
    ticks = {"tickvals": [10**power for power in range(8)], "gridcolor": colours.grid, "showgrid": True}
    figure.update_layout(
        xaxis2={
            **axis,
            "domain": [0.76, 1],
            "anchor": "y2",
            "title": {"text": "ΔPA, nats per pair", "font": {"size": 14}},
            "nticks": 5,
        },
        yaxis2={
            **axis,
            **ticks,
            "domain": [0.2, 0.8],
            "anchor": "x2",
            "type": "log",
            "title": {"text": "examples (log scale)", "font": {"size": 14}},
        },
        bargap=0,
    )
    text = f"The largest {tenth:,} of {len(magnitude):,}<br>carry {share:.0%} of all |ΔPA|"
    figure.add_annotation(note(text, colours, x=0.76, y=0.81, xanchor="left", yanchor="bottom"))
