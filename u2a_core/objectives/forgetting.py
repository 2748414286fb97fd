"""Forgetting objectives φ: one value a sample, minimised by unlearning.

Each takes per-token log-probabilities [N, T] (nats) and a response mask [N, T], so that weighting, scoring and
training share one definition. An objective declares what else it needs; today that is `reference`, the
log-probabilities at θ0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from u2a_core.errors import ScoringError


def gradient_ascent(logps: Tensor, mask: Tensor) -> Tensor:
    """GA: −ℓ_i, the negated mean NLL of the response, [N, T] -> [N], nats per token."""
    return (logps * mask).sum(-1) / mask.sum(-1)


def negative_preference_optimisation(logps: Tensor, mask: Tensor, reference: Tensor, beta: float = 0.1) -> Tensor:
    """NPO: −(2/β) log σ(β (NLL_i − NLL°_i)), [N, T] -> [N] (Zhang et al., arXiv 2404.05868, eq. 3).

    NLL is the sum over response tokens, in nats; tends to gradient ascent on the sum (up to a constant) as β → 0.
    """
    drop = ((reference - logps) * mask).sum(-1)  # NLL − NLL at the reference
    return -2 / beta * logsigmoid(beta * drop)


class SampleLoss(Protocol):
    """One value a sample from (log-probabilities, mask, log-probabilities at θ0 where they are needed)."""

    def __call__(self, logps: Tensor, mask: Tensor, reference: Tensor | None) -> Tensor:
        """[N, T], [N, T], [N, T] -> [N]."""
        ...


@dataclass(frozen=True)
class ForgettingObjective:
    """A named φ with its declared needs."""

    name: str
    loss: SampleLoss
    needs: frozenset[str] = frozenset()

    def token_weights(self, logps: Tensor, mask: Tensor, reference: Tensor | None) -> Tensor:
        """∂φ_i/∂log π(y_t), [N, T]: with it ⟨v, ∇φ_i⟩ = Σ_t weight_t ⟨v, ∇log π(y_t)⟩ (chain rule); 0 off the mask."""
        if "reference" in self.needs and reference is None:
            raise ScoringError(
                f"The objective {self.name} needs log-probabilities at the reference model, and has none."
            )
        with torch.enable_grad():
            variable = logps.detach().requires_grad_(True)
            (weights,) = torch.autograd.grad(self.loss(variable, mask, reference).sum(), variable)
        return weights * mask


def forgetting_objective(name: str, beta: float = 0.1) -> ForgettingObjective:
    """The objective called `name` on the command line; `ScoringError` for an unknown one."""

    def npo(logps: Tensor, mask: Tensor, reference: Tensor | None) -> Tensor:
        assert reference is not None  # noqa: S101 - `needs` is checked before every call
        return negative_preference_optimisation(logps, mask, reference, beta)

    known: dict[str, Callable[[], ForgettingObjective]] = {
        "ga": lambda: ForgettingObjective("ga", lambda logps, mask, reference: gradient_ascent(logps, mask)),  # noqa: ARG005
        "npo": lambda: ForgettingObjective("npo", npo, frozenset({"reference"})),
    }
    if name not in known:
        raise ScoringError(f"There is no objective '{name}'; choose one of {', '.join(known)}.")
    return known[name]()
