"""What makes a selection special: where its columns differ most from the rest of the table.

Every column is compared on one scale: effect = P(selected > rest) − P(selected < rest), from −1 to 1 (Cliff's δ, which
is 2·AUC − 1); for a category or tag it is the difference of its shares. The test is the Mann-Whitney z with tie
correction, and `clear` holds for all rows together (Bonferroni, 5 %). A selection made by a column differs in it.
"""

from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from u2a_core.figures.choosing import Floats, Mask, category_names, numbers

COLUMNS = (
    "column", "value", "selected", "rest", "effect", "standardised", "n_selected", "n_rest", "verdict",
)  # fmt: skip
NUMERIC = {
    "delta_pa": "ΔPA, nats per pair",
    "nll": "NLL, nats per token",
    "n_tokens": "response tokens",
    "reward": "mean token reward",
    "low_reward_proportion": "low-reward proportion",
    "severity": "severity",
    "chosen_score": "score of the chosen answer",
    "rejected_score": "score of the rejected answer",
    "truncated": "prompt tokens cut",
}
MOST_VALUES = 20  # categories and tags that are compared, the most frequent ones
FEWEST = 5  # below so many rows on a side, or expected in a category, the test means nothing
LEVEL = 0.05
CLEAR, CHANCE, TOO_FEW = "clear", "may be chance", "too few to tell"


def contrasts(table: pd.DataFrame, selected: Mask) -> pd.DataFrame:
    """A row a compared column or value, the largest |effect| first; columns `COLUMNS`. Empty where one side is.

    `selected` and `rest` are means of numbers, or shares of categories and tags; `standardised` is the difference of
    means over the pooled standard deviation (NaN for shares); the counts are of rows that have a value. Columns without
    a value on one side, or with one value only, are left out.
    """
    rows: list[list[Any]] = []
    scores: list[float | None] = []
    for column, value, values in _compared(table):
        present = ~np.isnan(values)
        ours, others = values[present & selected], values[present & ~selected]
        if len(ours) and len(others) and np.ptp(values[present]) > 0:
            z, row = _row(ours, others, is_share=value != "")
            rows.append([column, value, *row])
            scores.append(z)
    tested = sum(z is not None for z in scores)
    limit = NormalDist().inv_cdf(1 - LEVEL / 2 / max(tested, 1))
    for line, z in zip(rows, scores, strict=True):
        line.append(TOO_FEW if z is None else CLEAR if abs(z) > limit else CHANCE)
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    return found.sort_values("effect", key=np.abs, ascending=False, kind="stable", ignore_index=True)


def _compared(table: pd.DataFrame) -> Iterator[tuple[str, str, Floats]]:
    """Column, value and numbers [N] of everything that is compared; a category or tag is 1 where it is, else 0."""
    for column, name in NUMERIC.items():
        yield name, "", numbers(table, column)
    if table["category"].notna().any():
        codes, names = pd.factorize(category_names(table))
        for code in _frequent(codes, len(names)):
            yield "category", str(names[code]), (codes == code).astype(np.float64)
    tags = table["tags"].to_numpy()
    lengths = np.fromiter((len(one) for one in tags), dtype=np.intp, count=len(tags))
    if lengths.any():
        owners = np.repeat(np.arange(len(tags)), lengths)
        marks, labels = pd.factorize(np.concatenate([np.asarray(one, dtype=object) for one in tags]))
        for code in _frequent(marks, len(labels)):
            has = np.zeros(len(tags))
            has[owners[marks == code]] = 1.0
            yield "tag", str(labels[code]), has


def _frequent(codes: NDArray[np.intp], count: int) -> list[int]:
    """The codes of the most frequent values."""
    found: list[int] = np.argsort(-np.bincount(codes, minlength=count), kind="stable")[:MOST_VALUES].tolist()
    return found


def _row(ours: Floats, others: Floats, is_share: bool) -> tuple[float | None, list[float]]:
    """z, None where the test would mean nothing; and selected, rest, effect, standardised, both counts."""
    n, m, total = len(ours), len(others), len(ours) + len(others)
    if is_share:
        effect = float(ours.mean() - others.mean())
        ones = float(ours.sum() + others.sum())
        counts = np.array([ones, total - ones])
    else:
        _, place, counts = np.unique(np.concatenate([ours, others]), return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # of ties: their mean
        effect = 2 * (float(ranks[:n].sum()) - n * (n + 1) / 2) / (n * m) - 1
    ties = float((counts.astype(np.float64) ** 3 - counts).sum())
    deviation = np.sqrt(
        (total + 1 - ties / (total * (total - 1))) / (3 * n * m)
    )  # of the effect, where nothing differs
    expected = min(n, m) * (float(counts.min()) / total if is_share else 1)
    z = None if expected < FEWEST else effect / float(deviation)
    return z, [float(ours.mean()), float(others.mean()), effect, _standardised(ours, others, is_share), n, m]


def _standardised(ours: Floats, others: Floats, is_share: bool) -> float:
    n, m = len(ours), len(others)
    if is_share or n + m < 3:
        return float("nan")
    pooled = (((ours - ours.mean()) ** 2).sum() + ((others - others.mean()) ** 2).sum()) / (n + m - 2)
    return float((ours.mean() - others.mean()) / np.sqrt(pooled)) if pooled > 0 else float("nan")
