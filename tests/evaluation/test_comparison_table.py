"""The table of hand-made cells: means, intervals, paired differences, claims in words, and both reports."""

import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from u2a_core.evaluation.comparison_claims import Claim, claims, direction
from u2a_core.evaluation.comparison_report import READABLE, html_page, markdown
from u2a_core.evaluation.comparison_rows import ROWS
from u2a_core.evaluation.comparison_table import COLUMNS, Interval, paired, summarised, table_of, values_of
from u2a_core.evaluation.metrics import METRICS
from u2a_core.store.comparison import Cell

T2 = 4.302652729911275  # 97.5 % of Student's t with two degrees of freedom, from a table


def row(name: str, **columns: list[float | None]) -> list[Cell]:
    """Cells of a row, a seed an entry."""
    count = len(next(iter(columns.values())))
    return [Cell(name, seed, {one: values[seed] for one, values in columns.items()}) for seed in range(count)]


CELLS = {
    "original": row("original", alignment=[-0.7], retain_nll=[1.0], fluent=[0.9], auc_min_k=[0.8]),
    "dpo": row(
        "dpo", alignment=[-0.5, -0.4, -0.6], seconds=[9.0, 10.0, 11.0], tokens=[90, 100, 110],
        forward_tokens=[100, 100, 100],
    ),
    "retrain": row("retrain", auc_min_k=[0.6, 0.5, 1.0]),
    "ga-uniform": row(
        "ga-uniform", alignment=[-0.6, -0.62, -0.58], seconds=[2.0, 2.0, 2.0], retain_nll=[3.0, 3.5, 4.0],
        fluent=[0.1, 0.2, 0.1], tokens=[40, 40, 40], kept_step=[10, 5, 0],
    ),
    "npo-uniform": row(
        "npo-uniform", alignment=[-0.6, -0.7, -0.5], seconds=[4.0, 4.0, 4.0], retain_nll=[1.1, 1.3, 1.2],
        fluent=[0.9, 0.2, 0.1], kept_step=[10, 10, 10],
    ),
    "npo-u2a": row(
        "npo-u2a", alignment=[-0.5, -0.61, -0.39], seconds=[5.0, 5.0, 5.0], search_seconds=[20.0, 20.0, 20.0],
        tokens=[40, 40, 80], forward_tokens=[80, 80, 80],
    ),
}  # fmt: skip


