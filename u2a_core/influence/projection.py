"""Random projections of gradients: k numbers each, whose inner products estimate those of the gradients without bias.

    s_j(G) = k^(−1/2) Σ_parameters a_jᵀ G b_j,    E⟨s(G), s(G')⟩ = ⟨G, G'⟩, summed over all parameters

a_j [out] and b_j [in] are drawn for every parameter of shape (out, in), independent, of mean 0 and variance 1; one of
one dimension has a_j alone. The variance is at most 9 ‖G‖² ‖G'‖² / k, and near ‖G‖² ‖G'‖² / k for gradients that are
spread over many parameters. From k = the number of scored values on, the sketch is the flattened gradient: exact.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from u2a_core.store.fingerprints import text_sha256

KINDS = ("rademacher", "gaussian")
BLOCK = 1 << 24  # numbers held at once in a product


@dataclass(frozen=True)
class _Factors:
    """The factors of one parameter, seen as a matrix: a over its rows [k, out], b over its columns [k, in] (None for
    one of one dimension).
    """

    rows: Tensor
    columns: Tensor | None

    def project(self, gradients: Tensor) -> Tensor:
        """a_jᵀ G b_j of S gradients, [S, …] -> [S, k]: one matrix product over the longer axis of all S at once."""
        gradients = gradients.reshape(len(gradients), self.rows.shape[1], -1)  # [S, out, in]
        long, short = self.rows, self.columns
        if short is None:
            return gradients.flatten(1) @ long.to(gradients.dtype).T
        if gradients.shape[1] < gradients.shape[2]:
            long, short, gradients = short, long, gradients.transpose(1, 2)
        count, length, width = gradients.shape
        wide = gradients.transpose(0, 1).reshape(length, count * width)
        step = max(1, BLOCK // (length + count * width))
        blocks = []
        for first in range(0, len(long), step):
            left, right = (part[first : first + step].to(wide.dtype) for part in (long, short))
            products = (left @ wide).view(-1, count, width)
            blocks.append((products * right[:, None]).sum(-1).T)
        return torch.cat(blocks, 1)


class Projection:
    """The random projection of gradients with respect to `parameters`; k, kind, seed and the parameters' names and
    shapes determine it, on any device.

    Held in memory: k Σ (out + in) numbers, of one byte for `rademacher`, of the parameter's dtype for `gaussian`. For k
    = 2,048 these are 27 MB for the demo's policy, 1.4 GB for a LoRA of rank 8 on a Llama of 1B parameters.
    """

    def __init__(self, parameters: Mapping[str, Tensor], k: int, kind: str, seed: int) -> None:
        size = sum(parameter.numel() for parameter in parameters.values())
        self.exact = k >= size
        self.k = min(k, size)
        self._names = tuple(parameters)
        drawn = {} if self.exact else parameters
        self._factors = {name: _draw(name, parameter, k, kind, seed) for name, parameter in drawn.items()}

    def project(self, gradients: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """The sketches of S gradients, each with a tensor for every parameter, [S, k], in float32 or better."""
        if self.exact:
            flat = [torch.cat([_precise(one[name]).flatten() for name in self._names]) for one in gradients]
            return torch.stack(flat)
        parts = [
            factors.project(_precise(torch.stack([one[name] for one in gradients])))
            for name, factors in self._factors.items()
        ]
        return torch.stack(parts).sum(0) / math.sqrt(self.k)


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _draw(name: str, parameter: Tensor, k: int, kind: str, seed: int) -> _Factors:
    """Independent factors for every parameter, drawn on the CPU so that they are the same on every device."""
    shape = tuple(parameter.shape)
    generator = torch.Generator().manual_seed(int(text_sha256(f"{seed}|{name}|{shape}")[:8], 16))
    out = shape[0] if shape else 1

    def numbers(width: int) -> Tensor:
        if kind == "gaussian":
            return torch.randn(k, width, generator=generator).to(parameter)
        signs = torch.randint(2, (k, width), generator=generator, dtype=torch.int8).mul_(2).sub_(1)
        return signs.to(parameter.device)

    return _Factors(numbers(out), numbers(parameter.numel() // out) if len(shape) > 1 else None)
