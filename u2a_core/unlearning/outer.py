"""The outer problem of U2A: max over ω of J(θ*(ω)) − β Σ √ω, by steps that are taken only when they do not make it
worse.

A round proposes weights, solves the inner problem with them, and keeps them when the value on pairs kept aside does
not fall. Where it is asked for, the first rounds narrow the selection: to the better half by marginal ΔPA, and again,
for as long as that is kept. Then come steps along the derivative at the solution: one that is refused is halved and
tried again from where it was; one that is kept is doubled, or halved where the derivative there says that it went too
far. The best iterate is the answer, not the last.
What is solved is a protocol: the bundle's inner problem, or a toy whose optimum is known.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from u2a_core.errors import UnlearningError
from u2a_core.unlearning.weights import (
    Constraints,
    Flags,
    Floats,
    chosen,
    exponentiated,
    normalised,
    projected,
    sparsity_gradient,
)

UPDATES = {"exponentiated": exponentiated, "projected": projected}


class OuterProblem(Protocol):
    """An inner problem and what J is of its solutions."""

    def solve(self, weights: Floats) -> Any:
        """θ*(ω)."""
        ...

    def value(self, solution: Any) -> tuple[float, float]:
        """J on the pairs that the gradient sees, and on those kept aside; nats per pair. `solution` None: at θ0."""
        ...

    def gradient(self, solution: Any, weights: Floats, wanted: Flags) -> Floats:
        """dJ/dω_i at θ*(ω) on the pairs that the gradient sees, [n], 0 for examples not `wanted`; `solution` None: at
        θ0.
        """
        ...

    def retain(self, solution: Any) -> float | None:
        """How much worse than at the start retain data fare, nats per token; None where that is not known."""
        ...


@dataclass(frozen=True)
class OuterConfig:
    """How the weights are sought. `top`: share of the free examples chosen anew by marginal ΔPA in every round (None:
    all); `narrow`: the smallest share that the selection is narrowed to before any step (None: it is not); `step`: η,
    in units of the first derivative's standard deviation; `sparsity`: β; `rounds`: inner problems solved at most;
    `tolerance`: a rise of the value below which a round counts as none, of which `patience` in a row end the search.
    """

    rounds: int = 6
    top: float | None = None
    narrow: float | None = None
    update: str = "exponentiated"
    step: float = 0.5
    sparsity: float = 0.0
    tolerance: float = 1e-4
    patience: int = 2
    smallest_step: float = 0.01
    retain_budget: float | None = None

    def __post_init__(self) -> None:
        if self.update not in UPDATES:
            raise UnlearningError(f"--update {self.update} is unknown; choose {' or '.join(UPDATES)}.")
        if self.top is not None and not 0 < self.top <= 1:
            raise UnlearningError(f"--choose {self.top} is no share: give a number above 0 and at most 1, say 0.25.")
        if self.narrow is not None and not 0 < self.narrow <= 0.5:
            raise UnlearningError(f"--narrow {self.narrow} is no share to narrow to: give at most 0.5, say 0.05.")
        if self.narrow is not None and self.top is not None:
            raise UnlearningError("--choose and --narrow both decide how many examples are chosen: give one of them.")
        for option, value, least in (("--rounds", self.rounds, 1), ("--patience", self.patience, 1)):
            if value < least:
                raise UnlearningError(f"{option} must be at least {least}; it is {value}.")
        if not (math.isfinite(self.step) and self.step > 0):
            raise UnlearningError(f"--weight-step must be a number above 0; it is {self.step}.")
        for option, number in (("--sparsity", self.sparsity), ("--tolerance", self.tolerance)):
            if not (math.isfinite(number) and number >= 0):
                raise UnlearningError(f"{option} must be a number of at least 0; it is {number}.")


@dataclass
class Round:
    """One inner problem: its weights' statistics, what came of it, and whether it was kept."""

    number: int
    accepted: bool
    alignment_train: float
    alignment_aside: float
    value: float
    retain: float | None
    selected: int
    step: float
    weighting_seconds: float
    unlearning_seconds: float
    weights: list[float] = field(repr=False)


@dataclass
class OuterState:
    """Where the search is; all that going on needs. `derivative` belongs to `weights`, the last kept ones; while the
    selection is narrowed (`share` says how far) it is that at θ0.
    """

    weights: Floats
    derivative: Floats
    scale: float
    step: float
    value: float
    best: Floats
    best_value: float
    idle: int
    rounds: list[Round]
    share: float | None = None
    stopped: str | None = None


Recorder = Callable[[OuterState], None]


