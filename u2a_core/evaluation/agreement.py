"""Predicted against realised ΔPA in numbers: rank agreement, size, sign, and what the noise of the runs allows.

ΔPA in nats per pair, > 0: unlearning helps. Intervals are 95 % bootstrap percentile intervals over the cases: they
speak of further cases drawn in the same way. What cannot be told is None, with a `reason`; never NaN.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from u2a_core.evaluation.correlation import spearman
from u2a_core.store.fingerprints import settings_sha256

Floats = NDArray[np.float64]
RESAMPLES = 2000
TAILS = (2.5, 97.5)  # percentiles
KEPT_IDS = 1000  # of one case; a larger one is named by size and digest alone
SAME = 1e-9  # of the range of all predictions: a resample that varies by less has no slope


@dataclass(frozen=True)
class Interval:
    """A number and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """How well one estimator's predictions agree with what was realised, over `n` cases; `missing` more had no finite
    value on one side.

    rho: Spearman's. slope, intercept: least squares of realised on predicted; slope 1 is perfect, 3 means that the
    predictions are 3 times too small on average (mostly noise: near 0). spread_ratio: standard deviation of predicted
    over that of realised (slope times spread_ratio is Pearson's correlation). same_sign: cases whose two signs are
    equal, 0 a sign of its own; of little worth where nearly all cases gain, so `gains` counts those with realised
    ΔPA > 0.
    """

    n: int
    missing: int
    rho: Interval | None
    slope: Interval | None
    intercept: float | None
    spread_ratio: float | None
    same_sign: int
    gains: int
    reason: str | None = None


@dataclass(frozen=True)
class Ceiling:
    """How well realised values agree with themselves when runs are repeated.

    rho: mean Spearman between two of the `repetitions`, over all pairs of them. attainable: about the ρ that a perfect
    prediction of the mean over infinitely many runs would reach against the mean of these r: √(r ρ / (1 + (r − 1) ρ)),
    the root of the Spearman–Brown reliability, exact for linear correlation and independent noise.
    """

    repetitions: int
    rho: Interval | None
    attainable: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Case:
    """Candidates unlearned together: realised ΔPA, one value a repetition, and predicted ΔPA by estimator.

    None stands for a value that was not finite. `ids` are the candidates, or empty where they are more than `KEPT_IDS`;
    `size` and `digest`, of the sorted ids, name them always.
    """

    ids: tuple[str, ...]
    size: int
    digest: str
    realised: tuple[float | None, ...]
    predicted: Mapping[str, float | None]

    @property
    def mean_realised(self) -> float | None:
        """Mean over the repetitions; None where one of them is missing."""
        finite = [value for value in self.realised if value is not None]
        return math.fsum(finite) / len(finite) if len(finite) == len(self.realised) else None


@dataclass(frozen=True)
class CaseTable:
    """Cases of one kind, the agreement of each estimator with them, and their noise ceiling."""

    cases: tuple[Case, ...]
    agreements: Mapping[str, Agreement]
    ceiling: Ceiling


def make_case(ids: Iterable[str], realised: Iterable[float], predicted: Mapping[str, float]) -> Case:
    """A case from its candidates, realised ΔPA of every repetition, and predicted ΔPA by estimator."""
    members = tuple(ids)
    kept = members if len(members) <= KEPT_IDS else ()
    values = {name: _finite(value) for name, value in predicted.items()}
    return Case(kept, len(members), ids_digest(members), tuple(map(_finite, realised)), values)


def ids_digest(ids: Iterable[str]) -> str:
    """SHA-256 of the ids, whatever their order."""
    return settings_sha256({"ids": sorted(ids)})


def compare(cases: Sequence[Case], deterministic: bool) -> CaseTable:
    """Agreement of every estimator over all cases, against the mean of the repetitions, and the noise ceiling.

    `deterministic`: a repeated run would give the same value. Raises `ValueError` where the cases are not all repeated
    equally often, at least once.
    """
    if not cases:
        return CaseTable((), {}, Ceiling(0, None, None, "no case was measured"))
    counts = {len(case.realised) for case in cases}
    if len(counts) > 1 or 0 in counts:
        raise ValueError(f"all cases need the same number of repetitions, at least 1; they have {sorted(counts)}")
    realised = _array(case.mean_realised for case in cases)
    names = dict.fromkeys(chain.from_iterable(case.predicted for case in cases))
    agreements = {name: agreement(_array(case.predicted.get(name) for case in cases), realised) for name in names}
    repetitions = np.stack([_array(case.realised) for case in cases])
    return CaseTable(tuple(cases), agreements, noise_ceiling(repetitions, deterministic))


