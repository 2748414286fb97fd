"""Where a sample stands in Figure 1: the angle is a hash of its id and means nothing, the radius is its |ΔPA|.

linear (paper): r = |ΔPA| · signed-log: r = log10(1 + |ΔPA|/s), s the median |ΔPA| other than 0 · rank: r = share of the
samples whose |ΔPA| is at most this one's. Shape and colour carry the sign. Same table, same places: a lasso drawn over
some of the points holds for all rows.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]
RadiusMode = Literal["linear", "signed-log", "rank"]
RADIUS_MODES: tuple[RadiusMode, ...] = get_args(RadiusMode)


@dataclass(frozen=True)
class Ring:
    """A circle of reference and what it stands for."""

    radius: float
    label: str


@dataclass(frozen=True, eq=False)
class Places:
    """Position of every row, [N] each (angle in radians), the rings, and the radius that holds them all."""

    angle: Floats
    radius: Floats
    x: Floats
    y: Floats
    rings: tuple[Ring, ...]
    limit: float


def places(table: pd.DataFrame, mode: RadiusMode = "linear", hashes: Hashes | None = None) -> Places:
    """Positions of all rows of a table of scores, whatever part of them is drawn. `hashes`: `stable_hashes` of the ids,
    for who has them already.
    """
    magnitude = np.abs(table["delta_pa"].to_numpy(dtype=np.float64))
    hashes = stable_hashes(table["id"]) if hashes is None else hashes
    angle = hashes[:, 0] / 2.0**64 * 2 * math.pi
    largest = float(magnitude.max(initial=0.0))
    if mode == "linear":
        radius, rings = magnitude, _linear_rings(largest)
    elif mode == "signed-log":
        nonzero = magnitude[magnitude > 0]
        scale = float(np.median(nonzero)) if len(nonzero) else 1.0
        radius, rings = np.log10(1 + magnitude / scale), _log_rings(largest, scale)
    else:
        ascending = np.sort(magnitude)
        radius = np.searchsorted(ascending, magnitude, side="right") / max(len(magnitude), 1)
        rings = _rank_rings(ascending)
    limit = max(float(radius.max(initial=0.0)), max((ring.radius for ring in rings), default=0.0)) or 1.0
    return Places(angle, radius, radius * np.cos(angle), radius * np.sin(angle), rings, limit)


def drawn_rows(table: pd.DataFrame, limit: int, hashes: Hashes | None = None) -> NDArray[np.intp]:
    """Ascending row numbers that are drawn: all, or the `extremes(limit)` largest |ΔPA| and a thinning of the rest.

    A row of the rest is kept by its second hash, with a chance that falls with the rank of its |ΔPA|, so that there
    is no edge where the thinning begins: the same rows in any row order, at every angle alike.
    """
    if len(table) <= limit:
        return np.arange(len(table))
    magnitude = np.abs(table["delta_pa"].to_numpy(dtype=np.float64))
    lottery = (stable_hashes(table["id"]) if hashes is None else hashes)[:, 1] / 2.0**64
    by_size = np.lexsort((lottery, -magnitude))
    largest, rest = by_size[: extremes(limit)], by_size[extremes(limit) :]
    ranks = extremes(limit) + 1 + np.arange(len(rest))
    kept = rest[np.argsort(lottery[rest] * ranks, kind="stable")[: limit - len(largest)]]
    return np.sort(np.concatenate([largest, kept]))


def extremes(limit: int) -> int:
    """How many of `limit` drawn points are kept for being largest."""
    return limit // 3


def stable_hashes(ids: Iterable[str]) -> Hashes:
    """Two independent 64-bit hashes an id, [N, 2]: the same in every process and on every machine."""
    digests = b"".join(
        hashlib.blake2b(str(name).encode("utf-8", "surrogatepass"), digest_size=16).digest() for name in ids
    )
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2).astype(np.uint64)


def _linear_rings(largest: float) -> tuple[Ring, ...]:
    if largest <= 0:
        return ()
    step = _round_step(largest / 4)
    count = math.ceil(largest / step - 1e-9)
    return tuple(Ring(k * step, f"{k * step:.4g}") for k in range(1, count + 1))


def _round_step(step: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * (1 - 1e-9))


def _round_below(value: float) -> float:
    """The next of 1, 2 and 5 times a power of ten below `value`."""
    power = 10.0 ** math.floor(math.log10(value * (1 - 1e-9)))
    return next(factor * power for factor in (5, 2, 1) if factor * power < value * (1 - 1e-9))


def _log_rings(largest: float, scale: float) -> tuple[Ring, ...]:
    """Rings at round values, from the first that holds every point inwards, at least a sixth of the plot apart."""
    if largest <= 0:
        return ()
    rings: list[Ring] = []
    value = _round_step(largest)
    while True:
        radius = math.log10(1 + value / scale)
        if rings and radius < rings[0].radius / 6:
            return tuple(reversed(rings))
        if not rings or rings[-1].radius - radius > rings[0].radius / 6:
            rings.append(Ring(radius, f"{value:.4g}"))
        value = _round_below(value)


def _rank_rings(ascending: Floats) -> tuple[Ring, ...]:
    """Rings at the quartiles, each with the |ΔPA| that it stands for."""
    if not len(ascending):
        return ()
    shares = (0.25, 0.5, 0.75, 1.0)
    values = [float(ascending[math.ceil(share * len(ascending)) - 1]) for share in shares]
    return tuple(Ring(share, f"{share:.0%}: {value:.3g}") for share, value in zip(shares, values, strict=True))
