"""Synthetic scores: heavy-tailed ΔPA of both signs that rises with the share of low-reward tokens."""

from typing import Any

import numpy as np
import pandas as pd

from u2a_core.store.scores import FORMAT_VERSION, Scores

CATEGORIES = ("privacy", "violence", "insult", "self-harm", None)


def synthetic_scores(n: int, seed: int = 0, tokens: int = 24) -> Scores:
    """`n` rows that satisfy the contract of the Scores file; the same for the same arguments."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(max(2, tokens // 2), tokens + 1, size=n)
    low_share = generator.beta(1.4, 3.0, size=n)
    delta = 0.004 * (generator.standard_t(2.2, size=n) + 4.0 * (low_share - 0.25))
    rows = [
        _row(generator, index, int(lengths[index]), float(low_share[index]), float(delta[index])) for index in range(n)
    ]
    columns = list(_row(generator, 0, 2, 0.5, 0.1))
    return Scores(pd.DataFrame(rows, columns=columns), synthetic_metadata(n))


def synthetic_metadata(n: int) -> dict[str, Any]:
    """Metadata with every required key."""
    return {
        "format_version": FORMAT_VERSION,
        "estimator": "implicit",
        "objective": "npo",
        "units": "nats per pair",
        "sign": "delta_pa > 0: unlearning the example helps",
        "bundle_hash": "5f0c2d7e91ab44c8",
        "n": n,
        "seed": 0,
        "versions": {"u2a_core": "0.1.0", "torch": "2.9.0"},
        "low_reward_threshold": 0.0,
    }


def _row(generator: np.random.Generator, index: int, length: int, low_share: float, delta: float) -> dict[str, Any]:
    rewards = np.where(generator.random(length) < low_share, -1.0, 1.0) * generator.uniform(0.1, 1.0, size=length)
    parts = generator.normal(size=length)
    parts += (delta - parts.sum()) / length
    return {
        "id": f"{(index + 1) * 2654435761 % 2**64:016x}",
        "delta_pa": delta,
        "nll": float(generator.uniform(0.5, 3.0)),
        "n_tokens": length,
        "tokens": [f"tok{position}" for position in range(length)],
        "token_delta_pa": parts.tolist(),
        "delta_pa_alternatives": 0.0,
        "token_rewards": rewards.astype(np.float32).tolist(),
        "reward": float(rewards.mean()),
        "low_reward_proportion": float((rewards < 0).mean()),
        "prompt": f"user: Question {index}: how does one open a locked door that belongs to somebody else?",
        "response": f"Answer {index}: it depends on the lock, and above all on whether its owner has agreed to it.",
        "category": CATEGORIES[index % len(CATEGORIES)],
        "severity": float(index % 4),
        "chosen_score": None,
        "rejected_score": None,
        "source": f"synthetic.jsonl:{index + 1}",
        "tags": ["synthetic"],
        "truncated": 0,
    }
