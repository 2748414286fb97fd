"""Vectors in the space of θ, by parameter name; their products are summed in float64."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Vector = Mapping[str, Tensor]


def inner(one: Vector, other: Vector) -> float:
    """⟨a, b⟩ over all parameters of `one`."""
    return float(torch.stack([(part.double() * other[name].double()).sum() for name, part in one.items()]).sum())


def length(one: Vector) -> float:
    """‖a‖."""
    return math.sqrt(inner(one, one))
