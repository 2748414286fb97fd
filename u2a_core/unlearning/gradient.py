"""The gradient of the inner objective over one step's examples, in length-sorted parts of a token budget.

loss = Σ_B ω_i φ_i / Σ_B ω_i + α Σ_B' R_j / |B'| + (λ/2) ‖θ − θ0‖², with ω of mean 1 over the unlearned examples; the
value and gradient do not depend on how the step is cut into parts, nor on how many processes share it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from u2a_core.data.batch import ResponseBatch
from u2a_core.data.encode import EncodedResponse, token_budget_batches
from u2a_core.influence.candidates import padded_lengths, role_by_role
from u2a_core.influence.logprobs import logps_of, response_logits
from u2a_core.objectives.retention import forward_kl, retain_nll
from u2a_core.unlearning.material import Material
from u2a_core.unlearning.processes import Processes


@dataclass(frozen=True)
class StepLoss:
    """Weighted mean of φ over the step's forget examples, and mean R over its retain examples, nats."""

    forget: float
    retain: float


class InnerGradient:
    """Adds ∇(inner objective) to `.grad` of θ."""

    def __init__(self, material: Material, processes: Processes) -> None:
        self.material, self.processes = material, processes

    def accumulate(self, weights: Mapping[str, float], retain: Sequence[EncodedResponse]) -> StepLoss:
        """Gradient of one step: `weights` are ω_i of its forget examples; zeroes `.grad` first.

        The same on every process when it returns.
        """
        parameters = list(self.material.policy.parameters().values())
        for one in parameters:
            one.grad = torch.zeros_like(one)
        sums = torch.zeros(2, dtype=torch.float64)
        sums[0] = self._forget(weights)
        sums[1] = self._retain(retain)
        sums = self.processes.total(sums.to(self.material.policy.device, torch.float32)).cpu()
        for one in parameters:
            assert one.grad is not None  # noqa: S101 - set above
            one.grad = self.processes.total(one.grad)
        self._proximity()
        return StepLoss(float(sums[0]), float(sums[1]))

    def _forget(self, weights: Mapping[str, float]) -> float:
        """This process's share of Σ ω_i φ_i / Σ ω_i, backward done."""
        total, total_weight = 0.0, math.fsum(weights.values())
        for ids, values in self.forget_parts(self.processes.share(list(weights))):
            omega = values.new_tensor([weights[one] for one in ids])
            loss = (omega * values).sum() / total_weight
            loss.backward()
            total += float(loss.detach())
        return total

    def forget_parts(self, ids: Sequence[str]) -> Iterator[tuple[list[str], Tensor]]:
        """Some of `ids`, and their φ_i, [N], differentiable in θ; part by part until all have come."""
        candidates = [self.material.candidates[one] for one in ids]
        for part in token_budget_batches(padded_lengths(candidates), self.material.config.token_budget):
            batch = self.material.batch(role_by_role([candidates[index] for index in part]))
            with self._autocast():
                logps = logps_of(response_logits(self.material.policy.model, batch), batch)
            packed, mask = self._by_role(batch, logps, len(part))
            members = [ids[index] for index in part]
            yield members, self.material.objective.loss(packed, mask, self._reference(batch, members))

    def _by_role(self, batch: ResponseBatch, flat: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """Response tokens [M] -> values and mask [R, N, T]."""
        values, mask = batch.pack(flat)
        roles = self.material.objective.roles
        return values.view(roles, samples, -1), mask.view(roles, samples, -1)

    def _reference(self, batch: ResponseBatch, ids: Sequence[str]) -> Tensor | None:
        flat = self.material.reference_tokens(ids)
        return None if flat is None else self._by_role(batch, flat, len(ids))[0]

    def _retain(self, retain: Sequence[EncodedResponse]) -> float:
        """This process's share of α Σ R_j / |B'|, backward done; 0 without a retention term."""
        total = 0.0
        for values in self.retain_parts(self.processes.share(retain)):
            value = values.sum() / len(retain)
            (self.material.objective.alpha * value).backward()
            total += float(value.detach())
        return total

    def retain_parts(self, examples: Sequence[EncodedResponse]) -> Iterator[Tensor]:
        """R_j of some of `examples`, [N], differentiable in θ; part by part; nothing without a retention term."""
        kind = self.material.objective.retention
        if kind == "none":
            return
        for part in token_budget_batches([one.length for one in examples], self.material.config.token_budget):
            batch = self.material.batch([examples[index] for index in part])
            yield retention_values(self.material, batch, kind, self._autocast())

    def _proximity(self) -> None:
        """Add λ (θ − θ0)."""
        strength = self.material.config.proximity
        if strength:
            for name, one in self.material.policy.parameters().items():
                assert one.grad is not None  # noqa: S101 - set by `accumulate`
                one.grad.add_(one.detach() - self.material.start[name], alpha=strength)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.material.policy.device.type, torch.bfloat16, enabled=self.material.autocast)


def retention_values(material: Material, batch: ResponseBatch, kind: str, autocast: torch.autocast) -> Tensor:
    """R_j of every sequence, [N], nats per token: `nll`, or `kl` to the policy at θ0, mean over its response tokens."""
    model = material.policy.model
    with autocast:
        logits = response_logits(model, batch)
    if kind == "nll":
        return retain_nll(*batch.pack(logps_of(logits, batch)))
    with torch.no_grad(), material.at_start(), autocast:
        before = response_logits(model, batch)
    values, mask = batch.pack(forward_kl(before, logits))
    return values.sum(1) / mask.sum(1)
