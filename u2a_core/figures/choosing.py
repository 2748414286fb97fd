"""Which rows of a table of scores are meant: by a shape drawn over Figure 1, by a number, or by filters.

All answers are masks over all rows, drawn or not: a lasso is applied to the places of thinned-out rows too. A row whose
value is missing is never within a range nor beyond a threshold.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from u2a_core.figures.polar import Places

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Range = tuple[float, float]
Side = Literal["at least", "at most", "highest %", "lowest %"]
SIDES: tuple[Side, ...] = get_args(Side)
NO_CATEGORY = "(no category)"
MEASURES = {
    "ΔPA": ("delta_pa", "nats per pair; above 0: unlearning helps"),
    "|ΔPA|": ("delta_pa", "nats per pair, without its sign"),
    "Low-reward proportion": ("low_reward_proportion", "share of the response's tokens, 0 to 1"),
    "Reward": ("reward", "mean token reward, in the reward model's units"),
    "NLL": ("nll", "nats per token"),
    "Length": ("n_tokens", "response tokens"),
    "Severity": ("severity", "as in the data"),
}


@dataclass(frozen=True)
class Filters:
    """Which rows are shown. Ranges include both ends; an empty tuple, None or "" lets every row through.

    `text` is searched in prompt, response and id, case ignored.
    """

    categories: tuple[str, ...] = ()
    severity: Range | None = None
    length: Range | None = None
    low_reward: Range | None = None
    text: str = ""

    @property
    def active(self) -> int:
        """How many of them leave rows out."""
        ranges = (self.severity, self.length, self.low_reward)
        return bool(self.categories) + bool(self.text) + sum(one is not None for one in ranges)


def kept(table: pd.DataFrame, filters: Filters) -> Mask:
    """The rows that all filters let through, [N]."""
    mask = np.ones(len(table), dtype=bool)
    if filters.categories:
        named = table["category"]
        without = named.isna().to_numpy() & (NO_CATEGORY in filters.categories)
        mask &= named.isin(filters.categories).to_numpy() | without
    ranges = (("severity", filters.severity), ("n_tokens", filters.length))
    for column, limits in (*ranges, ("low_reward_proportion", filters.low_reward)):
        if limits is not None:
            mask &= _between(numbers(table, column), limits)
    if filters.text:
        found = np.zeros(len(table), dtype=bool)
        for texts in ("prompt", "response", "id"):
            hits = table[texts].str.contains(filters.text, case=False, regex=False)
            found |= hits.to_numpy(dtype=bool, na_value=False)
        mask &= found
    return mask


def present_categories(table: pd.DataFrame) -> list[str]:
    """The categories that occur, sorted; `NO_CATEGORY` last where a row has none."""
    column = table["category"]
    return sorted(map(str, column.dropna().unique())) + [NO_CATEGORY] * bool(column.isna().any())


def category_names(table: pd.DataFrame) -> "pd.Series[Any]":
    """The category of each row; `NO_CATEGORY` for none."""
    return table["category"].astype(object).where(table["category"].notna(), NO_CATEGORY)


def measure(table: pd.DataFrame, name: str) -> Floats:
    """One of `MEASURES`, [N]; NaN where it is missing."""
    values = numbers(table, MEASURES[name][0])
    return np.abs(values) if name.startswith("|") else values


def numbers(table: pd.DataFrame, column: str) -> Floats:
    """A column as numbers, [N]; NaN where it is missing."""
    return table[column].to_numpy(dtype=np.float64, na_value=np.nan)


def beyond(values: Floats, side: Side, amount: float) -> Mask:
    """The rows at or beyond a threshold, [N]: `amount` itself, or the value that `amount` % of the rows with a value
    reach (at least one row). Rows that equal the threshold are all in, so that ties make the share larger.
    """
    present = ~np.isnan(values)
    if side in ("highest %", "lowest %"):
        ascending = np.sort(values[present])
        count = math.ceil(round(len(ascending) * amount / 100, 9))
        if not len(ascending) or count < 1:
            return np.zeros(len(values), dtype=bool)
        place = min(count, len(ascending))
        amount = float(ascending[-place] if side == "highest %" else ascending[place - 1])
    with np.errstate(invalid="ignore"):
        found: Mask = values >= amount if side in ("at least", "highest %") else values <= amount
    return found & present


def within(shapes: Sequence[Mapping[str, Any]], spots: Places, delta: Floats) -> Mask:
    """The rows inside any of the boxes and lassos of a Plotly selection, [N].

    A box has two x and two y, a lasso more; both are in the drawing's coordinates. A shape over the histogram (axis x2)
    means the range of ΔPA that it spans.
    """
    found = np.zeros(len(delta), dtype=bool)
    for shape in shapes:
        x, y = np.asarray(shape["x"], dtype=np.float64), np.asarray(shape["y"], dtype=np.float64)
        if not len(x):
            continue
        if shape.get("xref", "x") != "x":
            found |= _between(delta, (float(x.min()), float(x.max())))
        elif len(x) == 2:
            limits = [(float(side.min()), float(side.max())) for side in (x, y)]
            found |= _between(spots.x, limits[0]) & _between(spots.y, limits[1])
        else:
            found |= inside(spots.x, spots.y, x, y)
    return found


def inside(x: Floats, y: Floats, outline_x: Floats, outline_y: Floats) -> Mask:
    """The points [N] inside a closed outline [M], by the even-odd rule: a ray to the right crosses an odd number of
    edges. Points are sorted by y once, so that an edge is asked only about those at its height.
    """
    order = np.argsort(y, kind="stable")
    across, height = x[order], y[order]
    odd = np.zeros(len(x), dtype=bool)
    next_x, next_y = np.roll(outline_x, -1), np.roll(outline_y, -1)
    firsts = np.searchsorted(height, np.minimum(outline_y, next_y))
    ends = np.searchsorted(height, np.maximum(outline_y, next_y))
    for edge in np.flatnonzero(ends > firsts):
        part = slice(firsts[edge], ends[edge])
        slope = (next_x[edge] - outline_x[edge]) / (next_y[edge] - outline_y[edge])
        odd[part] ^= across[part] < outline_x[edge] + slope * (height[part] - outline_y[edge])
    found = np.zeros(len(x), dtype=bool)
    found[order] = odd
    return found


def _between(values: Floats, limits: Range) -> Mask:
    with np.errstate(invalid="ignore"):
        found: Mask = (values >= limits[0]) & (values <= limits[1])
    return found
