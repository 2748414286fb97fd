"""Stored sketches in blocks of float32, so that memory stays bounded however many rows lie on disk.

A sketch that is not finite is a `ScoringError` that names it: no number is ever computed from one.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from u2a_core.errors import ScoringError
from u2a_core.store.sketches import SketchRows

Rows = NDArray[np.intp]
Floats32 = NDArray[np.float32]
BLOCK = 1 << 22  # numbers held at once: 16 MiB


def blocks(sketches: SketchRows, rows: Rows | None = None) -> Iterator[tuple[Rows, Floats32]]:
    """The sketches of `rows` (default: all), some at a time: their places [m] and the sketches [m, k]."""
    count, k = sketches.values.shape
    if rows is None:
        rows = np.arange(count)
    step = max(1, BLOCK // k)
    for first in range(0, len(rows), step):
        places = rows[first : first + step]
        block = sketches.float32(places)
        bad = ~np.isfinite(block).all(1)
        if bad.any():
            row = places[bad][0]
            raise ScoringError(
                f"The sketch of {sketches.table['id'].iloc[row]} (row {row}) is not finite. Make the sketches again: "
                "repeat the `u2a sketch` command with --restart."
            )
        yield places, block
