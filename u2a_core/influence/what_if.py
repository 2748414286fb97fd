"""What if these examples were unlearned? ΔPA of single candidates and of whole sets, from stored sketches alone.

With p = ω/Σω, u = Σ p_i s_i + α ∇R (R: the retain NLL, the anchor) and τ the horizon (learning rate × steps), θ moves
by −τu + (τ²/2) Σ p_i c_i ⟨s_i, u⟩ s_i: gradient flow to second order, with the Gauss-Newton part of ∇²φ_i (in T steps,
1 − 1/T of the second term). For a slice of the pairs h̄ is their mean, b_i = ⟨h̄, s_i⟩, and

    ΔPA_i         = −(τ/n) b_i                                                              one of n, weight 1
    first order   = −τ Σ p_i b_i                                                            a set
    second order  = mean of [log σ(−2τ⟨h_p, u⟩) + log 2] + (τ²/2) Σ p_i c_i b_i ⟨s_i, u⟩   dpo

At θ0 ∇J_p = (β/2)∇m_p, hence βm_p ≈ 2⟨h_p, Δθ⟩ and β drops out; `margin` is linear: its first term is the first order.
In nats per pair, > 0: unlearning helps. Noise of ⟨h_p, u⟩, of variance ≈ ‖h_p‖²‖u‖²/k in the parts of both that are
projected, lowers the second-order dpo prediction by about τ²/2 times its mean over the pairs.
"""

from copy import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from u2a_core.errors import ScoringError
from u2a_core.influence.sketch_blocks import Floats32, Rows, blocks
from u2a_core.store.sketches import SketchRows

Floats = NDArray[np.float64]
ALIGNMENTS = ("dpo", "margin")


class WhatIf:
    """The predictions of one folder of sketches. `cross` [n, P], ⟨s_i, h_p⟩, is computed once; nothing changes later,
    so that all users can share it.

    `curvature` [n] are the c_i = f''/f'² of the φ_i; `horizon` is τ; `alignment` the form of J. A slice of the pairs is
    an array of places (one named twice counts twice) or a mask [P]; default: all. Raises `ScoringError` where the
    arrays do not belong together, or a sketch or product is not finite.
    """

    def __init__(
        self, candidates: SketchRows, pairs: SketchRows, curvature: ArrayLike, alignment: str, horizon: float
    ) -> None:
        self.candidates, self.alignment, self.horizon = candidates, alignment, _horizon(horizon)
        self.curvature: Floats = np.asarray(curvature, np.float64)
        (self.count, k), (self.pair_count, pair_k) = candidates.values.shape, pairs.values.shape
        if not self.count or not self.pair_count:
            raise ScoringError(
                f"There are sketches of {self.count} candidates and {self.pair_count} pairs; a prediction needs at "
                "least one of each. Sketch a bundle that has both."
            )
        if k != pair_k or self.curvature.shape != (self.count,) or not np.isfinite(self.curvature).all():
            raise ScoringError(
                f"Sketches of {self.count} candidates in {k} numbers, of pairs in {pair_k}, and {self.curvature.shape} "
                "curvatures do not belong together. Take all three from one folder that `u2a sketch` made."
            )
        if alignment not in ALIGNMENTS:
            raise ScoringError(f"No prediction for J = '{alignment}'; sketch with {' or '.join(ALIGNMENTS)}.")
        self.cross = _cross(candidates, pairs)
        self._pairs, self.anchor, self.pull = pairs, np.zeros(k), np.zeros(self.pair_count)

    def at(self, horizon: float) -> "WhatIf":
        """The predictions for another horizon, from the same products."""
        found = copy(self)
        found.horizon = _horizon(horizon)
        return found

    def anchored(self, gradient: ArrayLike, alpha: float) -> "WhatIf":
        """The predictions for runs with the retention term αR; `gradient` [k] is the sketch of ∇R(θ0)."""
        found = copy(self)
        found.anchor = alpha * np.asarray(gradient, np.float64)
        if found.anchor.shape != self.anchor.shape or not np.isfinite(found.anchor).all():
            raise ScoringError(f"An anchor of shape {found.anchor.shape} and weight {alpha} does not belong to these.")
        rows, parts = zip(*blocks(self._pairs), strict=True)
        found.pull = np.concatenate([block @ found.anchor for block in parts])[np.argsort(np.concatenate(rows))]
        return found

    def slice_rows(self, pairs: NDArray[Any] | None) -> Rows:
        """The places of a slice's pairs; `ScoringError` where it is empty or names a pair that is not there."""
        if pairs is None:
            return np.arange(self.pair_count)
        mask = pairs.dtype == np.bool_
        found: Rows = np.flatnonzero(pairs) if mask else pairs.astype(np.intp)
        if not len(found):
            raise ScoringError("The slice holds no pair. Choose one that holds at least one, or all pairs.")
        if found.min() < 0 or found.max() >= self.pair_count or (mask and len(pairs) != self.pair_count):
            raise ScoringError(
                f"The slice is not one of these {self.pair_count} pairs. Choose it from the folder of these sketches."
            )
        return found

    def slopes(self, pairs: NDArray[Any] | None = None) -> Floats:
        """b_i = ⟨h̄, s_i⟩ of every candidate, [n]: the slope of J along ∇φ_i, for a slice."""
        rows = self.slice_rows(pairs)
        share = np.bincount(rows, minlength=self.pair_count) / len(rows)
        found: Floats = (self.cross @ share.astype(np.float32)).astype(np.float64)
        return found

    def delta_pa(self, pairs: NDArray[Any] | None = None) -> Floats:
        """ΔPA of every candidate by itself, with weight 1 among n, [n]; for a slice."""
        found: Floats = -self.horizon / self.count * self.slopes(pairs)
        return found

    def predict(self, weights: ArrayLike, pairs: NDArray[Any] | None = None) -> "SetPrediction":
        """The predictions for a forget set with raw weights [n], 0 where not unlearned; for a slice."""
        return SetPrediction(self, weights, pairs)


