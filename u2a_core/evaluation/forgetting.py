"""What a run forgot, sample by sample: the rise of the NLL (nats per token) of what was unlearned and of what was not.

"Not forgotten": unlearned, and yet risen less than a given share of the other candidates. "Overly forgotten": not
unlearned, and yet risen more than a given share of what was. No torch.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from u2a_core.store.evaluations import Evaluation

UNLEARNED, OTHER, RETAIN = "unlearned", "other candidate", "retain"


def nll_changes(left: Evaluation, right: Evaluation, weights: Mapping[str, float]) -> pd.DataFrame:
    """A row an example: id, kind (`UNLEARNED`, `OTHER`, `RETAIN`), weight ω (0 where it was not unlearned), tokens,
    before, after, rise; candidates first, in the bundle's order.
    """
    parts = []
    for name in ("candidates", "retain"):
        old, new = left.tables[name], right.tables[name]
        omega = np.array([weights.get(one, 0.0) for one in new["id"]]) if name == "candidates" else np.zeros(len(new))
        kind = np.where(omega > 0, UNLEARNED, OTHER) if name == "candidates" else RETAIN
        rise = new["nll"] - old["nll"]
        columns = {"kind": kind, "weight": omega, "before": old["nll"], "after": new["nll"], "rise": rise}
        parts.append(new[["id", "tokens"]].assign(**columns))
    return pd.concat(parts, ignore_index=True)[["id", "kind", "weight", "tokens", "before", "after", "rise"]]


def limits(changes: pd.DataFrame, share: float = 0.5) -> tuple[float, float]:
    """The rise below which something is not forgotten (that which `share` of the other candidates stay below), and
    the one above which it is overly forgotten (that which `share` of the unlearned stay below).

    Without other candidates retain data stand in for them, and without either the rise 0.
    """
    by_kind = {kind: changes.loc[changes["kind"] == kind, "rise"] for kind in (UNLEARNED, OTHER, RETAIN)}
    others = next((by_kind[kind] for kind in (OTHER, RETAIN) if len(by_kind[kind])), None)
    low = 0.0 if others is None else float(others.quantile(share))
    high = float(by_kind[UNLEARNED].quantile(share)) if len(by_kind[UNLEARNED]) else float("inf")
    return low, high


def not_forgotten(changes: pd.DataFrame, below: float) -> pd.DataFrame:
    """What was unlearned and rose by less than `below`, the least first."""
    found = changes[(changes["kind"] == UNLEARNED) & (changes["rise"] < below)]
    return found.sort_values("rise", kind="stable")


def overly_forgotten(changes: pd.DataFrame, above: float, kind: str = OTHER) -> pd.DataFrame:
    """What was not unlearned and rose by more than `above`, the most first."""
    found = changes[(changes["kind"] == kind) & (changes["rise"] > above)]
    return found.sort_values("rise", ascending=False, kind="stable")
