"""H x = b by preconditioned conjugate gradients, for a symmetric H known by its products with vectors alone.

What comes back says how good it is: the true relative residual ‖b − Hx‖/‖b‖, and the Rayleigh quotients pᵀHp/pᵀp that
were met. Where H is not positive definite there is an error with the cure instead of a wrong number. Vectors are by
parameter name, in their own dtype; their products are summed in float64.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from u2a_core.errors import ScoringError
from u2a_core.influence.vectors import Vector, inner, length

Product = Callable[[Vector], Vector]  # v ↦ H v
LANCZOS_STEPS = 40  # that the search for the smallest eigenvalue may take, once H is known to have one below 0


@dataclass(frozen=True)
class State:
    """Between two iterations: x, r = b − Hx (by recursion), the next direction p, and ρ = ⟨r, M⁻¹r⟩; the Rayleigh
    quotients, and the seconds that it took so far.
    """

    solution: Vector
    residual: Vector
    search: Vector
    rho: float
    iterations: int = 0
    smallest: float = math.inf
    largest: float = -math.inf
    seconds: float = 0.0


@dataclass(frozen=True)
class Solution:
    """x with its true `relative_residual` ‖b − Hx‖/‖b‖, and whether that is within the tolerance.

    `smallest` and `largest` are the extreme Rayleigh quotients met, in units of λ; None where b = 0.
    """

    solution: dict[str, Tensor]
    relative_residual: float
    iterations: int
    smallest: float | None
    largest: float | None
    converged: bool
    seconds: float


def conjugate_gradients(
    apply: Product,
    right: Vector,
    preconditioner: Vector | None,
    tolerance: float,
    iterations: int,
    damping: float,
    start: State | None = None,
    after: Callable[[State], None] = lambda _: None,
) -> Solution:
    """Solve until ‖b − Hx‖ ≤ `tolerance` ‖b‖, or for `iterations`; the preconditioner is the diagonal of M (None: I).

    `damping` is the λ that H contains, for the error's advice. `after` is called with the state of every iteration;
    from any such `start` the rest is the same, bit by bit. Raises `ScoringError` where pᵀHp ≤ 0, or not finite.
    """
    norm = length(right)
    goal = tolerance * norm
    state = start or _begun({name: torch.zeros_like(part) for name, part in right.items()}, right, preconditioner)
    began = time.monotonic() - state.seconds
    while True:
        while length(state.residual) > goal and state.iterations < iterations:
            state = replace(_step(apply, state, preconditioner, damping), seconds=time.monotonic() - began)
            after(state)
        image = apply(state.solution)
        residual = {name: part - image[name] for name, part in right.items()}
        left = length(residual)
        _check_finite(left, state.iterations)
        if left <= goal or state.iterations >= iterations:
            break
        fresh = _begun(state.solution, residual, preconditioner)  # in float32 the recursion drifts from the truth
        state = replace(state, residual=fresh.residual, search=fresh.search, rho=fresh.rho)
    return Solution(
        dict(state.solution),
        left / norm if norm else 0.0,
        state.iterations,
        state.smallest if state.iterations else None,
        state.largest if state.iterations else None,
        left <= goal,
        time.monotonic() - began,
    )


def _begun(solution: Vector, residual: Vector, preconditioner: Vector | None) -> State:
    """At x with its residual, about to go along the steepest descent."""
    search = _preconditioned(residual, preconditioner)
    return State(solution, residual, search, inner(residual, search))


def _step(apply: Product, state: State, preconditioner: Vector | None, damping: float) -> State:
    image = apply(state.search)
    curvature, square = inner(state.search, image), inner(state.search, state.search)
    _check_finite(curvature, state.iterations + 1)
    if curvature <= 0:
        raise _not_positive(apply, state.search, curvature / square, damping)
    rate = state.rho / curvature
    residual = _moved(state.residual, -rate, image)
    scaled = _preconditioned(residual, preconditioner)
    rho = inner(residual, scaled)
    return State(
        _moved(state.solution, rate, state.search),
        residual,
        _moved(scaled, rho / state.rho, state.search),
        rho,
        state.iterations + 1,
        min(state.smallest, curvature / square),
        max(state.largest, curvature / square),
    )


def _preconditioned(vector: Vector, preconditioner: Vector | None) -> Vector:
    return vector if preconditioner is None else {name: one / preconditioner[name] for name, one in vector.items()}


def _moved(start: Vector, rate: float, direction: Vector) -> Vector:
    """a + rate · b."""
    return {name: part.add(direction[name], alpha=rate) for name, part in start.items()}


def _check_finite(value: float, iteration: int) -> None:
    if not math.isfinite(value):
        raise ScoringError(
            f"A product with the curvature is not finite in iteration {iteration} of conjugate gradients: the policy "
            "overflows there. Load it with --dtype float32, or use --estimator first_order."
        )


def _not_positive(apply: Product, search: Vector, quotient: float, damping: float) -> ScoringError:
    """The error for pᵀHp ≤ 0, with a λ that makes H positive definite.

    The quotient of one p is no bound for that: a smaller eigenvalue may be near, so it is looked for.
    """
    needed = max(-_smallest_eigenvalue(apply, search), -quotient)
    cure = damping + max(1.1 * needed, 0.1 * damping)
    return ScoringError(
        f"The curvature of the inner objective is not positive: pᵀHp/pᵀp = {quotient:.3g} along a direction that "
        f"conjugate gradients met with λ = {damping:g}, and H⁻¹∇J would mean nothing. λ must rise by more than "
        f"about {needed:.3g}: say --damping {cure:.4g}. Or leave out the objective's own part of the curvature; where "
        "it is out already, load the policy with --dtype float32."
    )


def _smallest_eigenvalue(apply: Product, start: Vector) -> float:
    """About the smallest eigenvalue of H, by Lanczos from `start`: the smallest Ritz value less its error bound."""
    diagonal: list[float] = []
    beside: list[float] = []
    previous = current = _scaled(start, 1 / length(start))
    while True:
        image = apply(current)
        diagonal.append(inner(current, image))
        image = _moved(image, -diagonal[-1], current)
        if beside:
            image = _moved(image, -beside[-1], previous)
        norm = length(image)
        inside = torch.tensor(beside, dtype=torch.float64)
        values, vectors = torch.linalg.eigh(
            torch.tensor(diagonal, dtype=torch.float64).diag() + inside.diag(1) + inside.diag(-1)
        )
        lowest, error = float(values[0]), norm * abs(float(vectors[-1, 0]))
        if error <= 0.05 * abs(lowest) or len(diagonal) == LANCZOS_STEPS:
            return lowest - error
        beside.append(norm)
        previous, current = current, _scaled(image, 1 / norm)


def _scaled(vector: Vector, factor: float) -> Vector:
    return {name: factor * part for name, part in vector.items()}
