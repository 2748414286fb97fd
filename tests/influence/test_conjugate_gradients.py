"""Conjugate gradients against dense solves and a case by hand; what they refuse, report, and go on from."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from u2a_core.errors import ScoringError
from u2a_core.influence.conjugate_gradients import Solution, State, conjugate_gradients

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPES = {"a": (3, 4), "b": (8,)}
SIZE = 20
Vectors = dict[str, Tensor]


def vectors(flat: Tensor) -> Vectors:
    """A flat vector of 20 entries under two names."""
    parts = flat.split([math.prod(shape) for shape in SHAPES.values()])
    return {name: part.view(shape) for (name, shape), part in zip(SHAPES.items(), parts, strict=True)}


def flat(parts: Vectors) -> Tensor:
    return torch.cat([part.flatten() for part in parts.values()])


def product(matrix: Tensor) -> Callable[[Vectors], Vectors]:
    return lambda parts: vectors(matrix @ flat(parts))


def random_matrix(seed: int, eigenvalues: Tensor) -> Tensor:
    """A symmetric matrix with these eigenvalues, turned at random."""
    numbers = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=numbers, dtype=torch.float64))
    return turn @ eigenvalues.diag() @ turn.T


def random_vector(seed: int) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def solve(matrix: Tensor, right: Tensor, preconditioner: Tensor | None = None, **changed: Any) -> Solution:
    settings = {"tolerance": 1e-9, "iterations": 100, "damping": 0.5, **changed}
    diagonal = None if preconditioner is None else vectors(preconditioner)
    return conjugate_gradients(product(matrix), vectors(right), diagonal, **settings)


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_solution_equals_the_dense_one(seed: int, preconditioned: bool) -> None:
    """Whatever positive diagonal preconditions; the report's numbers are those of the solution and the matrix."""
    eigenvalues = torch.logspace(-1, 2, SIZE, dtype=torch.float64)
    matrix, right = random_matrix(seed, eigenvalues), random_vector(seed + 10)
    found = solve(matrix, right, random_vector(seed + 20).exp() if preconditioned else None)
    expected = torch.linalg.solve(matrix, right)
    torch.testing.assert_close(flat(found.solution), expected, rtol=0, atol=1e-6 * float(expected.norm()))
    residual = float((right - matrix @ flat(found.solution)).norm() / right.norm())
    assert found.relative_residual == pytest.approx(residual, rel=1e-6)
    assert residual <= 1e-9
    assert found.converged
    assert 0.1 <= found.smallest < found.largest <= 100
    assert {name: part.shape for name, part in found.solution.items()} == SHAPES


def test_two_iterations_by_hand() -> None:
    """H = diag(1, 3), b = (1, 1), so x = (1, ⅓).

    p₀ = b, p₀ᵀHp₀/p₀ᵀp₀ = 4/2 = 2; r₁ = b − ½ (1, 3) = (½, −½), β = ½/2 = ¼, p₁ = (¾, −¼), p₁ᵀHp₁ = 9/16 + 3/16 = 12/16
    and p₁ᵀp₁ = 10/16, a quotient of 1.2. Two eigenvalues: two iterations.
    """
    scale, right = torch.tensor([1.0, 3.0]).double(), {"x": torch.ones(2, dtype=torch.float64)}
    found = conjugate_gradients(lambda v: {"x": scale * v["x"]}, right, None, 1e-12, 9, 1.0)
    assert found.solution["x"].tolist() == pytest.approx([1, 1 / 3], abs=1e-14)
    assert (found.iterations, found.smallest, found.largest) == (2, pytest.approx(1.2), pytest.approx(2.0))


def test_the_diagonal_of_a_badly_scaled_matrix_saves_iterations() -> None:
    """H = D (1 + small) D: D² makes it near to the identity; for a diagonal H one iteration is enough."""
    scale = torch.logspace(-2, 2, SIZE, dtype=torch.float64)
    inside = torch.eye(SIZE, dtype=torch.float64) + 0.1 * random_matrix(0, torch.linspace(-1, 1, SIZE).double())
    matrix, right = scale[:, None] * inside * scale, random_vector(1)
    with_it, without = (solve(matrix, right, one, iterations=400) for one in (matrix.diag(), None))
    assert with_it.iterations <= 10 < without.iterations
    diagonal = matrix.diag().diag()
    assert solve(diagonal, right, matrix.diag()).iterations == 1


def test_too_few_iterations_are_told() -> None:
    matrix, right = random_matrix(0, torch.logspace(-2, 2, SIZE, dtype=torch.float64)), random_vector(1)
    found = solve(matrix, right, iterations=3)
    assert (found.converged, found.iterations) == (False, 3)
    residual = float((right - matrix @ flat(found.solution)).norm() / right.norm())
    assert found.relative_residual == pytest.approx(residual)
    assert residual > 1e-2


