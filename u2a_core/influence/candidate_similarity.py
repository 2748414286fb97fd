"""Which candidates pull θ the same way: cosine similarity of their sketches, near duplicates, clusters.

A candidate whose gradient is 0 is similar to none. Cosines of sketches in k numbers are off by about 1/√k. Blocks of
rows are compared with blocks of rows; nothing of size n × n is ever held.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2, vq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from u2a_core.errors import ScoringError
from u2a_core.influence.sketch_blocks import Floats32, Rows, blocks
from u2a_core.store.sketches import SketchRows

CLUSTERED = 4096  # rows that k-means is run on; all others join the nearest centre
ROUNDING = 1e-6  # so that the same sketch twice has a cosine of 1


def similar(candidates: SketchRows, row: int, count: int) -> tuple[Rows, Floats32]:
    """The `count` candidates most similar to that at `row`, best first, and their cosines; itself left out.

    Ties go by place. `ScoringError` where the row is not there or `count` is not at least 1.
    """
    if not 0 <= row < len(candidates.values) or count < 1:
        raise ScoringError(
            f"The {count} candidates most similar to row {row}: ask for at least 1, and for a row from 0 to "
            f"{len(candidates.values) - 1}."
        )
    (_, one), *_ = _directions(candidates, np.array([row]))
    cosines = np.concatenate([block @ one[0] for _, block in _directions(candidates)])
    order = np.argsort(-cosines, kind="stable")
    found: Rows = order[order != row][:count]
    return found, cosines[found]


def near_duplicates(candidates: SketchRows, threshold: float) -> list[Rows]:
    """Groups of candidates joined by pairs with a cosine ≥ `threshold`, largest first; each group's rows ascend.

    O(n²k): half a minute for 20,000 candidates, k = 4,096, on one thread. `ScoringError` for a threshold not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ScoringError(f"A cosine to join near duplicates must be above 0 and at most 1; it is {threshold}.")
    every = np.arange(len(candidates.values))
    groups = every  # each row's first fellow
    for rows, block in _directions(candidates):
        for others, other in _directions(candidates, every[rows[0] :]):
            left, right = np.nonzero(block @ other.T >= threshold - ROUNDING)
            groups = _joined(groups, rows[left], others[right])
    found = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.unique(groups, return_counts=True)[1])[:-1])
    return sorted((group for group in found if len(group) > 1), key=len, reverse=True)


def _joined(groups: Rows, left: Rows, right: Rows) -> Rows:
    """The groups once every row of `left` has been joined with its partner in `right`."""
    count = len(groups)
    ends = (np.concatenate([np.arange(count), left]), np.concatenate([groups, right]))
    graph = coo_array((np.ones(len(ends[0]), np.bool_), ends), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    found: Rows = np.unique(labels, return_index=True)[1][labels]
    return found


def clusters(candidates: SketchRows, count: int, seed: int) -> NDArray[np.intp]:
    """The cluster of every candidate, [n]: k-means of the directions, at most `count` clusters, 0 the largest.

    From more than 4,096 candidates the centres come from 4,096 drawn by `seed`. `ScoringError` for an impossible count.
    """
    total = len(candidates.values)
    if not 1 <= count <= total:
        raise ScoringError(f"{count} clusters of {total} candidates: ask for 1 to {total}.")
    drawn = np.sort(np.random.default_rng(seed).choice(total, min(total, CLUSTERED), replace=False))
    sample = np.concatenate([block for _, block in _directions(candidates, drawn)])
    count = min(count, len(np.unique(sample, axis=0)))
    centres, _ = kmeans2(sample, count, minit="++", seed=seed)
    labels = np.concatenate([vq(block, centres)[0] for _, block in _directions(candidates)])
    _, labels, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    numbers: NDArray[np.intp] = np.argsort(np.argsort(-sizes, kind="stable"))[labels]
    return numbers


def _directions(candidates: SketchRows, rows: Rows | None = None) -> Iterator[tuple[Rows, Floats32]]:
    """Blocks of sketches over their lengths; one of length 0 stays 0."""
    for places, block in blocks(candidates, rows):
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        block /= np.where(lengths > 0, lengths, 1)
        yield places, block
