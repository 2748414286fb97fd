"""Whether forgetting withstands attacks: the NLL of forgotten responses, nats per token, before and under each.

```
rounded              all weight matrices rounded to 4 bits (Zhang et al., arXiv 2410.16454)
relearned            tuned on a few forgotten responses that the attacker knows (Hu et al., arXiv 2406.13356)
relearned_unrelated  as many steps on as many responses of retain data (Łucki et al., arXiv 2409.18025)
in_context           examples that the attacker knows stand before the prompt (Shumailov et al., arXiv 2407.00106)
paraphrased          the prompt is put in other words, where the bundle has such (`data.paraphrases`)
```

All are measured on the same forgotten responses, of which the attacker knows none. Share of the forgetting that is
undone, of means: (plain − nll) / (plain − original). The policy's own bits are back after every attack.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn

from u2a_core.bundle import Bundle
from u2a_core.data.batch import collate
from u2a_core.data.encode import EncodedResponse, ResponseEncoder, token_budget_batches
from u2a_core.data.pairs import Message
from u2a_core.data.paraphrases import read_paraphrases
from u2a_core.data.table import Example
from u2a_core.errors import ScoringError
from u2a_core.evaluation.loaded import LoadedPolicy
from u2a_core.evaluation.weight_attacks import relearned, rounded
from u2a_core.influence.logprobs import response_logps
from u2a_core.models.policy import Policy
from u2a_core.objectives.retention import retain_nll
from u2a_core.store.progress import Progress

CONTEXT = 2  # known examples before a prompt, one where two do not fit


@dataclass(frozen=True)
class RobustnessConfig:
    """At most `count` forgotten responses are attacked, by one who knows `known` others (at most half of what was
    forgotten). Relearning: `steps` of AdamW with `learning_rate`. Rounding: to `bits`, within groups of `group` values.
    """

    count: int = 64
    known: int = 8
    steps: int = 20
    learning_rate: float = 1e-4
    bits: int = 4
    group: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("count", "known", "steps", "group"):
            if getattr(self, name) < 1:
                raise ScoringError(f"--{name} of the attacks must be at least 1; it is {getattr(self, name)}.")
        if not 0 < self.learning_rate < math.inf:
            raise ScoringError(f"--learning-rate of the attacks must be a number above 0; it is {self.learning_rate}.")
        if not 2 <= self.bits <= 16:
            raise ScoringError(f"--bits of the attacks must lie between 2 and 16; it is {self.bits}.")


def attacks(
    loaded: LoadedPolicy, weights: Mapping[str, float], config: RobustnessConfig, budget: int, show: bool = True
) -> pd.DataFrame:
    """A row an attack and forgotten response (ω > 0): id, attack, nll under it, `plain` without it, `original` under
    the original policy, and `original_in_context` under that with the same examples before the prompt, or asked in the
    same other words (else NaN).

    A response that even one known example leaves no room for has no row of `in_context`: `attrs["left_out"]` counts
    them. `budget` padded tokens are held at once. Raises `ScoringError` where fewer than two responses were forgotten,
    retain data are fewer than the known examples, or an NLL is not finite.
    """
    known, targets, unrelated = _drawn(loaded.bundle, weights, config)
    encoder, policy = loaded.encoder, loaded.policy

    def encoded(examples: Sequence[Example]) -> list[EncodedResponse]:
        return [encoder.encode(one.id, one.prompt, one.response) for one in examples]

    def measured(name: str, examples: Sequence[EncodedResponse], model: nn.Module) -> dict[str, float]:
        return _nll(name, examples, model, policy, budget, show)

    plain = encoded(targets)
    shown = [after_examples(encoder, one, _context(one, known, config.seed)) for one in targets]
    fitting = [one for one in shown if one is not None]
    left_out = len(shown) - len(fitting)
    in_context = f"in context ({left_out} do not fit)" if left_out else "in context"
    reworded = _reworded(encoder, targets, read_paraphrases(loaded.bundle.path, loaded.bundle.pairs.forget))
    asked = {"in_context": (in_context, fitting)} | ({"paraphrased": ("paraphrased", reworded)} if reworded else {})
    with loaded.original() as original:
        reference = measured("original", plain, original)
        otherwise = {name: measured(f"original, {told}", given, original) for name, (told, given) in asked.items()}
    before = measured("no attack", plain, policy.model)
    found: dict[str, dict[str, float]] = {}
    with rounded(policy, config.bits, config.group):
        found["rounded"] = measured("rounded", plain, policy.model)
    for name, examples in (("relearned", encoded(known)), ("relearned_unrelated", encoded(unrelated))):
        with relearned(policy, examples, config.steps, config.learning_rate, budget, show):
            found[name] = measured(name.replace("_", ", "), plain, policy.model)
    found |= {name: measured(told, given, policy.model) for name, (told, given) in asked.items()}
    table = pd.DataFrame(
        {
            "id": one, "attack": name, "nll": value, "plain": before[one], "original": reference[one],
            "original_in_context": otherwise.get(name, {}).get(one, math.nan),
        }
        for name, values in found.items() for one, value in values.items()
    )  # fmt: skip
    table.attrs["left_out"] = left_out
    return table


def after_examples(encoder: ResponseEncoder, one: Example, examples: Sequence[Example]) -> EncodedResponse | None:
    """A response with `examples` before its prompt, as earlier turns of the conversation, or with only the last of
    them where more do not fit the encoder's length; None where even that does not, or there is none.

    A system turn of the prompt itself comes first; those of the examples are left out.
    """
    for start in range(len(examples)):
        turns = [turn for turn in one.prompt if turn.role == "system"]
        for other in examples[start:]:
            turns += [turn for turn in other.prompt if turn.role != "system"]
            turns.append(Message("assistant", other.response))
        turns += [turn for turn in one.prompt if turn.role != "system"]
        encoded = encoder.encode(one.id, tuple(turns), one.response)
        if not encoded.truncated:
            return encoded
    return None


def _reworded(
    encoder: ResponseEncoder, examples: Sequence[Example], prompts: Mapping[str, tuple[Message, ...]]
) -> list[EncodedResponse]:
    """The responses to prompts in other words, of examples that have such and for which there is room."""
    found = [encoder.encode(one.id, prompts[one.id], one.response) for one in examples if one.id in prompts]
    return [one for one in found if not one.truncated]


def _drawn(
    bundle: Bundle, weights: Mapping[str, float], config: RobustnessConfig
) -> tuple[list[Example], list[Example], list[Example]]:
    """Forgotten examples that are known, others that are attacked, in the bundle's order, and unrelated ones."""
    forgotten = [one for one in bundle.pairs.forget if weights.get(one.id, 0.0) > 0]
    if len(forgotten) < 2:
        raise ScoringError(
            f"Attacks need at least two forgotten responses, one that the attacker knows and one that is attacked; of "
            f"the candidates of {bundle.reference} {len(forgotten) or 'none'} has a weight above 0. Evaluate a run "
            "that unlearned more, or name candidates to attack."
        )
    known = min(config.known, len(forgotten) // 2)
    if len(bundle.pairs.retain) < known:
        raise ScoringError(
            f"Relearning on unrelated data needs {known} retain examples, and the bundle {bundle.reference} has "
            f"{len(bundle.pairs.retain)}: prepare it with a smaller --negative-share."
        )
    numbers = random.Random(f"{config.seed}:attacks")  # noqa: S311 - a sample, not a secret
    order = numbers.sample(range(len(forgotten)), min(known + config.count, len(forgotten)))
    chosen, attacked = ([forgotten[place] for place in sorted(part)] for part in (order[:known], order[known:]))
    return chosen, attacked, numbers.sample(bundle.pairs.retain, known)


def _context(one: Example, known: Sequence[Example], seed: int) -> list[Example]:
    """The known examples that stand before the prompt of `one`."""
    numbers = random.Random(f"{seed}:{one.id}")  # noqa: S311 - a sample, not a secret
    return numbers.sample(known, min(CONTEXT, len(known)))


def _nll(
    name: str, examples: Sequence[EncodedResponse], model: nn.Module, policy: Policy, budget: int, show: bool
) -> dict[str, float]:
    """Mean NLL per token of every response, by id in the order given; `ScoringError` for one that is not finite."""
    found = {one.id: math.nan for one in examples}
    with Progress(f"attacks: {name}", len(examples), show=show) as progress, torch.no_grad():
        for part in token_budget_batches([one.length for one in examples], budget):
            batch = collate([examples[place] for place in part], policy.tokenizer.pad_token_id).to(policy.device)
            values, mask = batch.pack(response_logps(model, batch).double())
            for place, value in zip(part, retain_nll(values, mask).tolist(), strict=True):
                found[examples[place].id] = value
            progress.step(len(part))
    for one, value in found.items():
        if not math.isfinite(value):
            raise ScoringError(
                f"Attacks, {name}: the NLL of {one} is not finite, so weights overflow. Evaluate with --dtype float32, "
                "attack with a smaller --learning-rate, or make the run again with a smaller one."
            )
    return found
