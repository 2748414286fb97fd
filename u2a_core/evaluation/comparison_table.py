"""From the cells of a comparison to its table: a mean over seeds a row and column, with half of its 95 % interval. No
torch.

The interval is Student's t over seeds. Differences between two rows are paired by seed.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import pandas as pd

from u2a_core.errors import ScoringError
from u2a_core.evaluation.metrics import METRICS
from u2a_core.evaluation.privacy import privleak
from u2a_core.store.comparison import Cell

Cells = Mapping[str, Sequence[Cell]]  # of every row, by its name


@dataclass(frozen=True)
class Column:
    """One column of the table: `definition` in one sentence, `better` as of a `Metric`."""

    group: str
    name: str
    title: str
    definition: str
    unit: str
    better: str


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and half of its 95 % interval (None: fewer than two values)."""

    mean: float
    half: float | None

    def told(self, digits: int = 3) -> str:
        """As it is printed: 0.123 ± 0.004."""
        return f"{self.mean:.{digits}f}" + ("" if self.half is None else f" ± {self.half:.{digits}f}")


PASSES = 3  # forward passes that a forward and a backward pass cost
COLUMNS = (
    *(Column(one.group, one.name, one.title, one.definition, one.unit, one.better) for one in METRICS),
    Column(
        "Privacy", "privleak", "PrivLeak",
        "100 (A − A°) / A° with A = 1 − AUC of membership by Min-K%, A° that of the policy retrained without all "
        "candidates with the same seed; 0: forgotten like never seen, < 0: recognised still, > 0: stands out.",
        "percent", "unchanged",
    ),
    Column(
        "Cost", "seconds", "Seconds",
        "Wall time of the training itself, checks on the way included, loading and measuring not; other work on the "
        "machine counts.",
        "seconds", "lower",
    ),
    Column(
        "Cost", "search_seconds", "Seconds of the search",
        "Wall time of seeking the U2A weights, once for all seeds.",
        "seconds", "lower",
    ),
    Column(
        "Cost", "peak_memory", "Peak memory",
        "Most memory taken while the run was made, models and libraries included (on a GPU: its tensors).",
        "MiB", "lower",
    ),
    Column(
        "Cost", "cost", "Cost relative to DPO",
        "Seconds over the mean seconds of the row DPO, taken as exact.",
        "times DPO", "lower",
    ),
    Column(
        "Cost", "cost_search", "Cost with the search",
        "The same with the seconds of the search added, all of them to each run.",
        "times DPO", "lower",
    ),
    Column(
        "Cost", "work", "Token passes relative to DPO",
        f"Tokens trained on, times {PASSES} (forward and backward), and tokens read, over the mean of the row DPO; "
        "without checks and the search, and without wall time.",
        "times DPO", "lower",
    ),
    Column(
        "Cost", "tokens", "Tokens trained on",
        "Tokens, prompts included and padding not, that went through a forward and a backward pass.",
        "tokens", "lower",
    ),
    Column(
        "Cost", "forward_tokens", "Tokens read",
        "Tokens that went through a forward pass alone, for a reference.",
        "tokens", "lower",
    ),
    Column(
        "Run", "unlearned", "Examples unlearned",
        "Candidates with a weight above 0.",
        "examples", "unchanged",
    ),
    Column(
        "Run", "kept_step", "Kept step",
        "The step whose weights are kept: less than the number of steps where a limit was crossed.",
        "steps", "unchanged",
    ),
)  # fmt: skip


def summarised(values: Sequence[float]) -> Interval:
    """Mean and half of the 95 % interval of at least one value."""
    if len(values) < 2:
        return Interval(values[0], None)
    from scipy.special import stdtrit  # Student's t by its quantiles alone

    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
    return Interval(mean(values), half)


def values_of(cells: Cells, row: str, column: str) -> dict[int, float]:
    """The values of a row by seed, where there are any."""
    if column == "privleak" and row == "original":
        return _leaks_of_original(cells)
    if column in ("cost", "cost_search"):
        return _costs(cells, row, column == "cost_search")
    if column == "work":
        return _work(cells, row)
    found = ((cell.seed, cell.values.get(column)) for cell in cells.get(row, ()))
    known = {seed: value for seed, value in found if value is not None}
    return dict([*known.items()][:1]) if column == "search_seconds" else known  # all seeds share one search


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Interval | None:
    """Second less first over the seeds that both have; None where there are none."""
    shared = [second[seed] - first[seed] for seed in second if seed in first]
    return summarised(shared) if shared else None


def table_of(cells: Cells, rows: Sequence[Mapping[str, str | None]]) -> pd.DataFrame:
    """The long table: a row a row of the comparison and column, whether it has a value or not. `rows` as in the
    document of a `Comparison`.
    """
    found = []
    for row in rows:
        for column in COLUMNS:
            values = values_of(cells, str(row["row"]), column.name)
            summary = summarised(list(values.values())) if values else None
            found.append(
                {
                    **{name: row[name] for name in ("row", "title", "kind", "objective")},
                    "metric": column.name, "metric_title": column.title, "group": column.group, "unit": column.unit,
                    "better": column.better, "definition": column.definition,
                    "mean": summary.mean if summary else None, "half": summary.half if summary else None,
                    "seeds": list(values), "values": list(values.values()),
                }
            )  # fmt: skip
    return pd.DataFrame(found)


def _costs(cells: Cells, row: str, search: bool) -> dict[int, float]:
    """Seconds over the mean seconds of DPO."""
    reference = values_of(cells, "dpo", "seconds")
    if not reference:
        return {}
    sought = sum(values_of(cells, row, "search_seconds").values()) if search else 0.0
    seconds = values_of(cells, row, "seconds")
    return {seed: (value + sought) / mean(reference.values()) for seed, value in seconds.items()}


def _work(cells: Cells, row: str) -> dict[int, float]:
    """Passes of a token through the model, over the mean ones of DPO."""

    def passes(name: str) -> dict[int, float]:
        trained, read = (values_of(cells, name, column) for column in ("tokens", "forward_tokens"))
        return {seed: PASSES * value + read.get(seed, 0) for seed, value in trained.items()}

    reference = passes("dpo")
    return {seed: value / mean(reference.values()) for seed, value in passes(row).items()} if reference else {}


def _leaks_of_original(cells: Cells) -> dict[int, float]:
    """PrivLeak of the original policy against every oracle; all candidates are in question for both."""
    own = values_of(cells, "original", "auc_min_k")
    found = {}
    for seed, oracle in values_of(cells, "retrain", "auc_min_k").items():
        with contextlib.suppress(ScoringError):  # undefined against an oracle whose AUC is 1
            found[seed] = privleak(own[0], oracle)
    return found
