"""Curvature of the inner objective at θ0, as products with vectors: neither a matrix nor a per-sample gradient is
formed.

Each part is a mean over examples of Jᵀ B J, J the Jacobian of the policy's outputs at response positions:

    retain KL:   J of the logits, B = (diag p − p pᵀ) / T_i: the generalised Gauss-Newton matrix, at θ0 the Hessian; ≥ 0
    objective:   J of log π(y_t) over all roles, B = ∂²φ_i/∂(log π)²: its Gauss-Newton part at ω = 1; of any sign

Sums over examples are taken in float32 (float64 for a float64 policy), and do not depend on the batches.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import grad, vjp

from u2a_core.data.batch import ResponseBatch, collate
from u2a_core.data.encode import EncodedResponse, token_budget_batches
from u2a_core.errors import ScoringError
from u2a_core.influence.candidates import Roles, padded_lengths, role_by_role
from u2a_core.influence.directional import TokenLogps, unit_direction
from u2a_core.influence.forward_mode import ForwardMode
from u2a_core.influence.logprobs import response_logits, response_logps
from u2a_core.influence.vectors import Vector
from u2a_core.models.policy import Policy
from u2a_core.objectives.forgetting import ForgettingObjective

Bend = Callable[[Tensor, Tensor], Tensor]  # (outputs, J v) ↦ B J v, of one batch


@dataclass(frozen=True)
class Forgetting:
    """The candidates as `objective` sees them; `references` holds log π°(y_t) by role and candidate, where it needs
    them.
    """

    objective: ForgettingObjective
    candidates: Sequence[Roles]
    references: Sequence[Sequence[Tensor]] | None


@dataclass(frozen=True)
class GaussNewton:
    """v ↦ (1/n) Σ_i J_iᵀ B_i J_i v. `compute` gives the outputs that J is of; each of `parts` is a batch and its B."""

    policy: Policy
    compute: TokenLogps
    parts: Sequence[tuple[ResponseBatch, Bend]]
    count: int

    def __call__(self, vector: Vector) -> dict[str, Tensor]:
        """The product with `vector`. Raises `ScoringError` where an operation of the model has no forward rule.

        J v by a dual pass, Jᵀ by one backward pass. A double backward gives both from one graph, but took 2 to 3
        times the memory at 0.6 to 1.3 times the time (Llamas of four layers, 960 and 2400 tokens, CPU), and more with
        every layer: its attention matrices all stay.
        """
        unit, norm = unit_direction(vector)
        forward = ForwardMode(self.policy.model, unit, self.compute)
        total = _zeros(self.policy)
        for batch, bend in self.parts:
            try:
                bent = bend(*forward.tokens(batch))
            except ScoringError as error:
                raise ScoringError(
                    "The implicit estimator needs the dual pass, and an operation of this model, most often its "
                    "attention, has no forward-mode rule. Load it with --attention eager, or use --estimator "
                    "first_order."
                ) from error
            with differentiable(self.policy) as parameters:
                outputs = self.compute(self.policy.model, batch)
                found = torch.autograd.grad(outputs, parameters, bent, allow_unused=True)
            for sums, part in zip(total.values(), found, strict=True):
                if part is not None:
                    sums += norm / self.count * part.to(sums)
        return total


def retain_batches(policy: Policy, retain: Sequence[EncodedResponse], budget: int) -> list[ResponseBatch]:
    """`retain` in batches of at most `budget` tokens with padding, on the policy's device."""
    return [
        _collated(policy, [retain[index] for index in indices])
        for indices in token_budget_batches([one.length for one in retain], budget)
    ]


def retain_curvature(policy: Policy, batches: Sequence[ResponseBatch]) -> GaussNewton:
    """The generalised Gauss-Newton matrix of the mean over retain examples of KL(π° ‖ π_θ), mean over their tokens."""
    parts = [(batch, partial(_bend_logits, batch)) for batch in batches]
    return GaussNewton(policy, response_logits, parts, sum(batch.shape[0] for batch in batches))


