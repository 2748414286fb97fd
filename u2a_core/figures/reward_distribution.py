"""Distributions on page Compare: rewards of the answers on both sides, and ΔPA of what each run unlearned."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from u2a_core.figures.comparison import Axis, Row, histogram_rows
from u2a_core.figures.palette import SIGN_HELP, PaletteName, ThemeName, empty_figure, ink

Floats = NDArray[np.float64]


def reward_figure(
    left: Floats, right: Floats, names: tuple[str, str], palette: PaletteName, theme: ThemeName
) -> go.Figure:
    """Mean token rewards of the answers left and right, in the reward model's units; answers without one (NaN) are
    counted in words.
    """
    rows, without = [], []
    for name, values in zip(names, (left, right), strict=True):
        rows.append(Row(name, values[np.isfinite(values)]))
        without.append(int((~np.isfinite(values)).sum()))
    if not any(len(row.values) for row in rows):
        remedy = "Give the bundle a reward model with u2a reward, and evaluate again."
        return empty_figure("These answers have no rewards", remedy, ink(palette, theme))
    lines = ["To the right: the reward model likes the answer better. Dotted: the median."]
    if any(without):
        lines.append(f"Answers without a reward, which are not drawn: {without[0]:,} and {without[1]:,}.")
    axis = Axis("mean token reward of an answer, units of the reward model")
    return histogram_rows(rows, axis, "Rewards of answers to test prompts", lines, palette, theme)


def delta_pa_figure(
    scores: pd.DataFrame, sets: Sequence[tuple[str, Collection[str]]], palette: PaletteName, theme: ThemeName
) -> go.Figure:
    """Predicted ΔPA (nats per pair) of the candidates in each of `sets`, names with ids, and of those in none."""
    delta = scores["delta_pa"].to_numpy(np.float64)
    members = [(name, scores["id"].isin(list(ids)).to_numpy()) for name, ids in sets]
    rest = ~np.logical_or.reduce([inside for _, inside in members]) if members else np.ones(len(delta), dtype=bool)
    rows = [Row(f"unlearned by {name}", delta[inside]) for name, inside in members]
    rows.append(Row("not unlearned", delta[rest]))
    lines = [f"{SIGN_HELP}. Counts on a logarithmic axis; dotted: the median."]
    axis = Axis("predicted ΔPA, nats per pair", log=True)
    return histogram_rows(rows, axis, "Predicted ΔPA of what was unlearned", lines, palette, theme)
