"""Curvature products against matrices built from the Jacobians of every token, and against double autograd, in float64.

The second way takes every response alone, without padding, with the head at every position.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from u2a_core.data.batch import ResponseBatch, collate
from u2a_core.data.encode import EncodedResponse
from u2a_core.errors import ScoringError
from u2a_core.influence.curvature import (
    Forgetting,
    GaussNewton,
    own_curvature,
    retain_batches,
    retain_curvature,
    retain_diagonal,
)
from u2a_core.influence.logprobs import response_logits
from u2a_core.models.policy import Policy
from u2a_core.objectives.config import OBJECTIVES
from u2a_core.objectives.forgetting import forgetting_objective
from u2a_core.objectives.retention import forward_kl

pytestmark = pytest.mark.usefixtures("one_thread")
Vectors = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A policy, five retain examples, and the Jacobian of the logits at their response tokens, [T, V, P] of each."""

    policy: Policy
    retain: list[EncodedResponse]
    logits: list[Tensor]
    jacobians: list[Tensor]

    def curvature(self) -> GaussNewton:
        return retain_curvature(self.policy, retain_batches(self.policy, self.retain, 1000))

    def explicit(self, vector: Tensor) -> Tensor:
        """(1/n) Σ_i (1/T_i) Σ_t J_tᵀ (diag p − p pᵀ) J_t v."""
        total = torch.zeros_like(vector)
        for logits, jacobians in zip(self.logits, self.jacobians, strict=True):
            for p, J in zip(logits.softmax(-1), jacobians, strict=True):
                total += J.T @ ((p.diag() - torch.outer(p, p)) @ (J @ vector)) / len(logits)
        return total / len(self.logits)

    def diagonal(self) -> Tensor:
        total = torch.zeros(self.policy.size, dtype=torch.float64)
        for logits, jacobians in zip(self.logits, self.jacobians, strict=True):
            p = logits.softmax(-1)
            mean = torch.einsum("tv,tvp->tp", p, jacobians)
            total += (torch.einsum("tv,tvp->tp", p, jacobians.square()) - mean.square()).mean(0)
        return total / len(self.logits)


def naive_logits(policy: Policy, example: EncodedResponse) -> Tensor:
    """[T, V] of one example alone."""
    ids = torch.tensor([example.prompt_ids + example.response_ids])
    first = len(example.prompt_ids) - 1
    return policy.model(input_ids=ids, use_cache=False).logits[0, first:-1]


def jacobian(policy: Policy, outputs: Tensor) -> Tensor:
    """[..., P] by one backward pass an output."""
    seeds = torch.eye(outputs.numel(), dtype=outputs.dtype).view(-1, *outputs.shape)
    rows = torch.autograd.grad(
        outputs, list(policy.parameters().values()), seeds, is_grads_batched=True, allow_unused=True
    )
    return torch.cat([row.flatten(1) for row in rows], 1).view(*outputs.shape, -1)


def trained(policy: Policy, wanted: bool) -> None:
    for parameter in policy.parameters().values():
        parameter.requires_grad_(wanted)


@pytest.fixture(scope="module", params=["lora", "full"])
def case(request: pytest.FixtureRequest, build_policy: Any, responses: list[EncodedResponse]) -> Case:
    policy = build_policy("llama", request.param)
    trained(policy, True)
    with sdpa_kernel(SDPBackend.MATH):
        logits = [naive_logits(policy, one) for one in responses]
        jacobians = [jacobian(policy, one) for one in logits]
    trained(policy, False)
    return Case(policy, responses, [one.detach() for one in logits], jacobians)


def random_vector(policy: Policy, seed: int) -> Vectors:
    numbers = torch.Generator().manual_seed(seed)
    return {
        name: 3 * torch.randn(one.shape, generator=numbers, dtype=torch.float64)
        for name, one in policy.parameters().items()
    }


def flat(parts: Vectors) -> Tensor:
    return torch.cat([part.flatten() for part in parts.values()])


def assert_near(found: Tensor, expected: Tensor, relative: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=relative * float(expected.abs().max()))


def test_retain_product_equals_the_explicit_matrix(case: Case) -> None:
    for seed in range(2):
        vector = random_vector(case.policy, seed)
        found = case.curvature()(vector)
        assert list(found) == list(case.policy.theta)
        assert_near(flat(found), case.explicit(flat(vector)))


