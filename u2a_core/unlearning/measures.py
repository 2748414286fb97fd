"""How a policy stands during and after unlearning: alignment on preference pairs, NLL and KL on retain data."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from u2a_core.data.encode import EncodedResponse, token_budget_batches
from u2a_core.influence.alignment_gradient import EncodedPair
from u2a_core.influence.logprobs import logps_of, response_logits
from u2a_core.objectives.alignment import dpo_alignment, preference_margin
from u2a_core.objectives.retention import forward_kl
from u2a_core.unlearning.material import Material
from u2a_core.unlearning.processes import Processes


@dataclass(frozen=True)
class AlignmentMeasures:
    """Means over pairs. `alignment`: J (DPO form), nats per pair; `margin`: log-ratio of chosen less that of rejected
    to θ0, nats; `accuracy`: share of pairs whose chosen response is the likelier one per token, 0 to 1.
    """

    alignment: float
    margin: float
    accuracy: float


@dataclass(frozen=True)
class RetainMeasures:
    """Means over examples of their mean over response tokens, nats per token: NLL, and KL(π° ‖ π_θ)."""

    nll: float
    kl: float


def measure_alignment(material: Material, pairs: Sequence[EncodedPair], processes: Processes) -> AlignmentMeasures:
    """J, margin and accuracy of the policy as it is now."""
    own = processes.share(pairs)
    sums = torch.zeros(3, dtype=torch.float64)
    lengths = [2 * max(pair.chosen.length, pair.rejected.length) for pair in own]
    with torch.no_grad():
        for part in token_budget_batches(lengths, material.config.token_budget):
            members = [own[index] for index in part]
            batch = material.batch([pair.chosen for pair in members] + [pair.rejected for pair in members])
            logps, mask = batch.pack(logps_of(response_logits(material.policy.model, batch), batch))
            chosen, rejected = logps.double().sum(1).cpu().chunk(2)
            longer, shorter = mask.sum(1).cpu().chunk(2)
            references = [[pair.chosen_reference, pair.rejected_reference] for pair in members]
            reference = torch.tensor(references, dtype=torch.float64)
            before = reference[:, 0], reference[:, 1]
            sums[0] += dpo_alignment(chosen, rejected, *before, beta=material.config.alignment_beta).sum()
            sums[1] += preference_margin(chosen, rejected, *before).sum()
            sums[2] += (chosen / longer > rejected / shorter).sum()
    means = _total(sums, material, processes) / max(len(pairs), 1)
    return AlignmentMeasures(*map(float, means))


def measure_retain(
    material: Material, retain: Sequence[EncodedResponse], processes: Processes
) -> RetainMeasures | None:
    """NLL and KL on retain data; None where there is none."""
    if not retain:
        return None
    own = processes.share(retain)
    sums = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        for part in token_budget_batches([one.length for one in own], material.config.token_budget):
            batch = material.batch([own[index] for index in part])
            logits = response_logits(material.policy.model, batch)
            with material.at_start():
                before = response_logits(material.policy.model, batch)
            for place, flat in enumerate((-logps_of(logits, batch), forward_kl(before, logits))):
                values, mask = batch.pack(flat)
                sums[place] += (values.double().sum(1) / mask.sum(1)).sum().cpu()
    means = _total(sums, material, processes) / len(retain)
    return RetainMeasures(*map(float, means))


def _total(sums: torch.Tensor, material: Material, processes: Processes) -> torch.Tensor:
    return processes.total(sums.to(material.policy.device)).cpu()
