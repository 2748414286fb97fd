"""Numbers under Figure 2: Spearman's rank correlation with a bootstrap interval, and groups by low-reward proportion.

Low-reward token: r < τ. Proportion of a group = its low tokens / its tokens. ΔPA of a group = mean ΔPA of its members.
Every sample is in exactly one group; nothing is dropped without being counted.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from u2a_core.errors import ScoringError

Floats = NDArray[np.float64]
Grouping = Literal["proportion", "random", "category"]
BATCH_ENTRIES = 50_000  # entries of one batch of resamples: about what stays in the processor's cache


@dataclass(frozen=True)
class Correlation:
    """Spearman's ρ with a percentile interval; where ρ is undefined all three numbers are None and `reason` says why.

    `n` pairs were used; `missing` more were left out because one of their values is not finite.
    """

    coefficient: float | None
    low: float | None
    high: float | None
    n: int
    missing: int
    confidence: float
    reason: str | None = None


def spearman(
    x: ArrayLike, y: ArrayLike, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Correlation:
    """Spearman's rank correlation of two [N] arrays (ties: mean ranks) and its bootstrap percentile interval.

    Pairs are resampled with replacement. A resample is a vector of counts, so ranks come from cumulative counts in an
    order sorted once. Resamples in which one side is constant have no ρ and do not enter the percentiles.
    """
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"spearman needs two equally long vectors, not shapes {first.shape} and {second.shape}")
    usable = np.isfinite(first) & np.isfinite(second)
    n, missing = int(usable.sum()), int((~usable).sum())
    reason = _why_undefined(first[usable], second[usable])
    if reason:
        return Correlation(None, None, None, n, missing, confidence, reason)
    codes = [np.unique(values[usable], return_inverse=True)[1] for values in (first, second)]
    orders = [np.argsort(code, kind="stable") for code in codes]
    rho = float(_weighted_spearman(np.ones((1, n), dtype=np.int64), codes, orders)[0])
    generator = np.random.default_rng(seed)
    step = max(1, BATCH_ENTRIES // n)
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    drawn = np.concatenate([_weighted_spearman(_counts(generator, size, n), codes, orders) for size in sizes])
    tail = 100 * (1 - confidence) / 2
    low, high = np.nanpercentile(drawn, [tail, 100 - tail])
    return Correlation(rho, float(low), float(high), n, missing, confidence)


def _why_undefined(first: Floats, second: Floats) -> str | None:
    if len(first) < 3:
        return f"only {len(first)} pair(s) of finite values; a rank correlation needs 3"
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return "one of the two quantities is the same everywhere"
    return None


def _counts(generator: np.random.Generator, size: int, n: int) -> NDArray[np.int64]:
    """How often each of n pairs is drawn in each of `size` resamples, [size, n]."""
    picks = generator.integers(0, n, size=(size, n)) + np.arange(size)[:, None] * n
    return np.bincount(picks.ravel(), minlength=size * n).reshape(size, n)


def _weighted_spearman(
    counts: NDArray[np.int64], codes: list[NDArray[np.intp]], orders: list[NDArray[np.intp]]
) -> Floats:
    """ρ of every resample, [B, N] -> [B]; NaN where one side is constant.

    Mean rank of a value seen c times, C values up to and with it: C − (c − 1)/2. Mean ranks average to (n + 1)/2.
    """
    ranks = []
    for code, order in zip(codes, orders, strict=True):
        starts = np.flatnonzero(np.diff(code[order], prepend=-1))
        totals = np.add.reduceat(counts[:, order], starts, axis=1)
        mean_ranks = np.cumsum(totals, axis=1) - (totals - 1) / 2
        ranks.append(mean_ranks[:, code] - (len(code) + 1) / 2)
    covariance = (counts * ranks[0] * ranks[1]).sum(axis=1)
    spread = np.sqrt((counts * ranks[0] ** 2).sum(axis=1) * (counts * ranks[1] ** 2).sum(axis=1))
    rho: Floats = np.divide(covariance, spread, out=np.full(len(spread), np.nan), where=spread > 0)
    return rho


def reward_threshold(table: pd.DataFrame, quantile: float = 0.25) -> float:
    """τ: the quantile of all token rewards pooled; raises `ScoringError` where the table has none."""
    rewards = [np.asarray(entry, dtype=np.float64) for entry in table["token_rewards"].dropna()]
    if not rewards:
        raise ScoringError(
            "These scores have no token rewards, so no low-reward threshold can be found. "
            "Add a reward model to the bundle and score it again."
        )
    return float(np.quantile(np.concatenate(rewards), quantile))


def low_token_counts(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Columns id, delta_pa, category, low, tokens, proportion: one row a sample that has token rewards."""
    scored = table[table["token_rewards"].notna()]
    rewards = [np.asarray(entry) for entry in scored["token_rewards"]]
    low = np.array([(entry < threshold).sum() for entry in rewards], dtype=np.int64)
    tokens = np.array([len(entry) for entry in rewards], dtype=np.int64)
    return scored[["id", "delta_pa", "category"]].assign(low=low, tokens=tokens, proportion=low / np.maximum(tokens, 1))


def low_reward_groups(
    table: pd.DataFrame, threshold: float, group_size: int = 64, by: Grouping = "proportion", seed: int = 0
) -> pd.DataFrame:
    """Groups of Figure 2: columns group, label, size, proportion, delta_pa, standard_error, ids; by rising proportion.

    proportion: samples sorted by their own proportion and cut into groups of `group_size`. random: cut after a seeded
    shuffle. category: one group a category, of any size. A remainder smaller than half a group joins the last full
    group, a larger one stays a group. `delta_pa` is the mean of the members, in nats per pair; its standard error
    is NaN for a group of one. Samples without token rewards cannot be placed: no `ids` name them.
    """
    if group_size < 1:
        raise ScoringError(
            f"A group needs at least one sample; the group size {group_size} is too small. Choose 1 or more."
        )
    samples = low_token_counts(table, threshold).sort_values("id", kind="stable")
    if by == "category":
        names = samples["category"].astype(object).where(samples["category"].notna(), "(no category)")
        members = [(str(name), samples[names == name]) for name in sorted(set(names), key=str)]
    else:
        if by == "proportion":
            samples = samples.sort_values("proportion", kind="stable")
        else:
            samples = samples.iloc[np.random.default_rng(seed).permutation(len(samples))]
        members = [("", samples.iloc[start:end]) for start, end in _cuts(len(samples), group_size)]
    rows = [_group_row(label, group) for label, group in members]
    columns = ["label", "size", "proportion", "delta_pa", "standard_error", "ids"]
    groups = pd.DataFrame(rows, columns=columns).sort_values("proportion", kind="stable", ignore_index=True)
    groups.insert(0, "group", np.arange(1, len(groups) + 1))
    return groups


def _cuts(n: int, group_size: int) -> list[tuple[int, int]]:
    """Where n sorted samples are cut: [start, end) of every group."""
    starts = list(range(0, n, group_size))
    if len(starts) > 1 and 2 * (n - starts[-1]) < group_size:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=False))  # no sample, no group


def _group_row(label: str, group: pd.DataFrame) -> tuple[str, int, float, float, float, list[str]]:
    delta = group["delta_pa"].to_numpy(dtype=np.float64)
    error = float(delta.std(ddof=1) / np.sqrt(len(delta))) if len(delta) > 1 else float("nan")
    proportion = float(group["low"].sum() / max(int(group["tokens"].sum()), 1))
    return label, len(group), proportion, float(delta.mean()), error, group["id"].tolist()
