"""One step of the inner solver's optimizer, backwards: from the adjoint after the step to that of its gradient.

SGD: θ' = θ − η κ(g) g. AdamW (no weight decay): m' = β₁ m + (1 − β₁) κ g, v' = β₂ v + (1 − β₂)(κ g)²,
θ' = θ − η m̂ / (√v̂ + ε). κ(g) = min(1, clip / (‖g‖ + 10⁻⁶)) is the clipping of `torch.nn.utils.clip_grad_norm_`.
"""

import torch
from torch import Tensor

from u2a_core.influence.vectors import inner, length
from u2a_core.unlearning.config import UnlearnConfig
from u2a_core.unlearning.trajectory import Iterate

Vector = dict[str, Tensor]
DECAYS, EPSILON = (0.9, 0.999), 1e-8  # torch.optim.AdamW's own


def optimizer_adjoint(
    config: UnlearnConfig, step: int, iterate: Iterate, adjoint: Vector, first: Vector, second: Vector
) -> tuple[Vector, Vector, Vector]:
    """dJ/dg_t, and the adjoints of AdamW's running means before step `step` (from 0), from those after it (empty: 0).

    `adjoint` is dJ/dθ_{t+1}; the direct path dJ/dθ_t ∋ dJ/dθ_{t+1} is not part of the result.
    """
    clipped, share = _clipped(iterate.gradient, config.clip)
    if config.optimizer == "sgd":
        onto = {name: -config.learning_rate * one for name, one in adjoint.items()}
        return _through_clipping(onto, iterate.gradient, share, config.clip), {}, {}
    onto, first_before, second_before = {}, {}, {}
    corrections = [1 - decay ** (step + 1) for decay in DECAYS]
    for name, one in adjoint.items():
        gradient = clipped[name]
        zero = torch.zeros_like(one)
        mean = DECAYS[0] * iterate.first.get(name, zero) + (1 - DECAYS[0]) * gradient
        square = DECAYS[1] * iterate.second.get(name, zero) + (1 - DECAYS[1]) * gradient.square()
        root = (square / corrections[1]).sqrt()
        divisor = root + EPSILON
        toward_mean = -config.learning_rate * one / (divisor * corrections[0]) + first.get(name, zero)
        slope = config.learning_rate * one * (mean / corrections[0]) / divisor.square()
        through_root = torch.where(root > 0, slope / (2 * root * corrections[1]), zero)
        toward_square = through_root + second.get(name, zero)
        onto[name] = (1 - DECAYS[0]) * toward_mean + 2 * (1 - DECAYS[1]) * gradient * toward_square
        first_before[name] = DECAYS[0] * toward_mean
        second_before[name] = DECAYS[1] * toward_square
    return _through_clipping(onto, iterate.gradient, share, config.clip), first_before, second_before


def _clipped(gradient: Vector, clip: float) -> tuple[Vector, float]:
    """κ g, and κ."""
    norm = length(gradient)
    share = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
    return ({name: share * one for name, one in gradient.items()} if share < 1 else gradient), share


def _through_clipping(onto: Vector, gradient: Vector, share: float, clip: float) -> Vector:
    """κ c − κ²/(clip ‖g‖) ⟨g, c⟩ g, the derivative of κ(g) g applied to c; c itself where nothing was clipped."""
    if share >= 1:
        return onto
    along = share**2 / (clip * length(gradient)) * inner(gradient, onto)
    return {name: share * one - along * gradient[name] for name, one in onto.items()}
