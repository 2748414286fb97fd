"""Which examples a step takes: each as often as its weight says, in an order that depends on its id alone.

An epoch puts the examples in the order of a hash of (seed, epoch, id) and takes them at even distances along their
summed weights, from a start that is drawn too (systematic resampling): equal weights give every example once, an
example of weight 2 comes twice. So the expected loss of a step is Σ ω_i φ_i / Σ ω_i without a spread from the weights,
and leaving an example out moves the others little.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache

import numpy as np


def step_examples(weights: Mapping[str, float], step: int, size: int, seed: str) -> dict[str, float]:
    """How often each example comes in a step of `size` draws; `weights` have mean 1. The weights themselves where the
    step holds all examples.
    """
    count = len(weights)
    if size >= count:
        return dict(weights)
    ids, values = tuple(weights), tuple(weights.values())
    found: dict[str, float] = {}
    for place in range(step * size, (step + 1) * size):
        one = _epoch(ids, values, f"{seed}:{place // count}")[place % count]
        found[one] = found.get(one, 0.0) + 1.0
    return found


@lru_cache(maxsize=4)
def _epoch(ids: tuple[str, ...], weights: tuple[float, ...], seed: str) -> tuple[str, ...]:
    """As many draws as there are examples."""
    ranks = {one: hashlib.sha256(f"{seed}\x1d{one}".encode()).digest() for one in ids}
    order = sorted(range(len(ids)), key=lambda index: ranks[ids[index]])
    ends = np.cumsum([weights[index] for index in order])
    first = 0.01 + 0.98 * int.from_bytes(hashlib.sha256(f"{seed}\x1d".encode()).digest()[:8]) / 2**64
    places = np.searchsorted(ends * (len(ids) / ends[-1]), np.arange(len(ids)) + first, side="right")
    return tuple(ids[order[min(place, len(ids) - 1)]] for place in places)