def test_retain_product_equals_the_hessian_of_the_kl(case: Case) -> None:
    """At θ0 the gradient of KL(π° ‖ π_θ) is 0 and its Hessian is the generalised Gauss-Newton matrix."""
    policy, vector = case.policy, random_vector(case.policy, 3)
    trained(policy, True)
    with sdpa_kernel(SDPBackend.MATH):
        after = [naive_logits(policy, one) for one in case.retain]
        value = torch.stack([forward_kl(one.detach(), one).mean() for one in after]).mean()
        slope = torch.autograd.grad(value, list(policy.parameters().values()), create_graph=True)
        dot = sum((one * way).sum() for one, way in zip(slope, vector.values(), strict=True))
        second = torch.autograd.grad(dot, list(policy.parameters().values()))
    trained(policy, False)
    assert value.item() == 0
    assert all(bool((one.detach().abs() < 1e-14).all()) for one in slope)
    assert_near(flat(case.curvature()(vector)), torch.cat([one.flatten() for one in second]))


def test_retain_product_is_symmetric_and_never_negative(case: Case) -> None:
    vectors = [random_vector(case.policy, seed) for seed in range(4)]
    images = torch.stack([flat(case.curvature()(one)) for one in vectors])
    products = torch.stack([flat(one) for one in vectors]) @ images.T
    assert_near(products, products.T, 1e-12)
    assert float(torch.linalg.eigvalsh(products)[0]) > 0


def test_retain_product_is_linear(case: Case) -> None:
    one, other = random_vector(case.policy, 0), random_vector(case.policy, 1)
    mixed = {name: 2e-8 * one[name] - 5e3 * other[name] for name in one}
    product_of = case.curvature()
    assert_near(flat(product_of(mixed)), 2e-8 * flat(product_of(one)) - 5e3 * flat(product_of(other)), 1e-12)
    assert not flat(product_of({name: 0 * part for name, part in one.items()})).any()


def test_nothing_depends_on_batches_and_padding(case: Case) -> None:
    vector = random_vector(case.policy, 0)
    expected = flat(case.curvature()(vector))
    together = collate(case.retain[::-1], 0, "left")
    for batches in (
        retain_batches(case.policy, case.retain, 1),
        retain_batches(case.policy, case.retain[::-1], 1000),
        [together],
    ):
        assert_near(flat(retain_curvature(case.policy, batches)(vector)), expected, 1e-12)
    assert [batch.shape[0] for batch in retain_batches(case.policy, case.retain, 1)] == [1] * 5


def test_the_diagonal_is_estimated_without_bias(case: Case) -> None:
    """80 probes leave an error of about √(2/80) = 16% in an entry, and less in the sum."""
    batches, exact = retain_batches(case.policy, case.retain, 30), case.diagonal()
    assert len(batches) > 1
    estimate = flat(retain_diagonal(case.policy, batches, 80, 0))
    assert float(estimate.min()) >= 0
    assert float(estimate.sum()) == pytest.approx(float(exact.sum()), rel=0.08)
    assert float((estimate - exact).norm() / exact.norm()) < 0.2
    again, other = (flat(retain_diagonal(case.policy, batches, 2, seed)) for seed in (1, 2))
    assert torch.equal(again, flat(retain_diagonal(case.policy, batches, 2, 1)))
    assert not torch.allclose(again, other)


LENGTHS = [(3, 4, 2, 6), (1, 2, 5, 1), (6, 1, 3, 2), (2, 7, 1, 3)]  # prompt, own response, two alternatives


