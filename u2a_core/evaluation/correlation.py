"""Spearman's rank correlation with a bootstrap interval."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
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
