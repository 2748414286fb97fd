"""The direction of a step of fixed size against automatic differentiation of that step's effect."""

import pytest
import torch
from torch import Tensor

from u2a_core.unlearning.step_direction import adam_scaling, step_direction

SHAPES = {"a": (3, 4), "b": (5,)}
Vector = dict[str, Tensor]


def vector(seed: int, positive: bool = False) -> Vector:
    numbers = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(shape, generator=numbers, dtype=torch.float64) for name, shape in SHAPES.items()}
    return {name: one.abs() + 0.1 for name, one in drawn.items()} if positive else drawn


def inner(one: Vector, other: Vector) -> Tensor:
    return sum((one[name] * other[name]).sum() for name in one)


def parallel(found: Vector, expected: Vector) -> float:
    """1 less the cosine between the two."""
    return 1 - float(inner(found, expected) / (inner(found, found) * inner(expected, expected)).sqrt())


@pytest.mark.parametrize("scaled", [False, True])
def test_a_step_of_fixed_size(scaled: bool) -> None:
    """J falls by ⟨∇J, P g⟩ / ‖g‖_P; its derivative in g is along v."""
    ascent, scaling = vector(0), vector(2, positive=True) if scaled else None
    step = {name: one.requires_grad_(True) for name, one in vector(1).items()}
    moved = {name: one * scaling[name] if scaling else one for name, one in step.items()}
    effect = inner(ascent, moved) / inner(step, moved).sqrt()
    expected = dict(zip(step, torch.autograd.grad(effect, list(step.values())), strict=True))
    found = step_direction(ascent, {name: one.detach() for name, one in step.items()}, scaling)
    assert parallel(found, expected) < 1e-12
    assert abs(float(inner(found, {name: one.detach() for name, one in step.items()}))) < 1e-10, (
        "no gain by length alone"
    )
    assert parallel(found, ascent) > 1e-3


def test_a_plain_step_goes_along_the_gradient_of_alignment() -> None:
    found = step_direction(vector(0), None)
    assert all(torch.equal(found[name], one) for name, one in vector(0).items())
    scaled = step_direction(vector(0), None, vector(2))
    assert all(torch.equal(scaled[name], vector(0)[name] * vector(2)[name]) for name in scaled)


def test_a_step_of_no_length_takes_nothing_away() -> None:
    nothing = {name: torch.zeros_like(one) for name, one in vector(0).items()}
    found = step_direction(vector(0), nothing)
    assert all(torch.equal(found[name], one) for name, one in vector(0).items())


def test_the_scaling_is_that_of_adam() -> None:
    """Against the step that torch's AdamW takes: proportional to m̂ P where P = 1/(√v̂ + ε)."""
    parameters = [one.clone().requires_grad_(True) for one in vector(0).values()]
    optimizer = torch.optim.AdamW(parameters, lr=1.0, weight_decay=0.0)
    for seed in range(5):
        before = [one.detach().clone() for one in parameters]
        for one, gradient in zip(parameters, vector(seed).values(), strict=True):
            one.grad = gradient
        optimizer.step()
    states = [optimizer.state[one] for one in parameters]
    moments = {name: state["exp_avg_sq"] for name, state in zip(SHAPES, states, strict=True)}
    scaling = adam_scaling(moments, 5)
    total = sum(float(one.sum()) for one in scaling.values()) / sum(one.numel() for one in scaling.values())
    assert total == pytest.approx(1.0)
    taken = {name: old - new.detach() for name, old, new in zip(SHAPES, before, parameters, strict=True)}
    expected = {name: scaling[name] * state["exp_avg"] for name, state in zip(SHAPES, states, strict=True)}
    assert parallel(taken, expected) < 1e-12
