"""Random projections: their factors, inner products without bias, variance, and what they depend on."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from u2a_core.influence import projection as module
from u2a_core.influence.projection import KINDS, Projection

pytestmark = pytest.mark.usefixtures("one_thread")
# tall, wide, one row, one column, one dimension, three, none at all, and an embedding of which few rows are met
SHAPES: dict[str, tuple[int, ...]] = {
    "tall": (9, 3),
    "wide": (2, 8),
    "row": (1, 6),
    "column": (6, 1),
    "norm": (7,),
    "kernel": (3, 2, 4),
    "scalar": (),
    "embedding": (20, 4),
}
Gradient = dict[str, Tensor]


def parameters(dtype: torch.dtype = torch.float64) -> Gradient:
    return {name: torch.zeros(shape, dtype=dtype) for name, shape in SHAPES.items()}


def gradient(seed: int) -> Gradient:
    """A made-up gradient that shares a part with every other one, so that inner products are not near 0."""
    numbers = torch.Generator().manual_seed(seed)
    shared = torch.Generator().manual_seed(99)
    found = {
        name: torch.randn(shape, generator=numbers, dtype=torch.float64)
        + torch.randn(shape, generator=shared, dtype=torch.float64)
        for name, shape in SHAPES.items()
    }
    found["embedding"][torch.arange(20) % 5 != seed % 5] = 0
    found["embedding"][0] = 1.0
    return found


def only(one: Gradient, name: str) -> Gradient:
    return {key: part if key == name else torch.zeros_like(part) for key, part in one.items()}


def inner(left: Gradient, right: Gradient) -> float:
    return float(sum((left[name] * right[name]).sum() for name in left))


def estimates(left: Gradient, right: Gradient, k: int, kind: str, seeds: int) -> Tensor:
    """⟨s(left), s(right)⟩ of many projections."""
    found = []
    for seed in range(seeds):
        first, second = Projection(left, k, kind, seed).project([left, right])
        found.append(first @ second)
    return torch.stack(found)


def entries(left: Gradient, right: Gradient, k: int, kind: str) -> Tensor:
    """k s_j(left) s_j(right) of one projection: every j is an estimate of its own, of ⟨left, right⟩."""
    rest = {"rest": torch.zeros(64, 64, dtype=torch.float64)}  # many values, so that k is below their number
    first, second = Projection(left | rest, k, kind, 0).project([left | rest, right | rest])
    return k * first * second


def is_unbiased(found: Tensor, expected: float) -> bool:
    """Whether the mean lies within four standard errors of `expected`, and these are small enough to tell."""
    error = float(found.std()) / len(found) ** 0.5
    assert 0 < error < 0.15 * abs(expected)
    return abs(float(found.mean()) - expected) < 4 * error


@pytest.mark.parametrize("kind", KINDS)
def test_inner_products_are_unbiased(kind: str) -> None:
    left, right = gradient(1), gradient(2)
    assert is_unbiased(estimates(left, right, 16, kind, 150), inner(left, right))


@pytest.mark.parametrize("name", ["tall", "wide", "row", "column", "norm", "kernel", "embedding"])
@pytest.mark.parametrize("kind", KINDS)
def test_inner_products_are_unbiased_for_every_shape(name: str, kind: str) -> None:
    left, right = ({name: gradient(seed)[name]} for seed in (1, 2))
    assert is_unbiased(entries(left, right, 4000, kind), inner(left, right))


def test_inner_products_of_tied_weights_are_unbiased(build_policy: Any, responses: Any, naive_logps: Any) -> None:
    """GPT-2's embedding is its head too: one parameter, whose gradient has both parts."""
    policy = build_policy("gpt2", "full")
    own = policy.parameters()
    for one in own.values():
        one.requires_grad_(True)
    values = (naive_logps(policy.model, one).sum() for one in responses[:2])
    left, other = (dict(zip(own, torch.autograd.grad(value, own.values()), strict=True)) for value in values)
    for one in own.values():
        one.requires_grad_(False)
    right = {name: left[name] + other[name] for name in own}
    assert is_unbiased(estimates(left, right, 64, "rademacher", 60), inner(left, right))


@pytest.mark.parametrize("kind", KINDS)
def test_the_variance_falls_as_one_over_k(kind: str) -> None:
    left, right = ({name: gradient(seed)[name] for name in ("tall", "wide", "embedding")} for seed in (1, 2))
    few, many = (float(estimates(left, right, k, kind, 300).var()) for k in (4, 64))
    assert 10 < few / many < 25
    lengths = inner(left, left) * inner(right, right)
    assert 0.5 * lengths < 64 * many < 9 * lengths


