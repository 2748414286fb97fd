"""Moving ω under its constraints: mean 1 over the forget set, locked weights as they are, excluded ones 0.

One step of ascent on J − β Σ_i √ω_i over the free examples: exponentiated gradient, ω_i ← ω_i exp(η d_i / s), or
projected gradient, ω ← P(ω + η d / s), with d the derivative of the objective and s its scale. d_i > 0 raises ω_i: a
sample whose unlearning helps alignment is unlearned more.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from u2a_core.errors import UnlearningError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
LARGEST_EXPONENT = 20.0  # e^20: no weight changes by more in one step, and none overflows
SMALLEST_WEIGHT = 1e-8  # below this share of the mean a weight counts as 0


@dataclass(frozen=True)
class Constraints:
    """A curator's decisions, [n]: `locked` weights keep the value they have, `excluded` examples have 0."""

    locked: Flags
    excluded: Flags

    @property
    def free(self) -> Flags:
        """The examples whose weight the solver chooses."""
        return ~self.locked & ~self.excluded


def sparsity_gradient(weights: Floats, strength: float) -> Floats:
    """d/dω of −β Σ √ω, [n]: −β / (2 √ω), at most as steep as at the smallest weight."""
    return -strength / (2 * np.sqrt(np.maximum(weights, SMALLEST_WEIGHT)))


def normalised(weights: Floats, constraints: Constraints) -> Floats:
    """The free weights scaled so that the mean over the examples not excluded is 1.

    `UnlearningError` where the locked weights leave nothing for the free ones, or nothing is free.
    """
    free = constraints.free
    room = float((~constraints.excluded).sum() - weights[constraints.locked].sum())
    total = float(weights[free].sum())
    if not free.any():
        raise UnlearningError("Every example is locked or excluded, so there is no weight left to choose.")
    if room <= 0 or total <= 0:
        raise UnlearningError(
            f"The locked weights add up to {weights[constraints.locked].sum():g} of {(~constraints.excluded).sum()}, "
            "which leaves nothing for the others at mean 1. Lock fewer, or lower weights."
        )
    found = np.where(free, weights * (room / total), np.where(constraints.excluded, 0.0, weights))
    return np.where(free & (found < SMALLEST_WEIGHT), 0.0, found)


def exponentiated(weights: Floats, derivative: Floats, step: float, constraints: Constraints) -> Floats:
    """One step of exponentiated gradient; a weight of 0 stays 0."""
    free = constraints.free & (weights > 0)
    exponent = np.zeros_like(weights)
    if free.any():
        exponent[free] = step * (derivative[free] - np.average(derivative[free], weights=weights[free]))
    factors = np.exp(np.clip(exponent, -LARGEST_EXPONENT, LARGEST_EXPONENT))
    return normalised(np.where(free, weights * factors, weights), constraints)


def projected(weights: Floats, derivative: Floats, step: float, constraints: Constraints) -> Floats:
    """One step of gradient ascent, projected on {ω ≥ 0, mean 1}; a weight of 0 can come back."""
    free = constraints.free
    room = float((~constraints.excluded).sum() - weights[constraints.locked].sum())
    found = weights.copy()
    found[free] = _onto_simplex(weights[free] + step * derivative[free], room)
    return normalised(found, constraints)


def _onto_simplex(values: Floats, total: float) -> Floats:
    """The nearest point of {x ≥ 0, Σ x = total} (Duchi et al., ICML 2008, fig. 1)."""
    ordered = np.sort(values)[::-1]
    excess = np.cumsum(ordered) - total
    last = np.flatnonzero(ordered - excess / np.arange(1, len(values) + 1) > 0)[-1]
    shifted: Floats = np.maximum(values - excess[last] / (last + 1), 0.0)
    return shifted


def chosen(weights: Floats, derivative: Floats, count: int, constraints: Constraints) -> Floats:
    """The weights with only the `count` free examples of the highest derivative kept; newcomers get the mean of the
    kept ones. Ties go by place.
    """
    free = np.flatnonzero(constraints.free)
    kept = free[np.argsort(-derivative[free], kind="stable")[:count]]
    found = np.where(constraints.free, 0.0, weights)
    present = weights[kept][weights[kept] > 0]
    found[kept] = np.where(weights[kept] > 0, weights[kept], present.mean() if len(present) else 1.0)
    return normalised(found, constraints)
