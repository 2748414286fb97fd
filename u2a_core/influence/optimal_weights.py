"""The weights that the quadratic what-if model likes best, and what it predicts for them.

    maximise  −τ b·p − (τ²/2) mean ⟨h_p, u⟩² − (ridge/2) mean (ω_i − 1)²,   p = ω/Σω,  u = Σ p_i s_i

over 0 ≤ ω ≤ cap with mean 1 over the examples not excluded (means of ω are over these); without the middle term for
`margin`. Concave: the second-order prediction without the curvature of the φ_i, which may have any sign.

Few weights of the optimum lie between their bounds, so it is found on working sets: those nearest to changing sides,
by an interior-point method (PIQP, arXiv 2304.00290), until the conditions of an optimum hold for all. A ridge brings
more weights between their bounds, m of them at once at worst, at a cost of O(m³).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import piqp
from numpy.typing import ArrayLike, NDArray

from u2a_core.errors import UnlearningError
from u2a_core.influence.sketch_blocks import Rows
from u2a_core.influence.what_if import Floats, WhatIf
from u2a_core.unlearning.weights import Constraints, normalised

WORKING = 400  # weights chosen at once, at first
TOLERANCE, ACCEPTED = 1e-6, 1e-4  # of the largest slope: what is aimed at, and what will do


@dataclass(frozen=True, eq=False)
class OptimalWeights:
    """ω [n], mean 1 over the examples not excluded, and the predicted ΔPA of unlearning with them."""

    weights: Floats
    first_order: float
    second_order: float


def optimal_weights(
    what_if: WhatIf,
    weights: ArrayLike,
    constraints: Constraints,
    pairs: NDArray[Any] | None = None,
    cap: float = 4.0,
    ridge: float = 0.0,
) -> OptimalWeights:
    """The best ω for a slice; `weights` [n] gives the locked ones their values, which `cap` does not touch.

    `ridge` is what a variance of 1 among the weights costs, in nats per pair. Raises `UnlearningError` with the remedy
    where no weights meet the constraints, `ScoringError` as `WhatIf` does.
    """
    if not 0 <= ridge < np.inf:
        raise UnlearningError(f"The ridge must be at least 0 and finite; it is {ridge}.")
    constraints = Constraints(constraints.locked & ~constraints.excluded, constraints.excluded)
    found = _start(np.asarray(weights, np.float64), constraints, cap)
    rows, free = what_if.slice_rows(pairs), np.flatnonzero(constraints.free)
    present = int((~constraints.excluded).sum())
    linear = what_if.horizon / present * what_if.slopes(rows)[free]
    factor = np.zeros((len(free), 0))
    if what_if.alignment == "dpo":
        scale = what_if.horizon / present / np.sqrt(len(rows))
        locked = np.flatnonzero(constraints.locked)
        factor = scale * what_if.cross[np.ix_(free, rows)].astype(np.float64)
        held = scale * (found[locked] @ what_if.cross[np.ix_(locked, rows)])
        linear = linear + factor @ (held + what_if.horizon / np.sqrt(len(rows)) * what_if.pull[rows])
    steepest = cap * (factor**2).sum(1).max()  # what one weight alone can do
    unit = max(float(np.abs(linear).max()), steepest, ridge / present) or 1.0
    problem = _Problem(linear / unit, factor / np.sqrt(unit), ridge / present / unit, cap)
    found[free] = problem.solve(float(found[free].sum()))
    predicted = what_if.predict(found, rows)
    return OptimalWeights(found, predicted.first_order, predicted.second_order)


def _start(weights: Floats, constraints: Constraints, cap: float) -> Floats:
    """Locked weights as they are, excluded ones 0, all others the same, at mean 1; `UnlearningError` where the cap or
    the locks leave no such weights.
    """
    held = weights[constraints.locked]
    if not (np.isfinite(held) & (held >= 0)).all():
        raise UnlearningError("A locked weight is negative or not finite. Set it to 0 or more, or unlock it.")
    found = normalised(np.where(constraints.locked, weights, 1.0), constraints)
    needed = float(found[constraints.free].max())
    if not needed <= cap < np.inf:
        raise UnlearningError(
            f"The weights left to choose must be {needed:g} on average for a mean of 1, and the cap is {cap:g}. Raise "
            "the cap, exclude fewer, or raise or unlock locked weights."
        )
    return found


@dataclass(frozen=True, eq=False)
class _Problem:
    """Minimise linear·x + ½‖factorᵀx‖² + ½ ridge ‖x‖² over 0 ≤ x ≤ cap with a given sum; slopes are of size 1."""

    linear: Floats  # [m]
    factor: Floats  # [m, P]
    ridge: float
    cap: float

    def solve(self, total: float) -> Floats:
        """The minimiser, [m]. The working set grows until it is all there is, so that this ends."""
        found, price = self._filled(total)
        size, working = WORKING, np.arange(0)
        while True:
            slope = self.linear + self.factor @ (found @ self.factor) + self.ridge * found
            low, high = found <= 0, found >= self.cap
            gain = np.where(low, price - slope, np.where(high, slope - price, np.abs(slope - price)))
            if gain.max() <= TOLERANCE:
                return found
            if len(working) == len(found):
                if gain.max() <= ACCEPTED:
                    return found
                raise UnlearningError(
                    f"The best weights were not found to {ACCEPTED:g} of the slopes. Set a ridge, or a shorter horizon."
                )
            between = ~low & ~high
            gain[between] = np.inf
            size = max(size + WORKING // 4, int(between.sum()))
            side = int(between.sum()) + size // 2
            rising, falling = np.where(high, -np.inf, gain), np.where(low, -np.inf, gain)
            working = np.union1d(np.argsort(-rising)[:side], np.argsort(-falling)[:side])
            if len(working) > 0.75 * len(found):
                working = np.arange(len(found))  # costs little more, and ends it
            found, price = self._improved(found, working, total)

    def _filled(self, total: float) -> tuple[Floats, float]:
        """The minimiser for linear costs alone, the cheapest filled up first, and the price of one more."""
        order, full = np.argsort(self.linear, kind="stable"), int(total // self.cap)
        found = np.zeros(len(order))
        found[order[:full]] = self.cap
        last = order[min(full, len(order) - 1)]
        if full < len(order):
            found[last] = total - full * self.cap
        return found, float(self.linear[last])

    def _improved(self, found: Floats, working: Rows, total: float) -> tuple[Floats, float]:
        """The minimiser over the working set, all others as they are, and the price that belongs to it."""
        factor, found = self.factor[working], found.copy()
        found[working] = 0
        costs, room = self.linear[working] + factor @ (found @ self.factor), total - found.sum()
        curved = factor @ factor.T + self.ridge * np.eye(len(working))
        solver = piqp.DenseSolver()
        solver.settings.eps_abs = solver.settings.eps_duality_gap_abs = TOLERANCE / 100
        solver.settings.eps_rel = solver.settings.eps_duality_gap_rel = TOLERANCE / 1e4
        solver.settings.max_iter = 60
        bounds = {"x_l": np.zeros(len(working)), "x_u": np.full(len(working), self.cap)}
        solver.setup(curved, costs, np.ones((1, len(working))), np.array([room]), **bounds)
        solver.solve()  # however it ended: `solve` judges by the conditions of an optimum
        part, price = np.clip(solver.result.x, 0, self.cap), -float(solver.result.y[0])
        gain = price - costs - curved @ part
        part = np.where(part < -gain, 0.0, np.where(self.cap - part < gain, self.cap, part))  # on the bounds it is near
        between = np.minimum(part, self.cap - part)
        if between.any():
            part += (room - part.sum()) * between / between.sum()
        found[working] = part
        return found, price
