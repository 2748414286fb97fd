"""Retention terms R: what keeps a model that unlearns where it was, on retain data. Minimised; response tokens only.

They are terms of a batch, weighed by α beside the mean of ω_i φ_i, and no part of any φ_i.
"""

import torch
from torch import Tensor


def retain_nll(logps: Tensor, mask: Tensor) -> Tensor:
    """Mean NLL of the response, [N, T] -> [N], nats per token (the retain term of GradDiff, Maini et al.,
    arXiv 2401.06121, sec. 4).
    """
    return -(logps * mask).sum(-1) / mask.sum(-1)


def forward_kl(reference_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(π° ‖ π_θ) of the next token at every response position, [M, V], [M, V] -> [M], nats per token (Yao et al.,
    arXiv 2310.10683, L_nor).

    In float32 (float64 for float64 logits). Written as Σ_k p_k (log p_k − log q_k) + (q_k − p_k), whose second part
    sums to 0: so value and gradient (q − p) are exactly 0 for equal logits, and no term is negative beyond rounding.
    """
    precise = torch.promote_types(torch.promote_types(reference_logits.dtype, logits.dtype), torch.float32)
    before, after = (one.to(precise).log_softmax(-1) for one in (reference_logits.detach(), logits))
    p, q = before.exp(), after.exp()
    return (p * (before - after) + (q - p)).sum(-1)