def test_a_false_residual_is_found_out() -> None:
    """Products that are wrong at first let the recursion end early: the true residual starts it anew."""
    matrix, right = random_matrix(0, torch.linspace(1, 3, SIZE).double()), random_vector(1)
    calls = 0

    def wrong_at_first(parts: Vectors) -> Vectors:
        nonlocal calls
        calls += 1
        return product(1.3 * matrix if calls < 5 else matrix)(parts)

    found = conjugate_gradients(wrong_at_first, vectors(right), None, 1e-8, 100, 0.5)
    assert found.converged
    torch.testing.assert_close(flat(found.solution), torch.linalg.solve(matrix, right), rtol=0, atol=1e-6)
    assert found.iterations > SIZE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_keep_their_dtype(dtype: torch.dtype) -> None:
    matrix, right = random_matrix(0, torch.linspace(1, 9, SIZE).double()).to(dtype), random_vector(1).to(dtype)
    found = solve(matrix, right, tolerance=1e-5)
    assert {part.dtype for part in found.solution.values()} == {dtype}
    assert found.converged


def cure_of(error: ScoringError) -> float:
    """The λ that the message tells to say."""
    named = re.search(r"say --damping (\S+)\. ", str(error))
    assert named is not None, str(error)
    return float(named[1])


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_negative_curvature_is_an_error_that_names_its_cure(seed: int, preconditioned: bool) -> None:
    """With the λ named in place of the present one H is positive definite, and not much more is asked for."""
    numbers = torch.Generator().manual_seed(seed)
    eigenvalues = torch.randn(SIZE, generator=numbers, dtype=torch.float64).abs()
    eigenvalues[: 1 + seed % 3] *= -1
    matrix, right = random_matrix(seed, eigenvalues), random_vector(seed + 10)
    diagonal = random_vector(seed + 20).exp() if preconditioned else None
    with pytest.raises(ScoringError, match="is not positive") as refusal:
        solve(matrix, right, diagonal)
    rise, needed = cure_of(refusal.value) - 0.5, -float(eigenvalues.min())
    assert needed < rise <= max(1.2 * needed, 0.05001)
    cured = matrix + rise * torch.eye(SIZE, dtype=torch.float64)
    assert torch.linalg.eigvalsh(cured)[0] > 0
    assert solve(cured, right, diagonal).converged


def test_no_curvature_at_all_is_an_error_too() -> None:
    """H = diag(1, −1), b = (1, 1): pᵀHp = 0 at once. Its smallest eigenvalue is −1: λ = 0.5 + 1.1 · 1 = 1.6."""
    scale, right = torch.tensor([1.0, -1.0]).double(), {"x": torch.ones(2, dtype=torch.float64)}
    with pytest.raises(ScoringError, match=r"pᵀHp/pᵀp = 0 .* more than about 1: ") as refusal:
        conjugate_gradients(lambda v: {"x": scale * v["x"]}, right, None, 1e-12, 9, 0.5)
    assert cure_of(refusal.value) == pytest.approx(1.6)


def test_a_singular_matrix_asks_for_a_tenth_more() -> None:
    """H = 0 with λ = 2 said to be in it: no eigenvalue tells how far to go."""
    with pytest.raises(ScoringError) as refusal:
        solve(torch.zeros(SIZE, SIZE, dtype=torch.float64), random_vector(0), damping=2.0)
    assert cure_of(refusal.value) == pytest.approx(2.2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_product_that_is_not_finite_is_an_error(value: float) -> None:
    matrix = torch.eye(SIZE, dtype=torch.float64)
    matrix[3, 3] = value
    with pytest.raises(ScoringError, match="not finite in iteration 1"):
        solve(matrix, random_vector(0))


def test_a_true_residual_that_is_not_finite_is_an_error() -> None:
    """The iteration goes well, and the product with its solution does not."""
    answers = iter([1.0, math.nan])
    with pytest.raises(ScoringError, match="not finite in iteration 1"):
        conjugate_gradients(lambda v: vectors(next(answers) * flat(v)), vectors(random_vector(0)), None, 1e-6, 9, 0.5)


def test_no_right_side_has_no_solution_to_look_for() -> None:
    found = solve(torch.eye(SIZE, dtype=torch.float64), torch.zeros(SIZE, dtype=torch.float64))
    assert (found.relative_residual, found.iterations, found.smallest, found.largest) == (0.0, 0, None, None)
    assert found.converged
    assert not flat(found.solution).any()


def test_every_state_goes_on_to_the_same_bits() -> None:
    matrix, right = random_matrix(2, torch.logspace(-1, 1, SIZE, dtype=torch.float64)), random_vector(3)
    diagonal, states = random_vector(4).exp(), list[State]()
    whole = solve(matrix, right, diagonal, after=states.append)
    assert [state.iterations for state in states] == list(range(1, whole.iterations + 1))
    for state in states:
        rest = list[State]()
        found = solve(matrix, right, diagonal, start=state, after=rest.append)
        assert len(rest) == whole.iterations - state.iterations
        assert torch.equal(flat(found.solution), flat(whole.solution))
        assert (found.smallest, found.largest) == (whole.smallest, whole.largest)
        assert found.relative_residual == whole.relative_residual
        assert found.seconds >= state.seconds
