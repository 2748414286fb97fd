"""Which candidates are unlearned: all, a share by ΔPA, those above a threshold, a random share, or those of a file.

Uniform weights, mean 1 over the chosen; a file brings its own. `invert` takes the others instead (of `top`, the share
with the lowest ΔPA).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from u2a_core.data.forget_set import ForgetSet, forget_set, read_forget_set
from u2a_core.data.table import Example
from u2a_core.errors import UnlearningError


@dataclass(frozen=True)
class Selection:
    """What was asked: one of `file`, `top` (share), `threshold` (nats per pair), `random` (share), or all."""

    file: str | None = None
    top: float | None = None
    threshold: float | None = None
    random: float | None = None
    everything: bool = False
    invert: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("file", "top", "threshold", "random") if getattr(self, name) is not None]
        if len(given) + self.everything != 1:
            raise UnlearningError(
                "Say one of --forget-set FILE, --top SHARE, --threshold NATS, --random SHARE and --all."
            )
        for name in ("top", "random"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise UnlearningError(f"--{name} {share} is no share: give a number above 0 and at most 1, say 0.25.")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise UnlearningError(f"--threshold {self.threshold} is no finite number.")

    @property
    def needs_scores(self) -> bool:
        """Whether ΔPA decides."""
        return self.top is not None or self.threshold is not None


def select(
    asked: Selection, candidates: Sequence[Example], scores: pd.DataFrame | None = None, seed: int = 0
) -> ForgetSet:
    """The forget set that `asked` means; `scores` has `id` and `delta_pa` of the candidates, where they are needed.

    Raises `UnlearningError` where nothing is chosen, or where a candidate has no score.
    """
    if asked.file is not None:
        return _of_file(asked, candidates)
    ids = [one.id for one in candidates]
    if asked.everything:
        chosen = ids
    elif asked.random is not None:
        chosen = sorted(ids, key=lambda one: _draw(seed, one))[: _count(asked.random, ids)]
    else:
        chosen = _by_score(asked, ids, scores)
    if asked.invert and asked.top is None:
        chosen = [one for one in ids if one not in set(chosen)]
    if not chosen:
        raise UnlearningError(f"The selection is empty: none of the {len(ids)} candidates is in it. Ask for more.")
    kept = set(chosen)
    return forget_set({one: 1.0 for one in ids if one in kept})


def _of_file(asked: Selection, candidates: Sequence[Example]) -> ForgetSet:
    chosen = read_forget_set(Path(str(asked.file)), candidates)
    if not asked.invert:
        return chosen
    others = [one.id for one in candidates if one.id not in chosen.active and one.id not in chosen.excluded]
    if not others:
        raise UnlearningError(f"{asked.file} holds every candidate, so its inverse is empty.")
    return forget_set(dict.fromkeys(others, 1.0))


def _by_score(asked: Selection, ids: Sequence[str], scores: pd.DataFrame | None) -> list[str]:
    if scores is None:
        raise UnlearningError("Choosing by ΔPA needs scores: run `u2a score` first.")
    values = dict(zip(scores["id"], scores["delta_pa"].astype(float), strict=True))
    missing = [one for one in ids if not math.isfinite(values.get(one, math.nan))]
    if missing:
        raise UnlearningError(f"{len(missing)} candidates have no finite ΔPA (such as {missing[0]}): score them again.")
    if asked.threshold is not None:
        return [one for one in ids if values[one] > asked.threshold]
    sign = 1 if asked.invert else -1
    return sorted(ids, key=lambda one: (sign * values[one], one))[: _count(float(asked.top or 0), ids)]


def _count(share: float, ids: Sequence[str]) -> int:
    """A share of the candidates as a number, at least one."""
    return max(1, round(share * len(ids)))


def _draw(seed: int, one: str) -> str:
    """A pseudo-random rank of an example, which depends on it and the seed alone."""
    return hashlib.sha256(f"{seed}\x1d{one}".encode()).hexdigest()
