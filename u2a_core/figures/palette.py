"""Colours, type and frame that the figures share: blue helps, red hurts, in the paper's colours or in Okabe and Ito's.

Colour is never the only channel: shape and a written sign always go with it.
"""

from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go

PaletteName = Literal["paper", "okabe-ito"]
ThemeName = Literal["light", "dark"]

FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Noto Sans', 'DejaVu Sans', sans-serif"
SIGN_HELP = "ΔPA > 0: unlearning helps · ΔPA < 0: it hurts"


@dataclass(frozen=True)
class Ink:
    """The colours of one figure."""

    helps: str
    hurts: str
    neutral: str
    text: str
    muted: str
    grid: str
    paper: str


_SIGN_COLOURS = {
    ("paper", "light"): ("#1d5fb4", "#c8312b"),
    ("paper", "dark"): ("#6cb2ff", "#ff7468"),
    ("okabe-ito", "light"): ("#0072b2", "#d55e00"),
    ("okabe-ito", "dark"): ("#56b4e9", "#e69f00"),
}


def ink(palette: PaletteName, theme: ThemeName) -> Ink:
    """The colours of a palette on a light or a dark ground."""
    helps, hurts = _SIGN_COLOURS[palette, theme]
    if theme == "dark":
        return Ink(helps, hurts, "#9aa4b2", "#e8ebf0", "#a5aebb", "#39414d", "#12161c")
    return Ink(helps, hurts, "#7a828c", "#1b1f24", "#5b636e", "#d5dae1", "#ffffff")


def frame(colours: Ink) -> dict[str, Any]:
    """The layout that every figure begins with: ground, type, legend, hover label."""
    return {
        "template": "none",
        "paper_bgcolor": colours.paper,
        "plot_bgcolor": colours.paper,
        "font": {"family": FONT, "size": 14, "color": colours.text},
        "legend": {"font": {"size": 14}, "bgcolor": "rgba(0,0,0,0)", "itemsizing": "constant"},
        "hoverlabel": {
            "align": "left",
            "bgcolor": colours.paper,
            "bordercolor": colours.muted,
            "font": {"family": FONT, "size": 13, "color": colours.text},
        },
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": colours.muted, "activecolor": colours.text},
        "hovermode": "closest",
    }


def headline(title: str, lines: list[str], colours: Ink) -> dict[str, Any]:
    """A left-aligned title with smaller lines below it, hung from the upper edge; the caller escapes `lines`."""
    return {
        "text": f"<b>{title}</b>",
        "subtitle": {"text": "<br>".join(lines), "font": {"size": 13, "color": colours.muted}},
        "font": {"size": 19, "color": colours.text},
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": 0.975,
        "yref": "container",
        "yanchor": "top",
    }


def note(text: str, colours: Ink, **place: Any) -> dict[str, Any]:
    """An annotation without arrow, placed on the paper unless told otherwise."""
    return {
        "text": text,
        "showarrow": False,
        "xref": "paper",
        "yref": "paper",
        "align": "left",
        "font": {"size": 12, "color": colours.muted},
        **place,
    }


def empty_figure(reason: str, remedy: str, colours: Ink) -> go.Figure:
    """A figure that holds only why there is nothing to draw, and what to do."""
    text = f"<b>{reason}</b><br><span style='font-size:14px'>{remedy}</span>"
    message = note(text, colours, x=0.5, y=0.5, align="center", font={"size": 17, "color": colours.text})
    hidden = {"visible": False}
    return go.Figure(layout={**frame(colours), "xaxis": hidden, "yaxis": hidden, "annotations": [message]})
