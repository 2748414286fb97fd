"""What a comparison says about the paper's three claims, in words with numbers, as they come out; no torch.

A difference is called higher or lower only where its 95 % interval over seeds leaves 0 out.
"""

from collections.abc import Sequence

from u2a_core.evaluation.comparison_rows import ROWS
from u2a_core.evaluation.comparison_table import Cells, Interval, paired, summary_of


def claims(cells: Cells) -> list[str]:
    """The three claims as sentences; one that the cells cannot tell of says what is missing."""
    return [_weights(cells), _cost(cells), _collapse(cells)]


def direction(found: Interval) -> str:
    """What a difference means."""
    if found.half is None:
        return "a single seed tells no direction"
    if abs(found.mean) <= found.half:
        return "no clear difference"
    return "higher" if found.mean > 0 else "lower"


def _weights(cells: Cells) -> str:
    """U2A against uniform weights, a method at a time."""
    head = "U2A against uniform weights at equal steps and batch, J on pa_test, nats per pair"
    told, missing = [], []
    for objective in _objectives(cells):
        found = paired(cells, f"{objective}-uniform", f"{objective}-u2a", "alignment")
        if found is None:
            missing.append(objective)
            continue
        times = _ratio(cells, f"{objective}-u2a", f"{objective}-uniform")
        told.append(f"{objective} {_signed(found)} ({direction(found)}; the run itself takes {times} the seconds)")
    if not told:
        return f"{head}: not measured; it needs both rows of a method."
    lacking = f" Not measured: {', '.join(missing)}." if missing else ""
    return f"{head}: {'; '.join(told)}. The search comes on top.{lacking}"


def _cost(cells: Cells) -> str:
    """How much of DPO's gain unlearning reaches, for how much of its time."""
    head = "Share of DPO's J gain that unlearning reaches, and share of its seconds"
    gain = paired(cells, "original", "dpo", "alignment")
    if gain is None:
        return f"{head}: not measured; it needs the row dpo."
    if gain.mean <= 0:
        return f"{head}: DPO gains nothing here ({_signed(gain)} nats per pair), so there is no share to tell."
    told = []
    for name in cells:
        row = ROWS[name]
        own = paired(cells, "original", name, "alignment") if row.kind in ("uniform", "u2a") else None
        spent, total = summary_of(cells, name, "cost"), summary_of(cells, name, "cost_search")
        work = summary_of(cells, name, "work")
        if own is None or spent is None or total is None or work is None:
            continue
        search = f", {total.mean:.0%} with the search" if row.kind == "u2a" else ""
        spending = f"{spent.mean:.0%} of the seconds{search}, {work.mean:.0%} of the token passes"
        told.append(f"{name} {own.mean / gain.mean:.0%} in {spending}")
    if not told:
        return f"{head}: not measured; no unlearning row has a value."
    return f"{head} (DPO: {_signed(gain)} nats per pair): {'; '.join(told)}."


def _collapse(cells: Cells) -> str:
    """Gradient ascent against NPO, uniform weights: what is left of the policy."""
    head = "GA against NPO, uniform weights"
    told = []
    for column, title in (("retain_nll", "NLL of retain data, nats per token"), ("fluent", "share of fluent answers")):
        both = [summary_of(cells, name, column) for name in ("ga-uniform", "npo-uniform")]
        found = paired(cells, "npo-uniform", "ga-uniform", column)
        start = summary_of(cells, "original", column)
        if both[0] is None or both[1] is None or found is None:
            continue
        before = "" if start is None else f" ({start.mean:.3f} before)"
        told.append(
            f"{title}{before}: GA {both[0].told()}, NPO {both[1].told()}, GA less NPO {_signed(found)} "
            f"({direction(found)})"
        )
    if not told:
        return f"{head}: not measured; it needs the rows ga-uniform and npo-uniform."
    stops = [
        f"{name} {sum(cell.stopped is not None for cell in cells[row])} of {len(cells[row])}"
        for name, row in (("GA", "ga-uniform"), ("NPO", "npo-uniform"))
    ]
    return f"{head}: {'; '.join(told)}. Runs that a limit ended early: {', '.join(stops)}."


def _objectives(cells: Cells) -> Sequence[str]:
    """The objectives of the table's weighed rows."""
    return list(dict.fromkeys(str(ROWS[one].objective) for one in cells if ROWS[one].kind in ("uniform", "u2a")))


def _ratio(cells: Cells, name: str, base: str) -> str:
    """Mean seconds of one row over those of another."""
    both = [summary_of(cells, one, "seconds") for one in (name, base)]
    if both[0] is None or both[1] is None or not both[1].mean:
        return "an unknown multiple of"
    return f"{both[0].mean / both[1].mean:.2f} times"


def _signed(found: Interval) -> str:
    return f"{'+' if found.mean >= 0 else ''}{found.told()}"
