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
    """ΔPA of a batch: `samples` [N] and, by response token, `tokens` [M] (None where not asked for), with log π,
    [M].
    """

    logps: Tensor
    samples: Tensor
    tokens: Tensor | None


def batch_influence(
    backend: DirectionalBackend,
    batch: Any,
    objective: ForgettingObjective,
    scale: float,
    reference: Tensor | None = None,
    tokens: bool = True,
) -> BatchInfluence:
    """ΔPA of every sample of `batch`: −`scale` ⟨v, ∇φ_i⟩, by the chain rule over its tokens.

    `scale` is ‖∇J‖ ω/(n λ) for a back end whose direction is ∇J/‖∇J‖; `reference` are the log-probabilities at the
    reference model, [M], for objectives that need them. Sums are taken in float64.
    """

    def weights(logps: Tensor) -> Tensor:
        packed, mask = batch.pack(logps)
        packed_reference = None if reference is None else batch.pack(reference.to(logps))[0]
        flat: Tensor = batch.flatten(objective.token_weights(packed, mask, packed_reference))
        return flat

    if not tokens:
        logps, samples = backend.samples(batch, weights)
        return BatchInfluence(logps, -scale * samples.double(), None)
    logps, tangents = backend.tokens(batch)
    parts = -scale * (weights(logps) * tangents).double()
    return BatchInfluence(logps, batch.per_sample(parts), parts)


def curvature_solution(gradient: dict[str, Tensor], damping: float) -> dict[str, Tensor]:
    """v = H⁻¹∇J for H = λI."""
    return {name: part / damping for name, part in gradient.items()}


def is_finite(influence: BatchInfluence) -> bool:
    """Whether every number of the batch is finite."""
    return bool(torch.isfinite(influence.samples).all()) and bool(torch.isfinite(influence.logps).all())