def retain_diagonal(policy: Policy, batches: Sequence[ResponseBatch], probes: int, seed: int) -> dict[str, Tensor]:
    """An estimate of the diagonal of `retain_curvature`, ≥ 0 and without bias.

    diag p − p pᵀ = L Lᵀ with L = (I − p 1ᵀ) diag √p, so the mean over Rademacher signs ε of (Σ_t J_tᵀ L_t ε_t / √T)²,
    entry by entry, is the diagonal: different tokens have independent signs. Squares are taken of each batch.
    """
    numbers = torch.Generator(policy.device).manual_seed(seed)
    total = _zeros(policy)
    count = sum(batch.shape[0] for batch in batches)
    for batch in batches:
        with differentiable(policy) as parameters:
            logits = response_logits(policy.model, batch)
            p = logits.detach().softmax(-1)
            for probe in range(probes):
                signs = torch.randint(0, 2, p.shape, generator=numbers, device=p.device) * 2 - 1
                bent = p.sqrt() * signs
                bent = (bent - p * bent.sum(-1, keepdim=True)) / _lengths(batch).to(p).sqrt()
                found = torch.autograd.grad(
                    logits, parameters, bent, retain_graph=probe < probes - 1, allow_unused=True
                )
                for sums, part in zip(total.values(), found, strict=True):
                    if part is not None:
                        sums += part.to(sums).square() / (probes * count)
    return total


def own_curvature(policy: Policy, forgetting: Forgetting, indices: Sequence[int], budget: int) -> GaussNewton:
    """The Gauss-Newton part of (1/n) Σ_i φ_i over the candidates at `indices`. 0 where φ is linear in log π (GA)."""
    candidates = [forgetting.candidates[index] for index in indices]
    parts: list[tuple[ResponseBatch, Bend]] = []
    for places in token_budget_batches(padded_lengths(candidates), budget):
        batch = _collated(policy, role_by_role([candidates[place] for place in places]))
        reference = None
        if forgetting.references is not None:
            rows = [role[indices[place]] for role in forgetting.references for place in places]
            reference = torch.cat(rows).to(policy.device)
        parts.append((batch, partial(_bend_logps, batch, forgetting.objective, reference)))
    return GaussNewton(policy, response_logps, parts, len(candidates))


@contextmanager
def differentiable(policy: Policy) -> Iterator[list[nn.Parameter]]:
    """Within the block θ is part of the graph; afterwards everything is as it was."""
    parameters = list(policy.parameters().values())
    before = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield parameters
    finally:
        for parameter, wanted in zip(parameters, before, strict=True):
            parameter.requires_grad_(wanted)


def _bend_logits(batch: ResponseBatch, logits: Tensor, tangents: Tensor) -> Tensor:
    """(diag p − p pᵀ) ż / T of every response token, [M, V], [M, V] -> [M, V]."""
    p = logits.softmax(-1)
    bent = p * tangents
    return (bent - p * bent.sum(-1, keepdim=True)) / _lengths(batch).to(p)


def _bend_logps(
    batch: ResponseBatch, objective: ForgettingObjective, reference: Tensor | None, logps: Tensor, tangents: Tensor
) -> Tensor:
    """(∂²φ/∂(log π)²) times the tangents, over the tokens of all roles, [M], [M] -> [M]."""

    def by_role(flat: Tensor) -> tuple[Tensor, Tensor]:
        values, mask = (part.view(objective.roles, -1, part.shape[1]) for part in batch.pack(flat))
        return values, mask

    packed, mask = by_role(logps)
    packed_reference = None if reference is None else by_role(reference.to(logps))[0]

    def loss(values: Tensor) -> Tensor:
        return objective.loss(values, mask, packed_reference).sum()

    packed_tangents = by_role(tangents)[0]
    bent: Tensor = vjp(grad(loss), packed)[1](packed_tangents)[0]
    return batch.flatten(bent.flatten(0, 1))


def _lengths(batch: ResponseBatch) -> Tensor:
    """T_i at every response token of the example, [M, 1]."""
    return batch.rows.bincount()[batch.rows][:, None]


def _collated(policy: Policy, examples: Sequence[EncodedResponse]) -> ResponseBatch:
    return collate(examples, policy.tokenizer.pad_token_id).to(policy.device)


def _zeros(policy: Policy) -> dict[str, Tensor]:
    total = torch.float64 if policy.dtype == torch.float64 else torch.float32
    return {name: torch.zeros_like(one, dtype=total) for name, one in policy.parameters().items()}
