"""The bi-level problem in two dimensions, all in closed form: five bad answers, one anchor, one goal.

Unlearning answer i pulls θ to its point m_i: φ_i(θ) = ½‖θ − m_i‖². Inner problem, with its minimum:
θ*(ω) = argmin Σ ω_i φ_i(θ) / Σ ω_i + (λ/2)‖θ − θ0‖² = (Σ ω_i m_i / Σ ω_i + λ θ0) / (1 + λ).
Outer problem: the ω with the highest J(θ*(ω)), J(θ) = −½‖θ − goal‖². Influence (Prop. 4.2, arXiv 2504.06659):
ΔJ ≈ −∇J(θ0)ᵀ H⁻¹ Σ ω_i ∇φ_i(θ0) / Σ ω_i with H = (1 + λ) I, exact but for the bend of J, ½‖θ* − θ0‖².
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray
from plotly.subplots import make_subplots

from u2a_core.figures.excerpt import signed
from u2a_core.figures.palette import Ink, PaletteName, ThemeName, frame, ink

Floats = NDArray[np.float64]
HOW_TO_READ = (
    "Left, the model as a point θ: unlearning pulls it from θ0 towards the bad answers that carry weight, the anchor λ "
    "holds it back. The rings are equally good models; the best is in the middle. Right, the change of J for every "
    "share of the weight: what influence predicts from θ0, and what really comes of it."
)
STEPS, NAMED = 101, 72  # shares at which the curves are drawn, and where their names stand
RINGS = (0.5, 1.0, 2.0, 4.0)  # that much below the best J
HEIGHTS = [-2.6, 4.8]  # of ΔJ for every anchor of the page, so that the curve changes and not the scale
ANCHORS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, eq=False)
class Toy:
    """`start` θ0 [2], `goal` [2] where J is best, `points` m_i [n, 2]; `first` samples make group A, the others B."""

    start: Floats
    goal: Floats
    points: Floats
    first: int

    def weights(self, share: float) -> Floats:
        """ω, [n] with mean 1, that gives group A this share of all weight (0 to 1), alike within each group."""
        n, first = len(self.points), self.first
        return np.array([share * n / first] * first + [(1 - share) * n / (n - first)] * (n - first))

    def solution(self, weights: ArrayLike, anchor: float) -> Floats:
        """θ*(ω), [2]; `anchor` is λ."""
        return (self._mean(weights) + anchor * self.start) / (1 + anchor)

    def alignment(self, theta: Floats) -> float:
        """J(θ), at most 0: higher is better."""
        return -0.5 * float(np.sum((theta - self.goal) ** 2))

    def gradient(self, weights: ArrayLike, anchor: float) -> Floats:
        """dJ(θ*(ω))/dω_i, [n], by the implicit function theorem."""
        moves = (self.points - self._mean(weights)) / (np.sum(weights) * (1 + anchor))
        slopes: Floats = moves @ (self.goal - self.solution(weights, anchor))
        return slopes

    def realised(self, weights: ArrayLike, anchor: float) -> float:
        """J(θ*(ω)) − J(θ0); > 0: unlearning helps."""
        return self.alignment(self.solution(weights, anchor)) - self.alignment(self.start)

    def predicted(self, weights: ArrayLike, anchor: float) -> float:
        """ΔJ by influence at θ0; > 0: unlearning helps."""
        return float(np.asarray(weights) @ self.influence(anchor)) * len(self.points) / float(np.sum(weights))

    def influence(self, anchor: float) -> Floats:
        """Predicted ΔPA of each sample, [n]: its part of `predicted` where all ω are 1."""
        slopes = (self.start - self.points) @ (self.goal - self.start)  # ∇φ_iᵀ ∇J at θ0
        return -slopes / ((1 + anchor) * len(self.points))

    def best_share(self, anchor: float) -> float:
        """The share of weight on group A with the highest J(θ*(ω)): θ* moves on a straight line, J bends downwards."""
        none, all_ = (self.solution(self.weights(share), anchor) for share in (0.0, 1.0))
        along = all_ - none
        return float(np.clip((self.goal - none) @ along / (along @ along), 0, 1))

    def _mean(self, weights: ArrayLike) -> Floats:
        mean: Floats = np.average(self.points, axis=0, weights=np.asarray(weights, dtype=np.float64))
        return mean


TOY = Toy(
    start=np.zeros(2),
    goal=np.array([1.5, 0.8]),
    points=np.array([[2.6, 0.3], [1.9, 2.3], [3.1, 1.6], [-1.5, 0.9], [-0.8, -1.4]]),
    first=3,
)


def toy_figure(share: float, anchor: float, palette: PaletteName = "paper", theme: ThemeName = "light") -> go.Figure:
    """The toy at one `share` of weight on group A and one `anchor` λ: the plane of θ, and ΔJ for every share."""
    colours = ink(palette, theme)
    figure = make_subplots(1, 2, column_widths=[0.52, 0.48], horizontal_spacing=0.1)
    for trace in _plane(share, anchor, colours):
        figure.add_trace(trace, 1, 1)
    for trace in _curves(share, anchor, colours):
        figure.add_trace(trace, 1, 2)
    lines = {"gridcolor": colours.grid, "linecolor": colours.grid, "zerolinecolor": colours.muted, "zerolinewidth": 1}
    small = {"font": {"size": 14}}
    hidden, percent = {"visible": False}, {"tickformat": ".0%", "zeroline": False}
    figure.update_layout(
        **frame(colours),
        xaxis={**hidden, "range": [-2.1, 3.9]},
        yaxis={**hidden, "range": [-1.9, 2.7], "scaleanchor": "x", "scaleratio": 1},
        xaxis2={
            **lines,
            "title": {"text": "share of the weight on group A", **small},
            "range": [-0.02, 1.04],
            **percent,
        },
        yaxis2={**lines, "title": {"text": "ΔJ, in the toy's units", **small}, "range": HEIGHTS},
        shapes=_rings(colours),
        margin={"l": 8, "r": 16, "t": 36, "b": 46},
        height=325,
    )
    legend = {"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom"}
    return figure.update_layout(legend={**frame(colours)["legend"], **legend})


def told(share: float, anchor: float) -> str:
    """The present state in two sentences, for the page and as the figure's text alternative."""
    weights, best = TOY.weights(share), TOY.best_share(anchor)
    predicted, realised = TOY.predicted(weights, anchor), TOY.realised(weights, anchor)
    word = "better" if realised > 0 else "worse" if realised < 0 else "neither better nor worse"
    at_best = TOY.realised(TOY.weights(best), anchor)
    return (
        f"Predicted ΔJ {signed(predicted)}, realised {signed(realised)}: the model gets {word}. The best for this "
        f"anchor is {best:.0%} on group A, ΔJ {signed(at_best)}."
    )


