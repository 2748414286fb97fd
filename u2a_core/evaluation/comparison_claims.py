"""What a comparison says about the paper's three claims, as it comes out: a sentence and a small table each; no torch.

A difference is called higher or lower only where its 95 % interval over seeds leaves 0 out. Everything comes from the
long table of a `Comparison`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from u2a_core.evaluation.comparison_table import Interval, paired, summarised
from u2a_core.store.trust import OBJECTIVE_NAMES

UNCLEAR, UNKNOWN = "no clear difference", "a single seed tells no direction"
SAFETY = {"retain_nll": "NLL of retain data, nats per token", "fluent": "share of fluent answers"}


@dataclass(frozen=True)
class Claim:
    """One claim: its `title`, what came out (`said`), and a table of it, `head` over `rows`, empty where nothing was
    measured.
    """

    title: str
    said: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def claims(table: pd.DataFrame, steps: int | None) -> list[Claim]:
    """The three claims, of the long table of a comparison whose runs were asked for `steps` steps (None: not known).
    A claim that the table cannot tell of says what is missing.
    """
    measured = _Measured(table)
    return [_weights(measured), _cost(measured), _collapse(measured, steps)]


def direction(found: Interval) -> str:
    """What a difference means."""
    if found.half is None:
        return UNKNOWN
    if abs(found.mean) <= found.half:
        return UNCLEAR
    return "higher" if found.mean > 0 else "lower"


class _Measured:
    """The values of a long table by row, column and seed."""

    def __init__(self, table: pd.DataFrame) -> None:
        known = table.drop_duplicates("row")
        self.rows: list[tuple[str, str, str]] = list(known[["row", "title", "kind"]].itertuples(index=False, name=None))
        self.objectives = dict(zip(known["row"], known["objective"], strict=True))
        columns = (table[name] for name in ("row", "metric", "seeds", "values"))
        self._values = {
            (row, metric): {int(seed): float(value) for seed, value in zip(seeds, values, strict=True)}
            for row, metric, seeds, values in zip(*columns, strict=True)
        }

    def values(self, row: str, column: str) -> dict[int, float]:
        """By seed, where there are any."""
        return self._values.get((row, column), {})

    def summary(self, row: str, column: str) -> Interval | None:
        """Over seeds; None where there is no value."""
        found = self.values(row, column)
        return summarised(list(found.values())) if found else None

    def change(self, left: str, right: str, column: str) -> Interval | None:
        """Right less left, paired by seed; the original policy's one value belongs to every seed."""
        first, second = self.values(left, column), self.values(right, column)
        if left == "original" and first:
            first = dict.fromkeys(second, next(iter(first.values())))
        return paired(first, second)


def _weights(measured: _Measured) -> Claim:
    """U2A against uniform weights, a method at a time."""
    title = "U2A improves each method at equal steps and batch"
    outcomes: dict[str, list[str]] = {}
    rows, missing = [], []
    for objective in _objectives(measured):
        name, both = OBJECTIVE_NAMES.get(objective, objective.upper()), (f"{objective}-uniform", f"{objective}-u2a")
        found = measured.change(*both, "alignment")
        uniform, weighed = (measured.summary(one, "alignment") for one in both)
        if found is None or uniform is None or weighed is None:
            missing.append(name)
            continue
        outcomes.setdefault(direction(found), []).append(name)
        times = _times(*(measured.summary(one, "seconds") for one in both))
        rows.append((name, uniform.told(), weighed.told(), _signed(found), direction(found), times))
    if not rows:
        return Claim(title, "Not measured; it needs both rows of a method.")
    told = "; ".join(f"{outcome} for {', '.join(names)}" for outcome, names in outcomes.items())
    lacking = f" Not measured: {', '.join(missing)}." if missing else ""
    said = (
        f"J on pa_test with the solver's weights against uniform ones: {told} (seconds: of the run alone, without "
        f"the search).{lacking}"
    )
    head = (
        "method",
        "J, uniform",
        "J, U2A",
        "difference, nats per pair",
        "outcome",
        "seconds of the run, U2A / uniform",
    )
    return Claim(title, said, head, tuple(rows))


