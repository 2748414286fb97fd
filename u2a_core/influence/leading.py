"""Directions that sketches keep exactly: an orthonormal basis of the mean gradients of J over the pairs' categories.

A gradient g is split into its coordinates ⟨g, e_j⟩ and the rest, of which alone a random projection is taken: inner
products stay unbiased, and those with ∇J, or with the mean over a category, are exact whatever the projection's size.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from u2a_core.influence.alignment_gradient import EncodedPair, alignment_gradient
from u2a_core.influence.vectors import Vector, inner, length
from u2a_core.models.policy import Policy
from u2a_core.objectives.alignment import PairValue

MOST = 16  # categories; where there are more, ∇J alone is kept
DEPENDENT = 1e-4  # a mean gradient whose part outside the others is a smaller share of it adds no direction


def leading_directions(
    policy: Policy,
    pairs: Sequence[EncodedPair],
    categories: Sequence[str | None],
    measure: PairValue,
    budget: int,
    show: bool = True,
) -> list[dict[str, Tensor]]:
    """Orthonormal directions that span the mean gradients by category, and with them ∇J, at θ0."""
    groups: dict[str | None, list[EncodedPair]] = {}
    for pair, category in zip(pairs, categories, strict=True):
        groups.setdefault(category, []).append(pair)
    chosen = list(groups.values()) if len(groups) <= MOST else [list(pairs)]
    found: list[dict[str, Tensor]] = []
    for members in chosen:
        mean = alignment_gradient(policy, members, measure, budget, show=show).gradient
        size = length(mean)
        _, rest = split(split(mean, found)[1], found)  # twice: what rounding left of the others
        remaining = length(rest)
        if remaining > DEPENDENT * size:
            found.append({name: part / remaining for name, part in rest.items()})
    return found


def split(gradient: Mapping[str, Tensor], directions: Sequence[Vector]) -> tuple[list[float], dict[str, Tensor]]:
    """The coordinates of a gradient along orthonormal `directions`, and what is left of it, in their dtype."""
    kinds = {name: torch.promote_types(part.dtype, torch.float32) for name, part in gradient.items()}
    rest = {name: part.to(kinds[name], copy=True) for name, part in gradient.items()}
    coordinates = [inner(one, gradient) for one in directions]
    for coordinate, one in zip(coordinates, directions, strict=True):
        for name, part in rest.items():
            part.add_(one[name].to(part), alpha=-coordinate)
    return coordinates, rest
