"""The forget candidates as an objective sees them: each with its own response and the alternatives that it asks for."""

from collections.abc import Sequence

from u2a_core.data.alternatives import encode_alternatives, random_answers, refusals
from u2a_core.data.encode import EncodedResponse, ResponseEncoder
from u2a_core.data.table import Example
from u2a_core.objectives.forgetting import ForgettingObjective

Roles = tuple[EncodedResponse, ...]  # one example: its own response, then its alternatives


def encode_candidates(
    objective: ForgettingObjective,
    examples: Sequence[Example],
    retain: Sequence[Example],
    encoder: ResponseEncoder,
    seed: int,
) -> list[Roles]:
    """Every example's R = `objective.roles` responses to its prompt; random answers are drawn from `retain` by `seed`.

    Raises `DataError` where a response does not fit, or there are too few random answers.
    """
    own = [encoder.encode(one.id, one.prompt, one.response) for one in examples]
    settings = objective.config.settings()
    if "refusal" in objective.needs:
        texts = refusals(examples, settings["refusal"])
    elif "random_answers" in objective.needs:
        texts = random_answers(examples, retain, objective.alternatives, seed)
    else:
        texts = [()] * len(examples)
    others = encode_alternatives(examples, texts, encoder)
    return [(first, *rest) for first, rest in zip(own, others, strict=True)]


def padded_lengths(candidates: Sequence[Roles]) -> list[int]:
    """Tokens that each candidate adds to a batch of its own length, all roles counted."""
    return [len(roles) * max(one.length for one in roles) for roles in candidates]


def role_by_role(candidates: Sequence[Roles]) -> list[EncodedResponse]:
    """The sequences of a batch in the order that `batch_influence` takes: own responses, first alternatives …"""
    return [one for role in zip(*candidates, strict=True) for one in role]