def test_parameters_do_not_mix() -> None:
    """The parts of different parameters are orthogonal on average: their factors are independent."""
    one = {name: gradient(1)[name] for name in ("tall", "column")}
    left, right = only(one, "tall"), only(one, "column")
    found = entries(left, right, 4000, "rademacher")
    assert abs(float(found.mean())) < 4 * float(found.std()) / len(found) ** 0.5
    assert float(found.std()) > 0


def basis_sketches(name: str, kind: str = "rademacher", k: int = 10) -> Tensor:
    """√k times the sketch of every unit gradient of one parameter, [numel, k]: the projection itself."""
    found = []
    for entry in range(parameters()[name].numel()):
        one = parameters()
        one[name].view(-1)[entry] = 1
        found.append(one)
    return Projection(parameters(), k, kind, 0).project(found) * k**0.5


@pytest.mark.parametrize("name", ["tall", "wide", "row", "column", "kernel", "embedding"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_matrix_is_projected_by_an_outer_product(name: str, kind: str) -> None:
    out = SHAPES[name][0]
    factors = basis_sketches(name, kind).T.reshape(10, out, -1)
    assert torch.equal(torch.linalg.matrix_rank(factors), torch.ones(10, dtype=torch.long))
    if kind == "rademacher":
        assert factors.abs().allclose(torch.ones(()).double(), rtol=1e-12)
    assert len({tuple(one.flatten().tolist()) for one in factors}) > 5


def test_gaussian_factors_are_normal() -> None:
    one = {"norm": torch.zeros(5000, dtype=torch.float64)}
    numbers = Projection(one, 40, "gaussian", 3).project([{"norm": row} for row in torch.eye(5000)[:50].double()])
    numbers = numbers.flatten() * 40**0.5
    assert float(numbers.mean()) == pytest.approx(0, abs=0.09)
    assert float(numbers.square().mean()) == pytest.approx(1, abs=0.13)
    assert float(numbers.pow(4).mean()) == pytest.approx(3, abs=0.9)


def test_the_projection_is_linear() -> None:
    left, right = gradient(1), gradient(2)
    mixed = {name: 2 * left[name] - 3 * right[name] for name in left}
    first, second, both = Projection(left, 30, "rademacher", 0).project([left, right, mixed])
    assert both.allclose(2 * first - 3 * second, rtol=1e-12)


def test_seed_name_shape_and_kind_determine_the_projection_and_nothing_else() -> None:
    one = only(gradient(1), "tall")

    def found(own: Mapping[str, Tensor], seed: int = 0, kind: str = "rademacher", name: str = "tall") -> Tensor:
        zeros = {key: torch.zeros_like(part) for key, part in own.items()}
        return Projection(own, 20, kind, seed).project([{**zeros, name: one["tall"]}])[0]

    usual = found(one)
    assert torch.equal(found(one), usual)
    assert torch.equal(found({"tall": one["tall"]}), usual)
    assert torch.equal(found(dict(reversed(one.items()))), usual)
    torch.manual_seed(5)
    assert torch.equal(found(one), usual)
    others = [
        found(one, seed=1),
        found(one, kind="gaussian"),
        found({"other": one["tall"]}, name="other"),
    ]
    assert not any(other.allclose(usual) for other in others)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes_agree_and_are_taken_in_float32(dtype: torch.dtype) -> None:
    own = {name: part.to(dtype) for name, part in gradient(1).items()}
    found = Projection(own, 50, "rademacher", 0).project([own])
    expected = Projection(parameters(), 50, "rademacher", 0).project([{n: part.double() for n, part in own.items()}])
    assert found.dtype == torch.float32
    assert found.allclose(expected.float(), rtol=0, atol=1e-6 * float(expected.abs().max()))


def test_gradients_and_blocks_do_not_touch_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [gradient(seed) for seed in range(5)]
    own = Projection(every[0], 33, "rademacher", 0)
    together = own.project(every)
    alone = torch.cat([own.project([one]) for one in every])
    assert together.allclose(alone, rtol=1e-12)
    monkeypatch.setattr(module, "BLOCK", 100)
    assert own.project(every).allclose(together, rtol=1e-12)


def test_from_the_number_of_values_on_the_sketch_is_the_gradient() -> None:
    one = gradient(1)
    size = sum(part.numel() for part in one.values())
    flat = torch.cat([part.flatten() for part in one.values()])
    for k in (size, size + 1, 10**9):
        own = Projection(one, k, "rademacher", 0)
        assert (own.exact, own.k) == (True, size)
        assert torch.equal(own.project([one])[0], flat)
    below = Projection(one, size - 1, "rademacher", 0)
    assert (below.exact, below.k) == (False, size - 1)
    assert below.project([one]).shape == (1, size - 1)
