"""FLAT: forgetting by an f-divergence between a template answer and the response to forget (Wang et al., "LLM
Unlearning via Loss Adjustment with Only Forget Data", arXiv 2410.11143).

    φ_i = −[g*(P(y_e)) − f*(g*(P(y_f)))],   P(y) = mean over the response tokens of π(y_t | x, y_<t)

y_e is the template answer (a refusal), y_f the response to forget. g* and f* (the paper's Table 2) stand here as in the
authors' code (UCSC-REAL/FLAT, `get_contrastive_loss`): they are the output activations and conjugates of f-GAN (Nowozin
et al., arXiv 1606.00709, Table 2).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus


@dataclass(frozen=True)
class Divergence:
    """An f-divergence by three functions: `generator` f(u), u > 0, convex, f(1) = 0; `activation` g*, from the real
    numbers into the domain of f*; `conjugate` f*(t) = sup over u of ut − f(u).
    """

    generator: Callable[[Tensor], Tensor]
    activation: Callable[[Tensor], Tensor]
    conjugate: Callable[[Tensor], Tensor]


DIVERGENCES: Mapping[str, Divergence] = {
    "kl": Divergence(
        generator=lambda u: u * u.log(),
        activation=lambda v: v,
        conjugate=lambda t: (t - 1).exp(),
    ),
    "tv": Divergence(
        generator=lambda u: (u - 1).abs() / 2,
        activation=lambda v: v.tanh() / 2,
        conjugate=lambda t: t,  # for |t| ≤ ½, where g* always lies
    ),
    "js": Divergence(
        generator=lambda u: u * u.log() - (u + 1) * ((u + 1) / 2).log(),
        activation=lambda v: math.log(2) - softplus(-v),
        conjugate=lambda t: -(2 - t.exp()).log(),  # for t < log 2
    ),
    "pearson": Divergence(
        generator=lambda u: (u - 1).square(),
        activation=lambda v: v,
        conjugate=lambda t: t.square() / 4 + t,  # for t ≥ −2
    ),
}


def mean_probability(logps: Tensor, mask: Tensor) -> Tensor:
    """P: the mean probability of the response tokens, [..., T] -> [...], between 0 and 1."""
    probabilities = logps.where(mask.bool(), -torch.inf).exp()  # filler may be too large for exp
    return probabilities.sum(-1) / mask.sum(-1)


def flat(logps: Tensor, mask: Tensor, divergence: Divergence) -> Tensor:
    """FLAT: f*(g*(P(y_f))) − g*(P(y_e)), [2, N, T] -> [N], no unit (arXiv 2410.11143, the loss L_FLAT).

    Role 0 is y_f, the response to forget, role 1 is y_e, the template answer.
    """
    forget, template = mean_probability(logps, mask)
    return divergence.conjugate(divergence.activation(forget)) - divergence.activation(template)