@dataclass(frozen=True)
class Candidates:
    """Four examples of three roles: their sequences, and log π with its Jacobian at every token, [T] and [T, P]."""

    sequences: list[tuple[EncodedResponse, ...]]
    logps: list[list[Tensor]]
    jacobians: list[list[Tensor]]

    def forgetting(self, name: str) -> Forgetting:
        """As the objective called `name` sees them, with a made-up reference that differs by role and example."""
        objective = forgetting_objective(name, **({"random_answers": 2} if name == "yao" else {}))
        references = [
            [rows[role] + 0.2 * number - 0.3 * role for number, rows in enumerate(self.logps)]
            for role in range(objective.roles)
        ]
        candidates = [roles[: objective.roles] for roles in self.sequences]
        return Forgetting(objective, candidates, references if "reference" in objective.needs else None)

    def linearised(self, forgetting: Forgetting, indices: Sequence[int], vector: Tensor) -> Tensor:
        """Hessian of mean φ(log π° + J δ) at δ = 0, times `vector`: all that is kept of the model is J."""
        roles = range(forgetting.objective.roles)

        def value(delta: Tensor) -> Tensor:
            total = delta.new_zeros(())
            for index in indices:
                moved = stacked([self.logps[index][role] + self.jacobians[index][role] @ delta for role in roles])
                mask = stacked([torch.ones(len(self.logps[index][role])) for role in roles]).bool()
                rows = forgetting.references
                reference = None if rows is None else stacked([role[index] for role in rows])
                total = total + forgetting.objective.loss(moved, mask, reference).sum()
            return total / len(indices)

        return torch.autograd.functional.hvp(value, torch.zeros_like(vector), vector)[1]


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """One example's roles, [R, 1, T]."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)[:, None]


@pytest.fixture(scope="module")
def candidates(case: Case, encode_lengths: Any, naive_logps: Any) -> Candidates:
    sequences = []
    for prompt, *counts in LENGTHS:
        roles = [encode_lengths(prompt, count) for count in counts]
        sequences.append(tuple(replace(one, prompt_ids=roles[0].prompt_ids) for one in roles))
    trained(case.policy, True)
    with sdpa_kernel(SDPBackend.MATH):
        logps = [[naive_logps(case.policy.model, one) for one in roles] for roles in sequences]
        jacobians = [[jacobian(case.policy, one) for one in rows] for rows in logps]
    trained(case.policy, False)
    return Candidates(sequences, [[one.detach() for one in rows] for rows in logps], jacobians)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in ("ga", "graddiff", "yao")])
def test_own_part_equals_the_hessian_of_the_linearised_objective(case: Case, candidates: Candidates, name: str) -> None:
    """Of all four candidates, one a batch; and of two in another order, in one batch."""
    forgetting, vector = candidates.forgetting(name), random_vector(case.policy, 0)
    for indices, budget, batches in (((0, 1, 2, 3), 1, 4), ((3, 1), 1000, 1)):
        expected = candidates.linearised(forgetting, indices, flat(vector))
        assert float(expected.abs().max()) > 0
        found = own_curvature(case.policy, forgetting, indices, budget)
        assert len(found.parts) == batches
        assert_near(flat(found(vector)), expected)


@pytest.mark.parametrize("name", ["ga", "yao"])
def test_own_part_of_a_linear_objective_is_zero(case: Case, candidates: Candidates, name: str) -> None:
    image = own_curvature(case.policy, candidates.forgetting(name), range(4), 40)(random_vector(case.policy, 0))
    assert not flat(image).any()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_sums_are_kept_in_float32(case: Case, dtype: torch.dtype, tolerance: float) -> None:
    """A policy of lower precision, with the same weights, has nearly the same curvature."""
    vector = random_vector(case.policy, 0)
    policy = replace(case.policy, model=deepcopy(case.policy.model).to(dtype), dtype=dtype)
    batches = retain_batches(policy, case.retain, 40)
    found = retain_curvature(policy, batches)({name: part.float() for name, part in vector.items()})
    expected = flat(case.curvature()(vector))
    assert {part.dtype for part in found.values()} == {torch.float32}
    assert {part.dtype for part in retain_diagonal(policy, batches, 1, 0).values()} == {torch.float32}
    assert float((flat(found) - expected).norm() / expected.norm()) < tolerance


class NoForwardRule(torch.autograd.Function):
    """The identity, without a forward-mode rule."""

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def setup_context(*_: Any) -> None:
        pass

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return gradient


def test_a_model_without_forward_rules_is_refused(case: Case) -> None:
    def compute(model: Any, batch: ResponseBatch) -> Tensor:
        return NoForwardRule.apply(response_logits(model, batch))

    curvature = replace(case.curvature(), compute=compute)
    with pytest.raises(ScoringError, match="--attention eager, or use --estimator first_order"):
        curvature(random_vector(case.policy, 0))


def test_the_model_is_left_as_it_was(case: Case, candidates: Candidates) -> None:
    """Flags, gradients, hooks and values; after an error too."""
    policy, vector = case.policy, random_vector(case.policy, 0)
    parameters = dict(policy.model.named_parameters())
    first = policy.theta[0]
    parameters[first].requires_grad_(True)
    before = {name: (one.requires_grad, one.detach().clone()) for name, one in parameters.items()}

    def broken(*_: Tensor) -> Tensor:
        return torch.zeros(1)

    batches = retain_batches(policy, case.retain, 40)
    case.curvature()(vector)
    retain_diagonal(policy, batches, 1, 0)
    own_curvature(policy, candidates.forgetting("npo"), range(4), 40)(vector)
    with pytest.raises(RuntimeError):
        replace(case.curvature(), parts=[(batches[0], broken)])(vector)
    for name, one in parameters.items():
        assert one.grad is None
        assert one.requires_grad == before[name][0]
        assert torch.equal(one, before[name][1])
    for module in policy.model.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
    parameters[first].requires_grad_(False)
