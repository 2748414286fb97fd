"""Choosing a back end, by support and memory, and saying why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from u2a_core.data.batch import collate
from u2a_core.data.encode import EncodedResponse
from u2a_core.errors import ScoringError
from u2a_core.influence.directional import Direction, DirectionalBackend, TokenLogps
from u2a_core.influence.forward_mode import ForwardMode
from u2a_core.influence.logprobs import response_logps
from u2a_core.influence.reverse_mode import ReverseMode
from u2a_core.models.loading import available_memory
from u2a_core.models.policy import Policy

BACKENDS: Mapping[str, type[ForwardMode] | type[ReverseMode]] = {"forward": ForwardMode, "reverse": ReverseMode}
LARGEST_BUDGET, SMALLEST_BUDGET = 16_384, 256
SHARE_OF_MEMORY = 0.4


@dataclass(frozen=True)
class BackendChoice:
    """A back end by name, padded tokens a batch, and the reason, for the scores' metadata."""

    name: str
    token_budget: int
    reason: str


def make_backend(
    name: str, model: nn.Module, direction: Direction, compute: TokenLogps = response_logps
) -> DirectionalBackend:
    """The back end called `name`; `ScoringError` for an unknown one."""
    if name not in BACKENDS:
        raise ScoringError(f"There is no back end '{name}'; choose auto, forward or reverse.")
    return BACKENDS[name](model, direction, compute)


def bytes_per_token(policy: Policy, backend: str, longest: int) -> int:
    """Estimated peak bytes that one padded token adds, weights left out.

    Logits in float32 and their dual or gradient; forward keeps one layer's activations with their tangents and its
    attention matrix; reverse keeps every layer's for the backward pass. An estimate to choose by, within about 2x.
    """
    config = policy.model.config.get_text_config()  # type: ignore[union-attr, operator]
    width, layers, vocabulary = config.hidden_size, config.num_hidden_layers, config.vocab_size
    heads = getattr(config, "num_attention_heads", 1)
    inner = getattr(config, "intermediate_size", None) or 4 * width
    size = torch.finfo(policy.dtype).bits // 8
    logits = 4 * vocabulary * 4
    if backend == "forward":
        return int(logits + size * 2 * (8 * width + 3 * inner) + size * 6 * heads * longest)
    return int(logits + size * layers * (10 * width + 4 * inner) + size * layers * 2 * heads * longest)


def choose_backend(
    wanted: str,
    tokens: bool,
    policy: Policy,
    encoded: list[EncodedResponse],
    budget: int | None = None,
    roles: int = 1,
) -> BackendChoice:
    """Decide back end and token budget. `auto`: with parts per token forward, without them reverse (cheaper), as long
    as the model supports it and one example of the longest length, with its `roles` sequences, fits; else the other
    one. `encoded` are the sequences of all roles. `ScoringError` where neither works.
    """
    longest = max(one.length for one in encoded)
    memory = available_memory(policy.device) * SHARE_OF_MEMORY
    order = {"auto": ["forward", "reverse"] if tokens else ["reverse", "forward"]}.get(wanted, [wanted])
    shortest = min(encoded, key=lambda one: (one.length, one.id))
    reasons: list[str] = []
    for name in order:
        refusal = _refusal(name, tokens, policy, shortest)
        if refusal and wanted != "auto":
            raise refusal
        room = int(memory / bytes_per_token(policy, name, longest))
        if refusal:
            reasons.append(f"{name} is not supported by this model")
        elif room < roles * longest and len(order) > 1 and name == order[0]:
            needed = bytes_per_token(policy, name, longest) * roles * longest
            reasons.append(f"{name} would need about {needed / 2**30:.1f} GiB for one example")
        else:
            why = (
                f"{name}: asked for"
                if wanted != "auto"
                else "; ".join([*reasons, f"{name}: {_strength(name, tokens)}"])
            )
            fitting = max(SMALLEST_BUDGET, min(LARGEST_BUDGET if policy.device.type == "cuda" else 4096, room))
            return BackendChoice(name, budget or fitting, why)
    raise ScoringError(
        f"Neither back end can score this model here ({'; '.join(reasons)}). Load it with --attention eager, use a "
        "shorter --max-length, or a machine with more memory."
    )


def _strength(name: str, tokens: bool) -> str:
    if name == "forward":
        return "gives every token's part in one dual pass, and keeps no graph"
    return "one backward pass over activations" + (
        ", differentiated once more for the parts per token" if tokens else ""
    )


def _refusal(name: str, tokens: bool, policy: Policy, example: EncodedResponse) -> ScoringError | None:
    """Try the back end on a short example, twice in a batch, with a zero direction; the error it meets, if any."""
    direction: dict[str, Any] = {key: torch.zeros_like(value) for key, value in policy.parameters().items()}
    backend = make_backend(name, policy.model, direction)
    batch = collate([example, example], policy.tokenizer.pad_token_id).to(policy.device)
    try:
        if tokens:
            backend.tokens(batch)
        else:
            backend.samples(batch, torch.ones_like)
    except ScoringError as error:
        return error
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return ScoringError(
            f"The {name} back end cannot differentiate this model ({str(error).splitlines()[0][:200]}): use the other "
            "one."
        )
    return None