def _plane(share: float, anchor: float, colours: Ink) -> list[go.Scatter]:
    """Samples by the sign of their influence and as large as their weight, the way of θ*, θ0 and the goal."""
    weights, effects = TOY.weights(share), TOY.influence(anchor)
    found = TOY.solution(weights, anchor)
    traces = [_reach(anchor, colours)]
    for helps, name, symbol, colour in (
        (True, "A: unlearning helps", "circle", colours.helps),
        (False, "B: unlearning hurts", "diamond", colours.hurts),
    ):
        rows = np.flatnonzero((effects > 0) == helps)
        size = 9 + 9 * np.sqrt(weights[rows])
        texts = [
            f"<b>bad answer {row + 1}</b><br>ω = {weights[row]:.2f}<br>influence at θ0 {signed(float(effects[row]))}"
            for row in rows
        ]
        style = {"symbol": symbol, "size": size, "color": colour, "line": {"width": 1, "color": colours.paper}}
        traces.append(_points(TOY.points[rows], name, style, texts))
    move = np.stack([TOY.start, found])
    arrow = {"symbol": ["square", "arrow"], "size": [12, 17], "angleref": "previous", "color": colours.text}
    spots = ["<b>θ0</b>, before unlearning", f"<b>θ*(ω)</b>, after unlearning<br>J = {TOY.alignment(found):.2f}"]
    traces.append(
        go.Scatter(
            x=move[:, 0], y=move[:, 1], mode="lines+markers+text", showlegend=False, marker=arrow,
            line={"color": colours.text, "width": 2.4}, text=["θ0", "θ*"], textposition=["bottom left", "top left"],
            hovertext=spots, hoverinfo="text",
        )
    )  # fmt: skip
    cross = {"symbol": "cross", "size": 13, "color": colours.neutral}
    traces.append(_points(TOY.goal[None], "best J", cross, ["<b>the best model</b>, J = 0"]))
    return traces


