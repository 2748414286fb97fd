"""Which direction v a candidate's gradient is held against, so that −⟨v, ∇φ_i⟩/n is dJ/dω_i of the steps really taken.

A step of fixed size along P g (AdamW, whose P = 1/√v̂ takes the gradient's scale away; SGD with a clipped gradient, P
= I) changes J by −η ⟨∇J, P g⟩ / ‖g‖_P with ‖g‖²_P = ⟨g, P g⟩. So its derivative with respect to a part of g is that
along

    v = P (∇J − c g),   c = ⟨∇J, P g⟩ / ⟨g, P g⟩.

Without c the weights would pile up on a few examples with long gradients, and a step of fixed size would follow their
noise. A plain SGD step has v = ∇J, which is Proposition 4.2 of arXiv 2504.06659 with H = λI.
"""

import torch
from torch import Tensor

from u2a_core.influence.vectors import Vector, inner


def step_direction(ascent: Vector, step: Vector | None, scaling: Vector | None = None) -> dict[str, Tensor]:
    """v from ∇J (`ascent`), g (`step`; None for steps whose size follows the gradient) and the diagonal P (None: I)."""
    scaled = {name: part * scaling[name] for name, part in ascent.items()} if scaling else dict(ascent)
    if step is None:
        return scaled
    moved = {name: part * scaling[name] for name, part in step.items()} if scaling else dict(step)
    length = inner(step, moved)
    share = inner(ascent, moved) / length if length > 0 else 0.0
    return {name: scaled[name] - share * moved[name] for name in scaled}


def adam_scaling(second_moments: Vector, steps: int, decay: float = 0.999, epsilon: float = 1e-8) -> dict[str, Tensor]:
    """P = 1/(√v̂ + ε) of AdamW after `steps` steps, brought to mean 1."""
    correction = 1 - decay**steps
    raw = {name: 1 / ((one / correction).sqrt() + epsilon) for name, one in second_moments.items()}
    mean = torch.stack([one.double().sum() for one in raw.values()]).sum() / sum(one.numel() for one in raw.values())
    return {name: one / mean.to(one) for name, one in raw.items()}
