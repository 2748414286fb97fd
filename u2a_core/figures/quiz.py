"""The quiz: a few samples, one of which hurts at least `FACTOR` times as much as any other when it is unlearned.

A question is drawn by a seed: the same scores and seed give the same question, in any row order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from u2a_core.errors import ScoringError
from u2a_core.figures.excerpt import signed
from u2a_core.figures.palette import PaletteName, ThemeName, frame, ink

LETTERS = "ABCD"
FACTOR = 2  # how much more the worst hurts
SHARE = 0.05  # of all samples, the most harmful: the worst of a question is one of them


@dataclass(frozen=True)
class Question:
    """`rows` of the table by letter, and which letter hurts most."""

    rows: tuple[int, ...]
    worst: str

    @property
    def letters(self) -> str:
        """One letter a sample."""
        return LETTERS[: len(self.rows)]


def draw_question(table: pd.DataFrame, seed: int) -> Question:
    """Up to four samples of a table of scores (columns id, delta_pa); two or three where only so many fit.

    Raises `ScoringError` where no sample hurts, or none hurts clearly less than the worst one.
    """
    order = np.lexsort((table["id"].to_numpy(dtype=str), table["delta_pa"].to_numpy()))
    delta = table["delta_pa"].to_numpy(dtype=np.float64)[order]
    harmful = int((delta < 0).sum())
    if not harmful:
        raise ScoringError(
            f"None of the {len(table):,} samples hurts (ΔPA < 0), so there is no question to ask. Choose other scores."
        )
    generator = np.random.default_rng(seed)
    worst = int(generator.integers(min(harmful, max(1, round(SHARE * len(delta))))))
    others = np.flatnonzero(delta >= delta[worst] / FACTOR)
    if not len(others):
        raise ScoringError(
            f"No two of the {len(table):,} samples are far enough apart to ask about: one must hurt at least "
            f"{FACTOR} times as much as the other. Score more samples, or choose other scores."
        )
    parts = np.array_split(others, min(len(LETTERS) - 1, len(others)))  # by rising ΔPA: one of each
    drawn = generator.permutation([worst, *(int(generator.choice(part)) for part in parts)])
    return Question(tuple(int(order[one]) for one in drawn), LETTERS[int(np.flatnonzero(drawn == worst)[0])])


def quiz_figure(
    deltas: Sequence[float], worst: str, palette: PaletteName = "paper", theme: ThemeName = "light"
) -> go.Figure:
    """ΔPA of each sample of a question as a bar, in nats per pair; a sign and a word go with the colour."""
    colours = ink(palette, theme)
    letters = LETTERS[: len(deltas)]
    words = ["hurts" if one < 0 else "helps" if one > 0 else "no effect" for one in deltas]
    labels = [
        f"<b>{letter}</b>  {signed(one)}<br>{word}{' most' if letter == worst else ''}"
        for letter, one, word in zip(letters, deltas, words, strict=True)
    ]
    shades = {"hurts": colours.hurts, "helps": colours.helps, "no effect": colours.neutral}
    bar = go.Bar(
        x=list(deltas),
        y=list(letters),
        orientation="h",
        hoverinfo="skip",
        marker={
            "color": [shades[word] for word in words],
            "pattern": {"shape": ["/" if word == "hurts" else "" for word in words], "fgcolor": colours.paper},
        },
    )
    axis = {"gridcolor": colours.grid, "zerolinecolor": colours.muted, "zerolinewidth": 2}
    ticks = {"tickvals": list(letters), "ticktext": labels}
    title = {"text": "ΔPA, nats per pair; below 0: hurts", "font": {"size": 14}}
    return go.Figure(
        bar,
        layout={
            **frame(colours),
            "xaxis": {**axis, "title": title, "exponentformat": "power", "nticks": 4},
            "yaxis": {**ticks, "autorange": "reversed", "automargin": True, "showgrid": False, "ticks": ""},
            "margin": {"l": 90, "r": 12, "t": 8, "b": 52},
            "height": 70 + 46 * len(deltas),
        },
    )
