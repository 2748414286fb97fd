"""First-order influence, H = λI: ΔPA_i ≈ −(ω_i/n) ⟨∇J, ∇φ_i⟩ / λ at θ0 (Prop. 4.2, arXiv 2504.06659, without
curvature).

> 0: unlearning the example helps alignment. In nats per pair, for ω_i = 1 and n candidates; its parts per token add up
to it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from u2a_core.influence.directional import DirectionalBackend
from u2a_core.objectives.forgetting import ForgettingObjective


@dataclass(frozen=True)
class BatchInfluence:
    """ΔPA of a batch of N examples with M tokens in their own responses.

    `samples` [N] is the whole, `alternatives` [N] the part of it that comes from the alternatives (0 for objectives
    without); `tokens` [M] is the rest by own response token (None where not asked for), with log π, `logps` [M].
    """

    logps: Tensor
    samples: Tensor
    tokens: Tensor | None
    alternatives: Tensor


def batch_influence(
    backend: DirectionalBackend,
    batch: Any,
    objective: ForgettingObjective,
    scale: float,
    reference: Tensor | None = None,
    tokens: bool = True,
) -> BatchInfluence:
    """ΔPA of every example of `batch`: −`scale` ⟨v, ∇φ_i⟩, by the chain rule over the tokens of all its roles.

    The sequences of `batch` lie role by role, R · N in all: every example's own response, then every example's first
    alternative, and so on. `scale` is ‖∇J‖ ω/(n λ) for a back end whose direction is ∇J/‖∇J‖; `reference` are the
    log-probabilities at the reference model, of all tokens in the batch's order, for objectives that need them. Sums
    are taken in float64.
    """
    roles = objective.roles
    assert batch.shape[0] % roles == 0, f"{objective.name}: {batch.shape[0]} sequences in {roles} roles"  # noqa: S101

    def weights(logps: Tensor) -> Tensor:
        packed, mask = (_by_role(part, roles) for part in batch.pack(logps))
        packed_reference = None if reference is None else _by_role(batch.pack(reference.to(logps))[0], roles)
        flat: Tensor = batch.flatten(objective.token_weights(packed, mask, packed_reference).flatten(0, 1))
        return flat

    if tokens:
        logps, tangents = backend.tokens(batch)
        parts = -scale * (weights(logps) * tangents).double()
        sequences = batch.per_sample(parts)
    else:
        logps, slopes = backend.samples(batch, weights)
        sequences = -scale * slopes.double()
    by_role = _by_role(sequences, roles)  # [R, N]
    alternatives = by_role[1:].sum(0)
    own = int(batch.pack(logps)[1][: by_role.shape[1]].sum())  # their own responses' tokens come first
    return BatchInfluence(logps[:own], by_role[0] + alternatives, parts[:own] if tokens else None, alternatives)


def _by_role(rows: Tensor, roles: int) -> Tensor:
    """[R · N, …] -> [R, N, …]."""
    return rows.view(roles, -1, *rows.shape[1:])


def curvature_solution(gradient: dict[str, Tensor], damping: float) -> dict[str, Tensor]:
    """v = H⁻¹∇J for H = λI."""
    return {name: part / damping for name, part in gradient.items()}


def is_finite(influence: BatchInfluence) -> bool:
    """Whether every number of the batch is finite."""
    return bool(torch.isfinite(influence.samples).all()) and bool(torch.isfinite(influence.logps).all())
