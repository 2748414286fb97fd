"""From tensors to the rows of a Scores file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from u2a_core.data.encode import EncodedResponse
from u2a_core.data.pairs import transcript
from u2a_core.data.table import Example
from u2a_core.errors import ScoringError
from u2a_core.influence.candidates import Roles
from u2a_core.influence.score_config import ScoreConfig
from u2a_core.store.scores import write_scores


@dataclass(frozen=True)
class SampleParts:
    """One candidate: ΔPA (nats per pair), mean response NLL (nats per token), ΔPA by token of its own response (None
    where not asked for), and the part of ΔPA that comes from its alternatives.
    """

    delta_pa: float
    nll: float
    token_delta_pa: NDArray[np.float64] | None
    delta_pa_alternatives: float


def split_samples(stored: dict[str, Tensor], lengths: Sequence[int]) -> list[SampleParts]:
    """A stored batch, `logps` [M], `samples` [N], `alternatives` [N] and perhaps `tokens` [M], by sample; `lengths` are
    the tokens of each response.
    """
    logps = stored["logps"].double().split(list(lengths))
    tokens = stored["tokens"].double().split(list(lengths)) if "tokens" in stored else [None] * len(lengths)
    return [
        SampleParts(float(value), -float(logp.mean()), None if token is None else token.numpy(), float(other))
        for value, logp, token, other in zip(stored["samples"], logps, tokens, stored["alternatives"], strict=True)
    ]


def low_reward_threshold(
    rewards: Sequence[NDArray[np.float32]] | None, absolute: float | None, quantile: float
) -> float | None:
    """τ: as given, else the quantile of all candidates' token rewards; None where there are no rewards."""
    if rewards is None:
        return None
    pooled = np.concatenate(rewards).astype(np.float64)
    if not np.isfinite(pooled).all():
        raise ScoringError(
            "A token reward is not finite: load the reward model with --dtype float32, or name another one."
        )
    return float(np.quantile(pooled, quantile)) if absolute is None else absolute


def score_table(
    examples: Sequence[Example],
    encoded: Sequence[EncodedResponse],
    parts: Sequence[SampleParts],
    rewards: Sequence[NDArray[np.float32]] | None,
    threshold: float | None,
) -> pd.DataFrame:
    """One row a candidate, in the bundle's order, with the columns of `store.scores.SCHEMA`."""
    rows = []
    for number, (example, one, part) in enumerate(zip(examples, encoded, parts, strict=True)):
        own = None if rewards is None else rewards[number]
        rows.append(
            {
                "id": example.id,
                "delta_pa": part.delta_pa,
                "nll": part.nll,
                "n_tokens": len(one.response_ids),
                "tokens": list(one.token_texts),
                "token_delta_pa": part.token_delta_pa,
                "delta_pa_alternatives": part.delta_pa_alternatives,
                "token_rewards": own,
                "reward": None if own is None else float(own.mean(dtype=np.float64)),
                "low_reward_proportion": None if own is None or threshold is None else float((own < threshold).mean()),
                "prompt": transcript(example.prompt),
                "response": example.response,
                "category": example.category,
                "severity": example.severity,
                "chosen_score": example.chosen_score,
                "rejected_score": example.rejected_score,
                "source": example.source,
                "tags": list(example.tags),
                "truncated": one.truncated,
            }
        )
    return pd.DataFrame(rows)


def write_scored(
    path: Path,
    config: ScoreConfig,
    examples: Sequence[Example],
    roles: Sequence[Roles],
    parts: Sequence[SampleParts],
    rewards: Sequence[NDArray[np.float32]] | None,
    metadata: dict[str, Any],
) -> None:
    """Write the Scores file of `parts`, one an example; what the rows themselves say is added to `metadata`."""
    threshold = low_reward_threshold(rewards, config.low_reward, config.low_reward_quantile)
    table = score_table(examples, [own for own, *_ in roles], parts, rewards, threshold)
    counts = {
        "low_reward_threshold": threshold,
        "truncated_examples": int((table["truncated"] > 0).sum()),
        "truncated_alternatives": sum(other.truncated > 0 for _, *others in roles for other in others),
    }
    write_scores(path, table, metadata | counts)