class OuterSolver:
    """Seeks the weights of one outer problem under a curator's constraints."""

    def __init__(self, problem: OuterProblem, constraints: Constraints, config: OuterConfig) -> None:
        self.problem, self.constraints, self.config = problem, constraints, config
        self._solution: Any = None  # of the last kept weights

    def solve(self, start: Floats, state: OuterState | None = None, record: Recorder | None = None) -> OuterState:
        """The search from `start` (or going on from `state`) until it stops; `record` is called after every round."""
        state = state or self._first(start)
        if record:
            record(state)
        while state.stopped is None:
            self._round(state)
            if record:
                record(state)
        return state

    def _first(self, start: Floats) -> OuterState:
        """Score at θ0, choose, solve once: the iterate that every other one is compared with."""
        clock = time.monotonic()
        weights = normalised(start, self.constraints)
        free = self.constraints.free
        derivative = self.problem.gradient(None, weights, free)
        weights = self._chosen(weights, derivative)
        scale = float(derivative[free].std()) or 1.0
        weighting = time.monotonic() - clock
        share = None if self.config.narrow is None else 1.0
        state = OuterState(weights, derivative, scale, self.config.step, -np.inf, weights, -np.inf, 0, [], share)
        if self._try(state, weights, weighting) and share is None:
            self._derive(state)
        return state

    def _round(self, state: OuterState) -> None:
        """One proposal: solved, kept or not; says in `stopped` when there shall be no other."""
        if len(state.rounds) >= self.config.rounds:
            state.stopped = f"{self.config.rounds} rounds done"
        elif state.share is not None:
            self._narrow(state, state.share / 2)
        else:
            self._step(state)

    def _narrow(self, state: OuterState, share: float) -> None:
        """The better part of the examples, by ΔPA at θ0, tried; where it is refused, or small enough, steps follow."""
        count = round(share * int(self.constraints.free.sum()))
        proposal = chosen(state.weights, state.derivative, max(count, 1), self.constraints)
        refused = not self._try(state, proposal, 0.0)
        state.share = None if refused or share / 2 < (self.config.narrow or 0.0) else share
        if state.share is None and np.isfinite(state.value):
            self._derive(state)

    def _derive(self, state: OuterState) -> None:
        """dJ/dω at the kept solution, of the examples whose weight can change; none where no round follows."""
        if len(state.rounds) < self.config.rounds:
            clock = time.monotonic()
            if self._solution is None:  # the search was interrupted
                self._solution = self.problem.solve(state.weights)
            can_return = self.config.top is not None or self.config.update == "projected"
            wanted = self.constraints.free & (can_return | (state.weights > 0))
            state.derivative = self.problem.gradient(self._solution, state.weights, wanted)
            state.rounds[-1].weighting_seconds += time.monotonic() - clock

    def _step(self, state: OuterState) -> None:
        """One step along the derivative."""
        clock = time.monotonic()
        derivative = state.derivative + sparsity_gradient(state.weights, self.config.sparsity)
        update = UPDATES[self.config.update]
        base = self._chosen(state.weights, derivative)
        proposal = update(base, derivative / state.scale, state.step, self.constraints)
        if np.allclose(proposal, state.weights, rtol=1e-9, atol=1e-12):
            state.stopped = "the weights do not change any more"
            return
        before, left = state.value, state.weights
        if self._try(state, proposal, time.monotonic() - clock):
            self._derive(state)
            uphill = state.derivative + sparsity_gradient(state.weights, self.config.sparsity)
            beyond = float(uphill @ (state.weights - left)) < 0  # the top of the way lies behind
            state.step = state.step / 2 if beyond else min(2 * state.step, 10 * self.config.step)
            state.idle = state.idle + 1 if state.value - before < self.config.tolerance else 0
        else:
            state.step /= 2
        if state.idle >= self.config.patience:
            state.stopped = f"{state.idle} rounds in a row gained less than {self.config.tolerance:g}"
        elif state.step < self.config.smallest_step * self.config.step:
            state.stopped = "no step in the direction of the gradient is an improvement"

    def _try(self, state: OuterState, weights: Floats, weighting: float) -> bool:
        """Solve with `weights`; keep them where the value does not fall and retain data do not suffer."""
        clock = time.monotonic()
        solution = self.problem.solve(weights)
        unlearning = time.monotonic() - clock
        clock = time.monotonic()
        train, aside = self.problem.value(solution)
        value = aside - self.config.sparsity * float(np.sqrt(weights).sum())
        retain = self.problem.retain(solution)
        budget = self.config.retain_budget
        within = budget is None or retain is None or retain <= budget
        accepted = bool(np.isfinite(value)) and within and value >= state.value
        if accepted:
            state.weights, state.value, self._solution = weights, value, solution
            if value > state.best_value:
                state.best, state.best_value = weights, value
        state.rounds.append(
            Round(
                number=len(state.rounds),
                accepted=accepted,
                alignment_train=train,
                alignment_aside=aside,
                value=value,
                retain=retain,
                selected=int((weights > 0).sum()),
                step=state.step,
                weighting_seconds=weighting + time.monotonic() - clock,
                unlearning_seconds=unlearning,
                weights=weights.tolist(),
            )
        )
        return accepted

    def _chosen(self, weights: Floats, derivative: Floats) -> Floats:
        """The round's selection: all, or the top share by marginal ΔPA."""
        if self.config.top is None:
            return weights
        count = max(1, round(self.config.top * int(self.constraints.free.sum())))
        return chosen(weights, derivative, count, self.constraints)
