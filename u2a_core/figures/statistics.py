"""Numbers under Figure 2: groups by low-reward proportion.

Low-reward token: r < τ. Proportion of a group = its low tokens / its tokens. ΔPA of a group = mean ΔPA of its members.
Every sample is in exactly one group; nothing is dropped without being counted.
"""

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from u2a_core.errors import ScoringError

Grouping = Literal["proportion", "random", "category"]


def reward_threshold(table: pd.DataFrame, quantile: float = 0.25) -> float:
    """τ: the quantile of all token rewards pooled; raises `ScoringError` where the table has none."""
    rewards = [np.asarray(entry, dtype=np.float64) for entry in table["token_rewards"].dropna()]
    if not rewards:
        raise ScoringError(
            "These scores have no token rewards, so no low-reward threshold can be found. "
            "Add a reward model to the bundle and score it again."
        )
    return float(np.quantile(np.concatenate(rewards), quantile))


def low_token_counts(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Columns id, delta_pa, category, low, tokens, proportion: one row a sample that has token rewards."""
    scored = table[table["token_rewards"].notna()]
    rewards = [np.asarray(entry) for entry in scored["token_rewards"]]
    tokens = np.array([len(entry) for entry in rewards], dtype=np.int64)
    owners = np.repeat(np.arange(len(rewards)), tokens)
    pooled = np.concatenate(rewards) if rewards else np.empty(0)
    low = np.bincount(owners[pooled < threshold], minlength=len(rewards))
    return scored[["id", "delta_pa", "category"]].assign(low=low, tokens=tokens, proportion=low / np.maximum(tokens, 1))


def low_reward_groups(
    table: pd.DataFrame, threshold: float, group_size: int = 64, by: Grouping = "proportion", seed: int = 0
) -> pd.DataFrame:
    """Groups of Figure 2: columns group, label, size, proportion, delta_pa, standard_error, ids; by rising proportion.

    proportion: samples sorted by their own proportion and cut into groups of `group_size`. random: cut after a seeded
    shuffle. category: one group a category, of any size. A remainder smaller than half a group joins the last full
    group, a larger one stays a group. `delta_pa` is the mean of the members, in nats per pair; its standard error
    is NaN for a group of one. Samples without token rewards cannot be placed: no `ids` name them.
    """
    if group_size < 1:
        raise ScoringError(
            f"A group needs at least one sample; the group size {group_size} is too small. Choose 1 or more."
        )
    samples = low_token_counts(table, threshold).sort_values("id", kind="stable")
    if by == "category":
        names = samples["category"].astype(object).where(samples["category"].notna(), "(no category)")
        members = [(str(name), np.flatnonzero(names == name)) for name in sorted(set(names), key=str)]
    else:
        if by == "proportion":
            samples = samples.sort_values("proportion", kind="stable")
        else:
            samples = samples.iloc[np.random.default_rng(seed).permutation(len(samples))]
        members = [("", np.arange(start, end)) for start, end in _cuts(len(samples), group_size)]
    values = {name: samples[name].to_numpy() for name in ("id", "delta_pa", "low", "tokens")}
    rows = [_group_row(label, {name: column[place] for name, column in values.items()}) for label, place in members]
    columns = ["label", "size", "proportion", "delta_pa", "standard_error", "ids"]
    groups = pd.DataFrame(rows, columns=columns).sort_values("proportion", kind="stable", ignore_index=True)
    groups.insert(0, "group", np.arange(1, len(groups) + 1))
    return groups


def _cuts(n: int, group_size: int) -> list[tuple[int, int]]:
    """Where n sorted samples are cut: [start, end) of every group."""
    starts = list(range(0, n, group_size))
    if len(starts) > 1 and 2 * (n - starts[-1]) < group_size:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=False))  # no sample, no group


def _group_row(label: str, group: dict[str, NDArray[Any]]) -> tuple[str, int, float, float, float, list[str]]:
    delta = group["delta_pa"].astype(np.float64)
    error = float(delta.std(ddof=1) / np.sqrt(len(delta))) if len(delta) > 1 else float("nan")
    proportion = float(group["low"].sum() / max(int(group["tokens"].sum()), 1))
    return label, len(delta), proportion, float(delta.mean()), error, group["id"].tolist()
