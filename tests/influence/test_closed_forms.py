"""ΔPA against closed forms: linear regression, the quadratic bi-level problem, a case by hand, and one real step.

All in float64. ΔPA > 0 must mean: J rises when the example is unlearned.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, hessian

from u2a_core.data.batch import collate
from u2a_core.influence.alignment_gradient import alignment_gradient
from u2a_core.influence.backends import make_backend
from u2a_core.influence.directional import unit_direction
from u2a_core.influence.first_order import batch_influence, curvature_solution
from u2a_core.influence.logprobs import response_logps
from u2a_core.objectives.alignment import alignment
from u2a_core.objectives.forgetting import forgetting_objective, gradient_ascent

pytestmark = pytest.mark.usefixtures("one_thread")
BACKENDS = ("forward", "reverse")
N, D, DAMPING = 7, 3, 2.5


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(weight: Tensor, bias: float | None) -> nn.Linear:
    """x ↦ weight·x + bias."""
    layer = nn.Linear(len(weight), 1, bias=bias is not None).double()
    with torch.no_grad():
        layer.weight.copy_(weight[None])
        if bias is not None:
            layer.bias.fill_(bias)
    return layer


def gaussian_logps(model: nn.Module, batch: Any) -> Tensor:
    """log N(y; f(x), 1) without its constant, [N]."""
    return -0.5 * (batch.targets - model(batch.inputs)[:, 0]) ** 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_linear_regression(backend: str, row_batch: Any, row_influence: Any) -> None:
    """ℓ = ½ r², r = y − w·x − b, so ∇_w ℓ = −r x and ∂ℓ/∂b = −r; J = mean of −ℓ over other rows.

    GA: φ_i = −ℓ_i, hence ΔPA_i = −(1/nλ) ∇J·∇φ_i = +(1/nλ) ∇J·∇ℓ_i.
    """
    w, b = normal(D, seed=0), 0.3
    x, y, other_x, other_y = normal(N, D, seed=1), normal(N, seed=2), normal(4, D, seed=3), normal(4, seed=4)
    residual, other = y - x @ w - b, other_y - other_x @ w - b
    gradient = {"weight": (other[:, None] * other_x).mean(0, keepdim=True), "bias": other.mean()[None]}
    loss_slopes = -residual * (x @ gradient["weight"][0] + gradient["bias"])  # ∇J·∇ℓ_i
    found = row_influence(backend, linear(w, b), gaussian_logps, row_batch(x, y), gradient, DAMPING)
    torch.testing.assert_close(found, loss_slopes / (N * DAMPING), rtol=0, atol=1e-8)
    assert float(found.max()) > 0 > float(found.min())


class Quadratic:
    """The bi-level toy: φ_i(θ) = g_i·θ inside, J(θ) = c·θ − ½ θᵀAθ outside, regularised by (λ/2)‖θ − θ0‖²."""

    def __init__(self) -> None:
        root = normal(D, D, seed=5)
        self.theta0, self.g, self.c, self.A = normal(D, seed=6), normal(N, D, seed=7), normal(D, seed=8), root @ root.T

    def alignment(self, theta: Tensor) -> Tensor:
        return self.c @ theta - 0.5 * theta @ self.A @ theta

    def inner(self, theta: Tensor, weights: Tensor) -> Tensor:
        """(1/n) Σ_i ω_i φ_i(θ) + (λ/2)‖θ − θ0‖², its φ by the package's own GA: log π_i := g_i·θ, one token each."""
        values = gradient_ascent((self.g @ theta)[:, None], torch.ones(N, 1))
        return (weights * values).mean() + 0.5 * DAMPING * ((theta - self.theta0) ** 2).sum()

    def solve(self, weights: Tensor) -> Tensor:
        """θ*(ω) by one Newton step, exact for a quadratic: knows nothing of the closed form."""
        slope = grad(self.inner)(self.theta0, weights)
        return self.theta0 - torch.linalg.solve(hessian(self.inner)(self.theta0, weights), slope)