def _cost(measured: _Measured) -> Claim:
    """How much of DPO's gain unlearning reaches, for how much of its time."""
    title = "Unlearning reaches most of DPO's gain at a small part of its cost"
    gain = measured.change("original", "dpo", "alignment")
    if gain is None:
        return Claim(title, "Not measured; it needs the row dpo.")
    if gain.mean <= 0:
        return Claim(title, f"DPO gains nothing here ({_signed(gain)} nats per pair), so there is no share to tell.")
    found: list[tuple[str, Interval, float, float, float | None, float]] = []
    for name, shown, kind in measured.rows:
        own = measured.change("original", name, "alignment") if kind in ("uniform", "u2a") else None
        spent, total, work = (measured.summary(name, one) for one in ("cost", "cost_search", "work"))
        if own is None or spent is None or total is None or work is None:
            continue
        searched = total.mean if kind == "u2a" else None
        found.append((shown, own, own.mean / gain.mean, spent.mean, searched, work.mean))
    if not found:
        return Claim(title, "Not measured; no unlearning row has a value.")
    least, most = min(found, key=lambda one: one[2]), max(found, key=lambda one: one[2])
    searches = [one[4] for one in found if one[4] is not None]
    unclear = "" if direction(gain) == "higher" else " (not a clear gain, so shares of it mean little)"
    search = f", {_span(searches)} with the search for weights" if searches else ""
    said = (
        f"DPO raises J by {_signed(gain)} nats per pair{unclear}. Unlearning reaches {least[2]:.0%} ({least[0]}) to "
        f"{most[2]:.0%} ({most[0]}) of that, in {_span([one[3] for one in found])} of its seconds{search}, and "
        f"{_span([one[5] for one in found])} of its token passes."
    )
    rows = tuple(
        (one[0], _signed(one[1]), f"{one[2]:.0%}", f"{one[3]:.0%}", "–" if one[4] is None else f"{one[4]:.0%}",
         f"{one[5]:.0%}")
        for one in found
    )  # fmt: skip
    head = (
        "row",
        "gain of J, nats per pair",
        "of DPO's gain",
        "of its seconds",
        "with the search",
        "of its token passes",
    )
    return Claim(title, said, head, rows)


def _collapse(measured: _Measured, steps: int | None) -> Claim:
    """Gradient ascent against NPO, uniform weights: what is left of the policy."""
    title, ga, npo = "GA collapses where NPO survives", "ga-uniform", "npo-uniform"
    rows = []
    for column, name in SAFETY.items():
        start, first, second = (measured.summary(one, column) for one in ("original", ga, npo))
        found = measured.change(npo, ga, column)
        if first is None or second is None or found is None:
            continue
        before = "–" if start is None else start.told()
        rows.append((name, before, first.told(), second.told(), _signed(found), direction(found)))
    if not rows:
        return Claim(title, "Not measured; it needs the rows ga-uniform and npo-uniform.")
    told = "; ".join(f"{row[0].split(',')[0]}: {row[-1]}" for row in rows)
    said = f"Uniform weights, GA less NPO, {told}.{_stops(measured, (ga, npo), steps)}"
    return Claim(title, said, ("of the policy", "before", "GA", "NPO", "GA less NPO", "outcome"), tuple(rows))


def _stops(measured: _Measured, names: Sequence[str], steps: int | None) -> str:
    """How many runs kept an earlier step than their last."""
    titles: Mapping[str, str] = {row: title for row, title, _ in measured.rows}
    kept = {name: measured.values(name, "kept_step").values() for name in names}
    if steps is None or not all(kept.values()):
        return ""
    told = [f"{titles[name]} {sum(one < steps for one in found)} of {len(found)}" for name, found in kept.items()]
    return f" Runs that a limit took back to an earlier step: {'; '.join(told)}."


def _objectives(measured: _Measured) -> list[str]:
    """The objectives of the table's weighed rows."""
    kinds = ("uniform", "u2a")
    return list(dict.fromkeys(str(measured.objectives[row]) for row, _, kind in measured.rows if kind in kinds))


def _times(base: Interval | None, own: Interval | None) -> str:
    return "–" if base is None or own is None or not base.mean else f"{own.mean / base.mean:.2f}"


def _span(shares: Sequence[float]) -> str:
    least, most = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return least if least == most else f"{least} to {most}"


def _signed(found: Interval) -> str:
    return f"{'+' if found.mean >= 0 else ''}{found.told()}"
