"""The points of Figure 1: a shape and colour for each sign of ΔPA, a label of escaped text, the id in `customdata`.

Many points are drawn in alternating layers of both signs, so that neither hides the other where they crowd.
"""

import html
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from u2a_core.figures.excerpt import hover_text, short_id, signed
from u2a_core.figures.palette import Ink
from u2a_core.figures.polar import Hashes, stable_hashes

Rows = NDArray[np.intp]
HOVER_BUDGET = 250_000  # characters of prompts, and as many of responses, over all labels of one figure
CROWD = 300  # points above which the signs alternate in layers
LAYERS = 6
MANY = 3000  # points above which they lose their outline


@dataclass(frozen=True)
class Kind:
    """One sign of ΔPA: what it is called and how it is drawn."""

    name: str
    condition: str
    symbol: str
    sign: int


KINDS = (
    Kind("helps", "ΔPA > 0", "circle", 1),
    Kind("hurts", "ΔPA < 0", "diamond", -1),
    Kind("no effect", "ΔPA = 0", "square-open", 0),
)


def marks(
    table: pd.DataFrame, rows: Rows, colours: Ink, hashes: Hashes | None = None
) -> list[tuple[Rows, dict[str, Any]]]:
    """The traces that draw `rows`, bottom first: row numbers, and everything of the trace but where its points stand.

    The first trace of a sign carries the legend entry for all of them; its count is that of the table, drawn or not.
    """
    signs = np.sign(table["delta_pa"].to_numpy())
    layers = _layers(table, rows, hashes)
    traces: list[tuple[Rows, dict[str, Any]]] = []
    for layer in range(int(layers.max(initial=0)) + 1):
        for kind in KINDS if layer % 2 == 0 else KINDS[::-1]:
            members = rows[(signs[rows] == kind.sign) & (layers == layer)]
            if len(members) or (layer == 0 and (signs == kind.sign).any()):
                style = {
                    "name": f"{kind.name} ({html.escape(kind.condition, quote=False)}): {(signs == kind.sign).sum():,}",
                    "legendgroup": kind.name,
                    "showlegend": layer == 0,
                    "marker": _marker(kind, len(rows), colours),
                    "customdata": table["id"].iloc[members].to_numpy(dtype=object),
                    "hovertext": _hovers(table, members, len(rows)),
                }
                traces.append((members, {"mode": "markers", "hoverinfo": "text", **style}))
    return traces


def _layers(table: pd.DataFrame, rows: Rows, hashes: Hashes | None) -> NDArray[np.intp]:
    """The layer of each row, by a hash of its id; a few points need only one."""
    if len(rows) <= CROWD:
        return np.zeros(len(rows), dtype=np.intp)
    lottery = (stable_hashes(table["id"].iloc[rows]) if hashes is None else hashes[rows])[:, 1]
    return (lottery % np.uint64(LAYERS)).astype(np.intp)


def _marker(kind: Kind, drawn: int, colours: Ink) -> dict[str, Any]:
    """Smaller and without an outline where there are many."""
    colour = {1: colours.helps, -1: colours.hurts, 0: colours.neutral}[kind.sign]
    size = min(9.0, max(3.0, 9.0 - 3.3 * math.log10(max(drawn, 1) / CROWD)))
    many = drawn > MANY
    outline = {"width": 0 if many else 0.6, "color": colours.paper if kind.sign else colour}
    opacity = 0.6 if many else 0.75
    return {"symbol": kind.symbol, "size": round(size, 1), "color": colour, "opacity": opacity, "line": outline}


def _hovers(table: pd.DataFrame, members: Rows, drawn: int) -> NDArray[np.str_]:
    """One label a point, [n]; the more points, the shorter the excerpts. An array, since Plotly checks lists slowly."""
    length = max(50, min(180, HOVER_BUDGET // max(drawn, 1)))
    names = ("id", "delta_pa", "low_reward_proportion", "category", "prompt", "response")
    columns = [table[name].iloc[members].to_numpy(dtype=object) for name in names]
    return np.array([_hover(*values, length=length) for values in zip(*columns, strict=True)], dtype=str)


def _hover(
    identity: str, delta: float, low: float | None, category: str | None, prompt: str, response: str, *, length: int
) -> str:
    verdict = "unlearning helps" if delta > 0 else "unlearning hurts" if delta < 0 else "no effect"
    lines = [f"<b>{short_id(identity, 40)}</b>", f"ΔPA {signed(delta)} nats per pair: {verdict}"]
    lines.append("no token rewards" if pd.isna(low) else f"low-reward tokens {low:.0%}")
    if not pd.isna(category):
        lines.append(f"category {hover_text(str(category), 60)}")
    texts = ["<b>Prompt</b>", hover_text(prompt, length), "<b>Response</b>", hover_text(response, length)]
    return "<br>".join([*lines, "", *texts])