@pytest.mark.parametrize("backend", BACKENDS)
def test_quadratic_bilevel_problem(backend: str, row_batch: Any, row_influence: Any) -> None:
    """ΔPA_i is the exact derivative of J(θ*(ω)) along ω_i at ω = 0.

    Setting the inner gradient to 0: (1/n) Σ ω_i g_i + λ(θ − θ0) = 0, θ*(ω) = θ0 − (1/nλ) Σ ω_i g_i, and so
    dJ/dω_i = −(1/nλ) g_i·∇J(θ0), with ∇J(θ0) = c − Aθ0.
    """
    toy, step = Quadratic(), 1e-3
    gradient = toy.c - toy.A @ toy.theta0
    batch = row_batch(toy.g, torch.zeros(N))
    model = linear(toy.theta0, None)
    found = row_influence(
        backend, model, lambda m, rows: m(rows.inputs)[:, 0], batch, {"weight": gradient[None]}, DAMPING
    )
    torch.testing.assert_close(found, -(toy.g @ gradient) / (N * DAMPING), rtol=0, atol=1e-8)
    weights = normal(N, seed=9).abs()
    torch.testing.assert_close(toy.solve(weights), toy.theta0 - weights @ toy.g / (N * DAMPING), rtol=0, atol=1e-12)
    for index in range(N):
        change = step * torch.eye(N, dtype=torch.float64)[index]
        rise = toy.alignment(toy.solve(change)) - toy.alignment(toy.solve(-change))
        assert float(rise) / (2 * step) == pytest.approx(float(found[index]), abs=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_signs_by_hand(backend: str, row_batch: Any, row_influence: Any) -> None:
    """θ0 = (0, 0); J(θ) = −½[(θ₁ − 1)² + θ₂²], so J(θ0) = −½ and ∇J(θ0) = (1, 0); n = 2, λ = 2, so 1/(nλ) = ¼.

    A: log π = g·θ with g = (−3, 4). ΔPA = −¼ (1, 0)·(−3, 4) = +¾: unlearning A helps.
    B: log π = g·θ with g = (2, 1).  ΔPA = −¼ (1, 0)·(2, 1) = −½: unlearning B hurts.
    """
    g = torch.tensor([[-3.0, 4.0], [2.0, 1.0]], dtype=torch.float64)
    theta0 = torch.zeros(2, dtype=torch.float64)
    batch, gradient = row_batch(g, torch.zeros(2)), {"weight": torch.tensor([[1.0, 0.0]], dtype=torch.float64)}
    found = row_influence(backend, linear(theta0, None), lambda m, rows: m(rows.inputs)[:, 0], batch, gradient, 2.0)
    assert found.tolist() == pytest.approx([0.75, -0.5], abs=1e-15)

    def alignment_after(example: int) -> float:
        theta = theta0 - 0.01 / 4 * g[example]  # the inner solution for ω = 0.01 on this example: a small step of GA
        return float(-0.5 * ((theta[0] - 1) ** 2 + theta[1] ** 2))

    # A: θ = (0.0075, −0.01), J = −½(0.9925² + 0.01²) = −½(0.98505625 + 0.0001) = −0.492578125; the rise of
    #    0.007421875 is ω ΔPA = 0.01 × 0.75 = 0.0075 to first order.
    # B: θ = (−0.005, −0.0025), J = −½(1.005² + 0.0025²) = −½(1.010025 + 0.00000625) = −0.505015625: a fall of
    #    0.005015625, where 0.01 × 0.5 = 0.005 was predicted.
    assert alignment_after(0) == pytest.approx(-0.492578125, abs=1e-15)
    assert alignment_after(1) == pytest.approx(-0.505015625, abs=1e-15)
    assert [alignment_after(one) - -0.5 for one in (0, 1)] == pytest.approx((0.01 * found).tolist(), rel=0.02)


@pytest.mark.parametrize("objective", ["ga", "npo"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_one_small_step_changes_alignment_as_predicted(
    architecture: str, objective: str, build_policy: Any, encode_pairs: Any, responses: Any
) -> None:
    """θ − η∇φ_i changes J by −η⟨∇J, ∇φ_i⟩ = η n λ ΔPA_i to first order, for every example by itself."""
    policy, eta = build_policy(architecture), 1e-6
    pairs, measure, chosen = encode_pairs(policy), alignment("dpo"), forgetting_objective(objective)
    before = alignment_gradient(policy, pairs, measure, budget=200, show=False)
    direction, norm = unit_direction(curvature_solution(before.gradient, DAMPING))
    mode = make_backend("forward", policy.model, direction)
    batch = collate(responses, pad_id=0)
    reference = mode.tokens(batch)[0]
    predicted = batch_influence(mode, batch, chosen, norm / len(responses), reference).samples
    signs = set()
    for index, example in enumerate(responses):
        step = forgetting_gradient(policy, example, objective)
        move(policy, step, -eta)
        after = alignment_gradient(policy, pairs, measure, budget=200, show=False)
        move(policy, step, eta)
        expected = eta * len(responses) * DAMPING * float(predicted[index])
        assert after.value - before.value == pytest.approx(expected, rel=1e-2)
        signs.add(expected > 0)
    assert signs == {True, False}, "the examples should show both signs"


def forgetting_gradient(policy: Any, example: Any, objective: str) -> dict[str, Tensor]:
    """∇φ of one example at θ0, by autograd: the step that unlearning takes, written out from the formulae of φ.

    GA: φ = mean of log π. NPO at θ0: φ = −(2/β) log σ(β (const − Σ log π)), slope 2σ(0) = 1 in Σ log π.
    """
    parameters = policy.parameters()
    policy.model.requires_grad_(True)
    logps = response_logps(policy.model, collate([example], pad_id=0))
    value = logps.mean() if objective == "ga" else logps.sum()
    gradients = torch.autograd.grad(value, list(parameters.values()))
    policy.model.requires_grad_(False)
    return dict(zip(parameters, gradients, strict=True))


def move(policy: Any, step: dict[str, Tensor], length: float) -> None:
    with torch.no_grad():
        for name, parameter in policy.parameters().items():
            parameter += length * step[name]