def documented(cells: dict[str, list[Cell]], **changes: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    rows = [
        {"row": name, "title": ROWS[name].title, "kind": ROWS[name].kind, "objective": ROWS[name].objective,
         "note": "no | base <b>" if name == "retrain" else None}
        for name in cells
    ]  # fmt: skip
    document = {
        "title": "Ways <x>", "command": "u2a compare 'a<b'", "hardware": "2 cores", "notes": ["first & last"],
        "asked": {"steps": 10}, "rows": rows, **changes,
    }  # fmt: skip
    return table_of(cells, rows), document


def texts_of_claims(table: pd.DataFrame) -> list[str]:
    """Every word of the claims: 3 titles, 3 sentences and their tables."""
    found = claims(table, 10)
    return [
        text for one in found for text in (one.title, one.said, *one.head, *(cell for row in one.rows for cell in row))
    ]


def test_a_mean_has_half_of_students_interval() -> None:
    found = summarised([1.0, 2.0, 6.0])
    assert found.mean == 3
    assert found.half == pytest.approx(T2 * math.sqrt(7.0) / math.sqrt(3))
    assert summarised([2.5]) == Interval(2.5, None)
    assert (found.told(1), Interval(2.5, None).told(2)) == ("3.0 ± 6.6", "2.50")


def test_differences_are_paired_by_seed() -> None:
    uniform, weighed = (values_of(CELLS, name, "alignment") for name in ("npo-uniform", "npo-u2a"))
    found = paired(uniform, weighed)
    assert found is not None
    assert found.mean == pytest.approx(0.1)
    assert found.half == pytest.approx(T2 * 0.01 / math.sqrt(3)), "though each of them spreads by 0.1"
    other = paired(uniform, {2 - seed: value for seed, value in weighed.items()})
    assert other is not None
    assert other.half is not None
    assert other.half > 10 * found.half
    assert paired({0: 1.0}, {0: 2.0, 1: 9.0}) == Interval(1.0, None), "of the seeds that both have"
    assert paired({0: 1.0}, {1: 2.0}) is None


@pytest.mark.parametrize(
    ("mean", "half", "word"),
    [(0.1, 0.05, "higher"), (-0.1, 0.05, "lower"), (0.1, 0.1, "no clear difference"), (0.1, None, "a single seed")],
)
def test_a_direction_needs_an_interval_without_0(mean: float, half: float | None, word: str) -> None:
    assert direction(Interval(mean, half)).startswith(word)


def test_cost_is_seconds_over_those_of_dpo() -> None:
    assert values_of(CELLS, "npo-u2a", "cost") == dict.fromkeys(range(3), 0.5)
    assert values_of(CELLS, "npo-u2a", "cost_search") == dict.fromkeys(range(3), 2.5)
    assert values_of(CELLS, "npo-uniform", "cost_search") == dict.fromkeys(range(3), 0.4)
    assert values_of({"npo-u2a": CELLS["npo-u2a"]}, "npo-u2a", "cost") == {}
    assert values_of(CELLS, "npo-u2a", "search_seconds") == {0: 20.0}, "one search, one number"


def test_work_is_token_passes_over_those_of_dpo() -> None:
    """DPO: 3 × 100 trained on, on the mean, and 100 read."""
    assert values_of(CELLS, "ga-uniform", "work") == dict.fromkeys(range(3), 3 * 40 / 400)
    assert values_of(CELLS, "npo-u2a", "work") == {0: 200 / 400, 1: 200 / 400, 2: 320 / 400}
    assert values_of(CELLS, "retrain", "work") == values_of(CELLS, "original", "work") == {}
    assert values_of({"npo-u2a": CELLS["npo-u2a"]}, "npo-u2a", "work") == {}


def test_the_original_leaks_against_every_oracle_that_tells_something() -> None:
    found = values_of(CELLS, "original", "privleak")
    assert found == pytest.approx({0: 100 * (0.2 - 0.4) / 0.4, 1: 100 * (0.2 - 0.5) / 0.5}), "not the one of AUC 1"


def told(cells: dict[str, list[Cell]], steps: int | None = 10) -> list[Claim]:
    return claims(documented(cells)[0], steps)


def test_claims_are_told_as_they_come_out() -> None:
    weights, cost, collapse = told(CELLS)
    assert "higher for NPO (seconds: of the run alone, without the search). Not measured: GA." in weights.said
    assert weights.rows == (("NPO", "-0.600 ± 0.248", "-0.500 ± 0.273", "+0.100 ± 0.025", "higher", "1.25"),)
    assert cost.said == (
        "DPO raises J by +0.200 ± 0.248 nats per pair (not a clear gain, so shares of it mean little). Unlearning "
        "reaches 50% (GA, uniform) to 100% (NPO, U2A) of that, in 20% to 50% of its seconds, 250% with the search for "
        "weights, and 30% to 60% of its token passes."
    )
    assert cost.rows == (
        ("GA, uniform", "+0.100 ± 0.050", "50%", "20%", "–", "30%"),
        ("NPO, U2A", "+0.200 ± 0.273", "100%", "50%", "250%", "60%"),
    )
    assert collapse.said.endswith(
        "NLL of retain data: higher; share of fluent answers: no clear difference. Runs that a limit took back to an "
        "earlier step: GA, uniform 2 of 3; NPO, uniform 0 of 3."
    )
    assert collapse.rows[0][1:] == ("1.000", "3.500 ± 1.242", "1.200 ± 0.248", "+2.300 ± 1.138", "higher")
    assert collapse.rows[1][4:] == ("-0.267 ± 1.147", "no clear difference")
    assert all({len(row) for row in one.rows} == {len(one.head)} for one in (weights, cost, collapse))


def test_claims_turn_with_the_cells_and_say_what_is_missing() -> None:
    swapped = {**CELLS, "npo-u2a": CELLS["npo-uniform"], "npo-uniform": CELLS["npo-u2a"]}
    assert told(swapped)[0].rows[0][3:5] == ("-0.100 ± 0.025", "lower")
    assert "lower for NPO" in told(swapped)[0].said
    useless = {**CELLS, "dpo": row("dpo", alignment=[-0.8, -0.8], seconds=[1.0, 1.0])}
    assert "DPO gains nothing here (-0.100 ± 0.000" in told(useless)[1].said
    clear = {**CELLS, "dpo": row("dpo", alignment=[-0.5, -0.5], seconds=[1.0, 1.0], tokens=[1, 1])}
    assert told(clear)[1].said.startswith("DPO raises J by +0.200 ± 0.000 nats per pair. Unlearning")
    assert "earlier step" not in told(CELLS, None)[2].said, "unknown without the number of steps"
    nothing = told({"original": CELLS["original"]})
    assert [one.said for one in nothing] == [
        "Not measured; it needs both rows of a method.",
        "Not measured; it needs the row dpo.",
        "Not measured; it needs the rows ga-uniform and npo-uniform.",
    ]
    assert not any(one.rows for one in nothing)


def test_claims_survive_the_file(tmp_path: Path) -> None:
    table, _ = documented(CELLS)
    table.to_parquet(tmp_path / "table.parquet")
    assert claims(pd.read_parquet(tmp_path / "table.parquet"), 10) == claims(table, 10)


def test_the_table_has_every_row_and_column_whether_measured_or_not() -> None:
    table, _ = documented(CELLS)
    assert len(table) == len(CELLS) * len(COLUMNS)
    assert {one.name for one in METRICS} < set(table["metric"])
    assert set(READABLE) <= set(table["metric"])
    cell = table[(table["row"] == "ga-uniform") & (table["metric"] == "retain_nll")].iloc[0]
    assert (cell["mean"], cell["values"], cell["seeds"]) == (3.5, [3.0, 3.5, 4.0], [0, 1, 2])
    assert cell["half"] == pytest.approx(T2 * 0.5 / math.sqrt(3))
    empty = table[(table["row"] == "retrain") & (table["metric"] == "alignment")].iloc[0]
    assert pd.isna(empty["mean"])
    assert empty["values"] == []


def test_the_markdown_can_be_read_back() -> None:
    table, document = documented(CELLS)
    text = markdown(table, document)
    numbers = text[text.index("## Table") :]
    every = [
        [one.strip() for one in line.strip("|").split("|")] for line in numbers.splitlines() if line.startswith("| ")
    ]
    tables = [every[start : start + len(CELLS) + 1] for start in range(0, len(every), len(CELLS) + 1)]
    assert all([line[0] for line in one[1:]] == [ROWS[name].title for name in CELLS] for one in tables)
    assert {len(line) for line in tables[0]} == {len(READABLE) + 1}
    titles = [title for one in tables[1:] for title in one[0][1:]]
    assert sorted(titles) == sorted(column.title for column in COLUMNS), "all of them"
    head, body = tables[0][0], {line[0]: line for line in tables[0][1:]}
    assert body["GA, uniform"][head.index("NLL of retain data")] == "3.500 ± 1.242"
    assert body["NPO, U2A"][head.index("Cost with the search")] == "2.50 ± 0.00"
    assert body["Original policy"][head.index("J")] == "-0.700"
    assert body["Retrained without the forget set"][head.index("J")] == "–"
    for said in (*texts_of_claims(table), document["hardware"], document["command"], "no | base <b>"):
        assert said in text
    assert [one for one in COLUMNS if one.definition not in text] == []


def test_the_page_says_the_same_and_escapes_it() -> None:
    table, document = documented(CELLS)
    page = html_page(table, document)
    assert "<x>" not in page
    assert "a<b" not in page
    assert "no | base <b>" not in page
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data)

    Reader().feed(page)
    text = "".join(found)
    words = ("Ways <x>", "u2a compare 'a<b'", "first & last", "no | base <b>", "3.500 ± 1.242")
    for said in (*texts_of_claims(table), *words):
        assert said in text
    assert "http" not in page, "nothing is loaded from elsewhere"