def _points(places: Floats, name: str, style: dict[str, Any], texts: list[str]) -> go.Scatter:
    return go.Scatter(
        x=places[:, 0], y=places[:, 1], mode="markers", name=name, marker=style, hovertext=texts, hoverinfo="text"
    )


def _reach(anchor: float, colours: Ink) -> go.Scatter:
    """Where θ* can be for this anchor."""
    ends = np.stack([TOY.solution(TOY.weights(share), anchor) for share in (0.0, 1.0)])
    line = {"color": colours.muted, "width": 1.4, "dash": "dot"}
    return go.Scatter(x=ends[:, 0], y=ends[:, 1], mode="lines", name="where θ* can be", line=line, hoverinfo="skip")


def _curves(share: float, anchor: float, colours: Ink) -> list[go.Scatter]:
    """Predicted and realised ΔJ for every share, both at the present one, and the best."""
    shares = np.linspace(0, 1, STEPS)
    weights = [TOY.weights(one) for one in shares]
    lines = (
        ("predicted", [TOY.predicted(one, anchor) for one in weights], "dash"),
        ("realised", [TOY.realised(one, anchor) for one in weights], "solid"),
    )
    hover = "%{x:.0%} on A: %{y:+.2f} %{fullData.name}<extra></extra>"
    traces = [
        go.Scatter(
            x=shares, y=values, mode="lines+text", name=name, hovertemplate=hover, showlegend=False,
            text=[name if place == NAMED else "" for place in range(STEPS)],
            textposition="bottom right" if name == "realised" else "top left",
            line={"color": colours.muted if dash == "dash" else colours.text, "width": 2.4, "dash": dash},
        )
        for name, values, dash in lines
    ]  # fmt: skip
    now, best = TOY.weights(share), TOY.best_share(anchor)
    realised = TOY.realised(now, anchor)
    ends = [TOY.predicted(now, anchor), realised]
    colour = colours.helps if realised > 0 else colours.hurts
    symbol = ["circle-open", "circle" if realised > 0 else "diamond"]
    marker = {"symbol": symbol, "size": 13, "color": colour, "line": {"width": 2}}
    gap = {"color": colour, "width": 1.2, "dash": "dot"}
    traces.append(
        go.Scatter(x=[share, share], y=ends, mode="lines+markers", showlegend=False, marker=marker, line=gap,
                   hovertext=["predicted now", "realised now"], hoverinfo="text+y")
    )  # fmt: skip
    star = {"symbol": "star", "size": 16, "color": colours.neutral, "line": {"width": 1, "color": colours.text}}
    at_best = TOY.realised(TOY.weights(best), anchor)
    traces.append(
        go.Scatter(x=[best], y=[at_best], mode="markers", name="best ω", marker=star, hovertemplate=hover)
    )  # fmt: skip
    return traces


def _rings(colours: Ink) -> list[dict[str, Any]]:
    """Circles of equal J."""
    return [
        {
            "type": "circle", "xref": "x", "yref": "y", "layer": "below", "line": {"color": colours.grid, "width": 1.2},
            "x0": TOY.goal[0] - radius, "x1": TOY.goal[0] + radius,
            "y0": TOY.goal[1] - radius, "y1": TOY.goal[1] + radius,
        }
        for radius in (float(np.sqrt(2 * below)) for below in RINGS)
    ]  # fmt: skip
