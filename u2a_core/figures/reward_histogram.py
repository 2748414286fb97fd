"""All token rewards as a histogram with the threshold τ: what lies below it is low-reward, hatched and red."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from u2a_core.figures.palette import Ink, frame, note

BINS = 60
HEIGHT = 250


def reward_histogram(rewards: NDArray[np.float64], threshold: float, colours: Ink) -> go.Figure:
    """Counts of finite `rewards` (in the reward model's units), at least one; `customdata` is a bar's right edge."""
    counts, edges = np.histogram(rewards, BINS)
    low = np.histogram(rewards[rewards < threshold], edges)[0]
    share = float((rewards < threshold).mean())
    figure = go.Figure(layout=_layout(colours))
    centres, width = (edges[:-1] + edges[1:]) / 2, float(edges[1] - edges[0])
    hatch = {"shape": "/", "fillmode": "overlay", "size": 5, "solidity": 0.25, "fgcolor": colours.paper}
    for name, heights, marker in (
        ("low", low, {"color": colours.hurts, "pattern": hatch}),
        ("not low", counts - low, {"color": colours.helps}),
    ):
        figure.add_trace(
            go.Bar(
                x=centres,
                y=heights,
                width=width,
                name=name,
                marker={**marker, "line": {"width": 0}},
                customdata=edges[1:],
                hovertemplate=f"reward near %{{x:.3g}}: %{{y:,}} tokens, {name}<extra></extra>",
                showlegend=False,
            )
        )
    figure.add_vline(threshold, line={"color": colours.text, "width": 1.6})
    told = f"τ = {threshold:.4g}; {share:.1%} of {len(rewards):,} tokens are low".replace("-", "−")
    side = "right" if threshold > (edges[0] + edges[-1]) / 2 else "left"
    place = {"x": threshold, "xref": "x", "y": 1, "yanchor": "bottom", "xanchor": side}
    figure.add_annotation(note(told, colours, **place, font={"size": 13, "color": colours.text}))
    return figure


def chosen_threshold(points: list[dict[str, float]], boxes: list[dict[str, list[float]]]) -> float | None:
    """τ after a choice in the histogram: the right end of a box, or of the bars clicked; None for no choice."""
    if boxes:
        return max(float(max(one["x"])) for one in boxes)
    ends = [float(one["customdata"]) for one in points]
    return max(ends) if ends else None


def _layout(colours: Ink) -> dict[str, object]:
    axis = {"gridcolor": colours.grid, "linecolor": colours.grid, "zeroline": False, "automargin": True}
    return {
        **frame(colours),
        "barmode": "stack",
        "bargap": 0,
        "height": HEIGHT,
        "hovermode": "x",  # a click means the bar above or below it: most bars are too low to hit
        "selectdirection": "h",
        "margin": {"l": 60, "r": 16, "t": 28, "b": 44},
        "xaxis": {**axis, "title": {"text": "token reward, in the reward model's units", "font": {"size": 13}}},
        "yaxis": {**axis, "title": {"text": "tokens", "font": {"size": 13}}, "exponentformat": "none"},
    }
