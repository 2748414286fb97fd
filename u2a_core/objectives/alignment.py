"""Preference alignment J: how much more the policy prefers chosen over rejected responses. Higher is better, in nats
per pair.

Arguments are sums of response-token log-probabilities, [P], under the policy and under the reference θ0.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import logsigmoid

from u2a_core.errors import ScoringError

PairValue = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def preference_margin(chosen: Tensor, rejected: Tensor, chosen_reference: Tensor, rejected_reference: Tensor) -> Tensor:
    """[log π(y_w) − log π°(y_w)] − [log π(y_l) − log π°(y_l)], [P]; 0 at θ0."""
    return (chosen - chosen_reference) - (rejected - rejected_reference)


def dpo_alignment(
    chosen: Tensor, rejected: Tensor, chosen_reference: Tensor, rejected_reference: Tensor, beta: float = 0.1
) -> Tensor:
    """log σ(β · margin), [P] (the negated DPO loss, Rafailov et al., arXiv 2305.18290, eq. 7); log ½ at θ0."""
    return logsigmoid(beta * preference_margin(chosen, rejected, chosen_reference, rejected_reference))


def alignment(name: str, beta: float = 0.1) -> PairValue:
    """The J called `name` on the command line: `dpo` or `margin`; `ScoringError` for an unknown one."""
    if name == "margin":
        return preference_margin
    if name == "dpo":
        return lambda chosen, rejected, chosen_reference, rejected_reference: dpo_alignment(
            chosen, rejected, chosen_reference, rejected_reference, beta
        )
    raise ScoringError(f"There is no alignment measure '{name}'; choose dpo or margin.")
