"""What a what-if answer costs: from the cross matrix of the sketches, and the obvious way, from the sketches again.

    python benchmarks/what_if.py                                      # 20,000 candidates, 1,000 pairs, k = 4,096
    python benchmarks/what_if.py --candidates 2000 --k 1024 --chosen 500

Sketches are drawn at random with directions in common, and lie on disk in float16 as `u2a sketch` leaves them. The
obvious way to the best weights is one call of the same solver for all of them at once. `agreement` is the largest
difference between the two ways as a share of the largest value. Timings: the median of --repeats, one warm-up before.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import piqp
from numpy.typing import NDArray
from scipy.special import log_expit

from u2a_core.influence.optimal_weights import optimal_weights
from u2a_core.influence.what_if import WhatIf
from u2a_core.store.sketches import SketchRows
from u2a_core.unlearning.weights import Constraints

Floats = NDArray[np.floating]
SHARED, RATIO = 32, 0.15  # directions in common, and how much of a row lies in each
CAP = 4.0


def drawn(folder: Path, name: str, rows: int, shared: Floats, seed: int) -> SketchRows:
    """Random sketches of length about 1, [rows, k], in a float16 file."""
    draw, k = np.random.default_rng(seed), shared.shape[1]
    values = np.memmap(folder / name, np.float16, "w+", shape=(rows, k))
    for first in range(0, rows, 1000):
        some = values[first : first + 1000]
        own = draw.standard_normal((len(some), k), np.float32)
        some[:] = (own + RATIO * draw.standard_normal((len(some), SHARED), np.float32) @ shared) / np.sqrt(k)
    values.flush()
    return SketchRows(values, np.ones(rows, np.float32), pd.DataFrame({"id": np.arange(rows)}))


class Obvious:
    """The same answers from the sketches, held in memory in float32."""

    def __init__(self, candidates: SketchRows, pairs: SketchRows, curvature: Floats, horizon: float) -> None:
        self.s, self.h = candidates.float32(), pairs.float32()
        self.curvature, self.horizon = curvature, horizon

    def delta_pa(self, pairs: NDArray[np.intp]) -> Floats:
        return -self.horizon / len(self.s) * (self.s @ self.h[pairs].mean(0))

    def second_order(self, weights: Floats) -> Floats:
        shares = np.float32(weights / weights.sum())
        u, slopes = shares @ self.s, self.s @ self.h.mean(0)
        bend = (shares * self.curvature * slopes) @ (self.s @ u)
        curved = log_expit(-2 * self.horizon * (self.h @ u)).mean() + np.log(2)
        return np.array([curved + self.horizon**2 / 2 * bend])

    def optimal(self, chosen: int) -> Floats:
        factor = self.horizon / chosen * (self.s[:chosen] @ self.h.T).astype(np.float64)
        linear = factor.mean(1)
        unit = np.abs(linear).max()
        solver = piqp.DenseSolver()
        bounds = {"x_l": np.zeros(chosen), "x_u": np.full(chosen, CAP)}
        curved = factor @ factor.T / factor.shape[1]
        solver.setup(curved / unit, linear / unit, np.ones((1, chosen)), np.array([float(chosen)]), **bounds)
        assert solver.solve() == piqp.PIQP_SOLVED
        return solver.result.x


def median(run: Callable[[], Floats], repeats: int) -> tuple[float, Floats]:
    """Seconds, and the last answer."""
    run()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), found


def report(name: str, ours: Callable[[], Floats], obvious: Callable[[], Floats], repeats: int) -> None:
    """One line of the table, as Markdown."""
    (fast, found), (slow, expected) = median(ours, repeats), median(obvious, repeats)
    agreement = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"| {name} | {1000 * fast:.1f} | {1000 * slow:.1f} | {slow / fast:.1f} | {agreement:.0e} |", flush=True)


def measure(asked: argparse.Namespace, folder: Path) -> None:
    """The whole table."""
    draw = np.random.default_rng(0)
    shared = draw.standard_normal((SHARED, asked.k), np.float32)
    candidates = drawn(folder, "candidates.f16", asked.candidates, shared, 1)
    pairs = drawn(folder, "pairs.f16", asked.pairs, shared, 2)
    curvature, horizon = np.full(asked.candidates, 0.05), asked.horizon

    def opened() -> Floats:
        return WhatIf(candidates, pairs, curvature, "dpo", horizon).cross

    def opened_whole() -> Floats:
        return candidates.float32() @ pairs.float32().T

    print("| answer | ms | obvious way, ms | faster | agreement |\n|---|---:|---:|---:|---:|")
    report("opening: the cross matrix", opened, opened_whole, asked.repeats)
    what_if = WhatIf(candidates, pairs, curvature, "dpo", horizon)
    obvious = Obvious(candidates, pairs, curvature, horizon)
    chosen = np.arange(0, asked.pairs, 3)
    report(
        "a new slice: ΔPA of all candidates",
        lambda: what_if.delta_pa(chosen),
        lambda: obvious.delta_pa(chosen),
        asked.repeats,
    )
    weights = draw.uniform(0, 2, asked.candidates)
    report(
        "a set, all its weights anew",
        lambda: np.array([what_if.predict(weights).second_order]),
        lambda: obvious.second_order(weights),
        asked.repeats,
    )
    state, moves = what_if.predict(weights), count(1)

    def moved() -> Floats:
        state.set_weight(7, 1 + 1 / next(moves))
        return np.array([state.second_order])

    report(
        "the set after one weight moved",
        moved,
        lambda: obvious.second_order(state.weights),
        asked.repeats,
    )
    excluded = np.arange(asked.candidates) >= asked.chosen
    constraints = Constraints(np.zeros(asked.candidates, bool), excluded)
    report(
        f"the best weights of {asked.chosen} candidates",
        lambda: optimal_weights(what_if, weights, constraints, cap=CAP).weights[: asked.chosen],
        lambda: obvious.optimal(asked.chosen),
        asked.repeats,
    )


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--k", type=int, default=4096)
    parser.add_argument("--chosen", type=int, default=2000)
    parser.add_argument("--horizon", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    print(
        f"{date.today()}, {platform.machine()}, {os.environ.get('OMP_NUM_THREADS', 'all')} threads, "
        f"numpy {np.__version__}: {asked.candidates} candidates, {asked.pairs} pairs, k = {asked.k}, "
        f"τ = {asked.horizon:g}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        measure(asked, Path(folder))


if __name__ == "__main__":
    main()
