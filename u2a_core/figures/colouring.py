"""Other colours for the points of Figure 1: by category or low-reward proportion; the shape keeps the sign of ΔPA."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from u2a_core.figures.choosing import category_names, numbers
from u2a_core.figures.excerpt import hover_text
from u2a_core.figures.marks import KINDS, Rows
from u2a_core.figures.palette import Ink, ThemeName

ColourMode = Literal["sign", "category", "low-reward"]
COLOUR_MODES: tuple[ColourMode, ...] = get_args(ColourMode)
COLOUR_MEANING = {"category": "category", "low-reward": "share of low-reward tokens in the response"}
BINS = 5  # of the low-reward proportion
# Okabe and Ito's colours, in an order in which neighbours differ also in lightness; the last one is for all others.
CATEGORIES = {
    "light": ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7a828c"),
    "dark": ("#56b4e9", "#e69f00", "#2fc79c", "#e3a0c6", "#ff7f3f", "#f0e442", "#9aa4b2"),
}
PROPORTIONS = {  # of cividis, whose lightness rises (dark ground) or falls (light ground) evenly
    "light": ("#d9c350", "#aa9c70", "#7c7b78", "#4f5b6e", "#00204c"),
    "dark": ("#4a6488", "#7d7f84", "#a59c74", "#d0be5a", "#ffea46"),
}


@dataclass(frozen=True, eq=False)
class Groups:
    """Colour groups of all rows: names (plain text) and colours, and the number of each row's group, [N]."""

    names: tuple[str, ...]
    colours: tuple[str, ...]
    codes: NDArray[np.intp]


def colour_groups(table: pd.DataFrame, mode: ColourMode, theme: ThemeName, colours: Ink) -> Groups:
    """The groups of `category` (the most frequent ones by name, then all others) or `low-reward` (in fifths)."""
    if mode == "category":
        codes, names = pd.factorize(category_names(table))
        order = np.argsort(-np.bincount(codes, minlength=len(names)), kind="stable")
        palette = CATEGORIES[theme]
        place = np.empty(len(names), dtype=np.intp)
        place[order] = np.minimum(np.arange(len(names)), len(palette) - 1)
        shown = [str(names[one]) for one in order[: len(palette)]]
        if len(names) > len(palette):
            shown[-1] = f"{len(names) - len(palette) + 1} other categories"
        return Groups(tuple(shown), palette[: len(shown)], place[codes])
    share = numbers(table, "low_reward_proportion")
    bins = np.where(np.isnan(share), BINS, np.minimum(np.nan_to_num(share) * BINS, BINS - 1)).astype(np.intp)
    fifths = [f"{k * 100 // BINS} to {(k + 1) * 100 // BINS} %" for k in range(BINS)]
    return Groups((*fifths, "no token rewards"), (*PROPORTIONS[theme], colours.neutral), bins)


def coloured(style: dict[str, Any], members: Rows, groups: Groups) -> dict[str, Any]:
    """The style of a trace of `marks`, its points in the colours of their groups and without its legend entry."""
    last = len(groups.names)
    steps = [[edge / last, colour] for k, colour in enumerate(groups.colours) for edge in (k, k + 1)]
    scale = {"color": groups.codes[members], "colorscale": steps, "cmin": -0.5, "cmax": last - 0.5, "showscale": False}
    return {**style, "marker": {**style["marker"], **scale}, "showlegend": False, "legendgroup": ""}


def legend_styles(table: pd.DataFrame, groups: Groups, colours: Ink) -> list[dict[str, Any]]:
    """Styles of traces without points that explain shapes and colours, with the counts of the table."""
    signs = np.sign(table["delta_pa"].to_numpy())
    counts = np.bincount(groups.codes, minlength=len(groups.names))
    shapes = [(f"{kind.name}: {(signs == kind.sign).sum():,}", kind.symbol, colours.muted) for kind in KINDS
              if (signs == kind.sign).any()]  # fmt: skip
    fills = [(f"{hover_text(name, 30)}: {count:,}", "square", colour)
             for name, colour, count in zip(groups.names, groups.colours, counts, strict=True) if count]  # fmt: skip
    return [
        {"name": name, "mode": "markers", "hoverinfo": "skip", "marker": {"symbol": symbol, "size": 9, "color": colour}}
        for name, symbol, colour in (*shapes, *fills)
    ]