def agreement(predicted: ArrayLike, realised: ArrayLike) -> Agreement:
    """The agreement of two [m] arrays in nats per pair; pairs that are not finite are left out and counted."""
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(realised, dtype=np.float64)
    ranks = spearman(x, y, resamples=RESAMPLES)
    usable = np.isfinite(x) & np.isfinite(y)
    x, y = x[usable], y[usable]
    same, gains = int((np.sign(x) == np.sign(y)).sum()), int((y > 0).sum())
    if ranks.coefficient is None or ranks.low is None or ranks.high is None:
        return Agreement(ranks.n, ranks.missing, None, None, None, None, same, gains, ranks.reason)
    rho = Interval(ranks.coefficient, ranks.low, ranks.high)
    x_range, y_range = float(np.ptp(x)), float(np.ptp(y))
    scaled_x, scaled_y = (x - x.mean()) / x_range, (y - y.mean()) / y_range
    drawn = _slopes(scaled_x, scaled_y, _resamples(len(x)))
    value, (low, high) = float(_slopes(scaled_x, scaled_y, np.arange(len(x))[None])[0]), np.percentile(drawn, TAILS)
    scale = y_range / x_range
    slope = Interval(scale * value, scale * float(low), scale * float(high))
    intercept = float(y.mean()) - slope.value * float(x.mean())
    spread = float(scaled_x.std() / scaled_y.std()) / scale
    return Agreement(ranks.n, ranks.missing, rho, slope, intercept, spread, same, gains)


def noise_ceiling(repetitions: ArrayLike, deterministic: bool = False) -> Ceiling:
    """The ceiling of [m, r] realised values, r repetitions of m cases; cases with a value that is not finite are left
    out.

    Exactly 1 where the caller says that runs are `deterministic` and ran each once; not measured for r = 1 otherwise.
    Raises `ValueError` for deterministic runs that were repeated: compare those by equality.
    """
    values = np.asarray(repetitions, dtype=np.float64)
    r = values.shape[1]
    if deterministic:
        if r != 1:
            raise ValueError(f"deterministic runs have 1 repetition, not {r}")
        return Ceiling(1, Interval(1.0, 1.0, 1.0), 1.0)
    if r == 1:
        return Ceiling(1, None, None, "every case was run only once")
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < 3:
        return Ceiling(r, None, None, f"only {len(values)} case(s) with finite values; a rank correlation needs 3")
    if (np.ptp(values, axis=0) == 0).any():
        return Ceiling(r, None, None, "in one of the repetitions all cases have the same value")
    value = float(_mean_rank_agreement(values, np.arange(len(values))[None])[0])
    low, high = np.nanpercentile(_mean_rank_agreement(values, _resamples(len(values))), TAILS)
    reliable = max(value, 0.0)
    attainable = math.sqrt(r * reliable / (1 + (r - 1) * reliable))
    return Ceiling(r, Interval(value, float(low), float(high)), attainable)


def _resamples(n: int) -> NDArray[np.int64]:
    """Which of n cases are drawn, with replacement, in each resample, [B, n]; always the same ones."""
    return np.random.default_rng(0).integers(0, n, size=(RESAMPLES, n))


def _slopes(x: Floats, y: Floats, picks: NDArray[np.int64]) -> Floats:
    """Least-squares slopes of the picked cases, [B, n] -> [at most B]: those whose x are all the same have none."""
    picks = picks[np.ptp(x[picks], axis=1) > SAME]
    centred = x[picks] - x[picks].mean(axis=1, keepdims=True)
    slopes: Floats = (centred * y[picks]).sum(axis=1) / (centred**2).sum(axis=1)
    return slopes


def _mean_rank_agreement(values: Floats, picks: NDArray[np.int64]) -> Floats:
    """Mean Spearman over all pairs of columns of the picked rows, [m, r], [B, m] -> [B]; NaN: a column is constant."""
    b, m = picks.shape
    r = values.shape[1]
    drawn = values[picks].transpose(1, 0, 2).reshape(m, b * r)
    ranks = pd.DataFrame(drawn).rank().to_numpy().reshape(m, b, r) - (m + 1) / 2
    covariance = np.einsum("mbi,mbj->bij", ranks, ranks)
    spread = np.sqrt(np.einsum("bii->bi", covariance))
    scale = spread[:, :, None] * spread[:, None, :]
    rho = np.divide(covariance, scale, out=np.full_like(covariance, np.nan), where=scale > 0)
    mean: Floats = (rho.sum(axis=(1, 2)) - r) / (r * (r - 1))
    return mean


def _array(values: Iterable[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values])


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