class SetPrediction:
    """ΔPA of one forget set on one slice; its weights change one by one, in O(k + P) each.

    Raw weights ≥ 0, of any sum: only their ratios count. Sums are held in float64, so that what is left when a weight
    is taken out again is exact to 1e-16 of the largest sum.
    """

    def __init__(self, what_if: WhatIf, weights: ArrayLike, pairs: NDArray[Any] | None = None) -> None:
        self._what_if, self._pairs = what_if, what_if.slice_rows(pairs)
        self._weights = np.array(weights, np.float64)
        if self._weights.shape != (what_if.count,):
            raise ScoringError(
                f"{self._weights.shape} weights for {what_if.count} candidates: give one a candidate, 0 for those that "
                "are not unlearned."
            )
        wrong = np.flatnonzero(~(np.isfinite(self._weights) & (self._weights >= 0)))
        if len(wrong):
            raise self._refused(int(wrong[0]), self._weights[wrong[0]])
        self._bends: Floats = what_if.curvature * what_if.slopes(self._pairs)  # c_i b_i
        k = what_if.candidates.values.shape[1]
        self._gradient, self._bend = np.zeros(k), np.zeros(k)  # Σ w_i s_i and Σ w_i c_i b_i s_i
        self._along = np.zeros(len(self._pairs))  # Σ w_i ⟨h_p, s_i⟩
        for rows, block in blocks(what_if.candidates, np.flatnonzero(self._weights)):
            chosen = self._weights[rows]
            moved = np.stack([chosen, chosen * self._bends[rows]]) @ block
            self._gradient += moved[0]
            self._bend += moved[1]
            self._along += (chosen @ what_if.cross[rows])[self._pairs]

    @property
    def weights(self) -> Floats:
        """The raw weights, [n]; a copy."""
        return self._weights.copy()

    def set_weight(self, row: int, value: float) -> None:
        """Give the candidate at `row` the raw weight `value`; 0 takes it out of the set."""
        if not 0 <= row < len(self._weights) or not 0 <= value < np.inf:
            raise self._refused(row, value)
        change = value - self._weights[row]
        sketch = self._what_if.candidates.float32(slice(row, row + 1))[0]
        self._gradient += change * sketch
        self._bend += change * self._bends[row] * sketch
        self._along += change * self._what_if.cross[row, self._pairs]
        self._weights[row] = value

    @property
    def first_order(self) -> float:
        """−τ Σ p_i b_i, the plain sum of single effects; without the anchor's."""
        return -self._what_if.horizon * float(self._along.mean()) / self._total()

    @property
    def second_order(self) -> float:
        """ΔPA of the run: with its anchor, and the curvature of log σ (dpo) and of the φ_i."""
        total, horizon = self._total(), self._what_if.horizon
        bend = horizon**2 / 2 * float(self._bend @ (self._gradient / total + self._what_if.anchor)) / total
        along = self._along / total + self._what_if.pull[self._pairs]
        if self._what_if.alignment == "margin":
            return -horizon * float(along.mean()) + bend
        moved = -2 * horizon * along  # βm_p
        return float((np.log(2) - np.logaddexp(0, -moved)).mean()) + bend

    def _total(self) -> float:
        total = float(self._weights.sum())
        if total == 0:
            raise ScoringError(
                "No candidate has a weight above 0, so nothing is unlearned. Give at least one a weight."
            )
        return total

    def _refused(self, row: int, value: float) -> ScoringError:
        return ScoringError(
            f"The weight {value} for row {row} cannot be: rows go from 0 to {len(self._weights) - 1}; give a finite "
            "weight of at least 0."
        )


def _horizon(horizon: float) -> float:
    if not 0 < horizon < np.inf:
        raise ScoringError(f"The horizon, learning rate × steps, must be greater than 0; it is {horizon}.")
    return horizon


def _cross(candidates: SketchRows, pairs: SketchRows) -> Floats32:
    """⟨s_i, h_p⟩, [n, P]: block by block of the candidates, with all pairs in memory."""
    held = np.empty(pairs.values.shape, np.float32)
    for rows, block in blocks(pairs):
        held[rows] = block
    found = np.empty((len(candidates.values), len(held)), np.float32)
    for rows, block in blocks(candidates):
        with np.errstate(over="ignore", invalid="ignore"):
            found[rows[0] : rows[-1] + 1] = block @ held.T
    if not np.isfinite(found).all():
        raise ScoringError("Products of the sketches overflow. Sketch in smaller units: with a smaller β of φ or J.")
    return found
