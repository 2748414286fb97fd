"""Other views of Compare: the headline table and the six ways of MUSE, from files; what is not there is offered."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click import Command
from streamlit.testing.v1 import AppTest

from u2a_core.bundle import Bundle, open_bundle
from u2a_core.commands.comparing import compare
from u2a_core.commands.six_ways import muse
from u2a_core.dashboard import headline_view, six_ways_view
from u2a_core.evaluation.comparison_report import readable, sections
from u2a_core.evaluation.comparison_rows import ROWS
from u2a_core.evaluation.comparison_table import COLUMNS
from u2a_core.store.comparison import comparison_folder, working, write_comparison

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))  # looks written by hand live with the store's tests
from six_ways_tables import write_six_ways

SAID = "<script>alert(1)</script> ![x](http://evil/x.png)"
SHOWN = ("original", "dpo", "npo-uniform", "npo-u2a")


@pytest.fixture
def opened(open_page) -> Callable[..., AppTest]:
    return partial(open_page, "compare")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The demo, where `open_page` finds it."""
    return replace(open_bundle("demo"), results_folder=tmp_path / "cache" / "demo")


def row(name: str, column: Any, mean: float | None, half: float | None) -> dict[str, Any]:
    told = ROWS[name]
    seeds = [] if mean is None else [0, 1]
    return {
        "row": name, "title": told.title, "kind": told.kind, "metric": column.name, "metric_title": column.title,
        "group": column.group, "unit": column.unit, "better": column.better, "definition": column.definition,
        "objective": told.objective, "mean": mean, "half": half, "seeds": seeds, "values": [mean] * len(seeds),
    }  # fmt: skip


def write(bundle: Bundle, **document: Any) -> None:
    """A comparison of four rows: each column's value is the row's place; PrivLeak is known of none."""
    rows = [
        row(name, column, *((None, None) if column.name == "privleak" else (float(place), 0.25)))
        for place, name in enumerate(SHOWN)
        for column in COLUMNS
    ]
    told = [
        {"row": one, "title": ROWS[one].title, "kind": ROWS[one].kind, "objective": None, "note": None} for one in SHOWN
    ]
    known = {
        "bundle_hash": bundle.hash, "asked": {"steps": 10}, "command": "u2a compare demo", "measured": "2026-11-23",
        "hardware": "none", "rows": told, "notes": ["A note.", SAID], **document,
    }  # fmt: skip
    folder = comparison_folder(bundle, "default")
    with working(folder, {}, restart=False):
        write_comparison(folder, pd.DataFrame(rows), known, "", "")


def said(page: AppTest) -> str:
    return "\n".join(one.value for kind in ("text", "caption", "info", "error") for one in getattr(page, kind))


@pytest.mark.parametrize(
    ("view", "words", "command", "label"),
    [
        ("All methods", "No comparison of all methods", compare, "Compare all methods"),
        ("Six ways", "six ways of MUSE yet", muse, "Look at it in six ways"),
    ],
)
def test_what_is_not_there_is_offered_as_a_job(
    opened,
    started: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    view: str,
    words: str,
    command: Command,
    label: str,
) -> None:
    monkeypatch.setattr(headline_view, "comparison_names", lambda _bundle: [])  # the demo has them
    monkeypatch.setattr(six_ways_view, "six_ways_names", lambda _bundle: [])
    page = opened(compare_view=view)
    assert words in said(page)
    next(one for one in page.button if one.label == label).click().run()
    assert not page.exception
    (argv,) = started
    understood = command.make_context(command.name, list(argv[1:]))
    assert argv[0] == command.name
    assert understood.params["bundle"] == "demo"


def test_a_fresh_install_shows_the_comparison_that_came_with_the_demo(opened) -> None:
    page = opened(compare_view="All methods")
    assert not page.exception
    assert len(page.get("plotly_chart")) == 1
    weights, cost, collapse, table, meant = (one.value for one in page.dataframe)
    assert (len(weights), len(cost), len(collapse), len(table)) == (6, 12, 2, 18)
    assert set(weights["outcome"]) == {"higher", "no clear difference"}
    assert len(meant) == len(table.columns) - 1, "what every column means"
    assert any(one.value.startswith("u2a compare demo --name headline ") for one in page.code)


def test_the_headline_table_is_drawn_and_told(opened, bundle: Bundle) -> None:
    write(bundle)
    page = opened(compare_view="All methods")
    assert not page.exception
    assert len(page.get("plotly_chart")) == 1
    assert SAID in said(page), "as text"
    assert "A note." in said(page)
    weights, cost, table, meant = (one.value for one in page.dataframe)
    assert weights.to_dict("records")[0]["difference, nats per pair"] == "+1.000 ± 0.000"
    assert list(cost["of DPO's gain"]) == ["200%", "300%"]
    assert "Not measured; it needs the rows ga-uniform and npo-uniform." in said(page)
    assert list(table["row"]) == [ROWS[one].title for one in SHOWN]
    assert list(table["J"]) == ["0.000 ± 0.250", "1.000 ± 0.250", "2.000 ± 0.250", "3.000 ± 0.250"]
    assert set(table["PrivLeak"]) == {"–"}
    assert dict(zip(meant["column"], meant["definition"], strict=True))["J"] == next(
        one.definition for one in COLUMNS if one.name == "alignment"
    )


def test_every_metric_can_be_looked_at_a_group_at_a_time(opened, bundle: Bundle) -> None:
    write(bundle)
    page = opened(compare_view="All methods")
    (groups,) = (one for one in page.segmented_control if one.label == "Metrics")
    seen: set[str] = set()
    for group in [*groups.options][1:]:
        page = opened(compare_view="All methods", compare_group=str(group))
        assert not page.exception
        table = page.dataframe[2].value
        assert len(table) == len(SHOWN)
        seen |= set(table.columns) - {"row"}
    assert seen == {one.title for one in COLUMNS}


def test_why_a_row_has_no_value_is_said(opened, bundle: Bundle) -> None:
    rows = [{"row": "dpo", "title": "DPO", "kind": "baseline", "objective": None, "note": "seed 1: it diverged"}]
    write(bundle, rows=rows)
    page = opened(compare_view="All methods")
    assert "DPO, no value: seed 1: it diverged" in said(page)


def test_a_row_that_could_not_be_made_is_a_row_of_dashes(bundle: Bundle) -> None:
    column = next(one for one in COLUMNS if one.name == "alignment")
    table = pd.DataFrame([row("dpo", column, 1.0, None), row("retrain", column, None, None)])
    assert sections(table)[0][1] == ("alignment",), "of the readable columns those that there are"
    assert readable(table, ["alignment"]).to_dict("records") == [
        {"row": ROWS["dpo"].title, "J": "1.000"},
        {"row": ROWS["retrain"].title, "J": "–"},
    ]


def test_an_unfinished_comparison_says_how_to_go_on(opened, bundle: Bundle) -> None:
    with working(comparison_folder(bundle, "default"), {}, restart=False):
        pass
    page = opened(compare_view="All methods")
    assert "The comparison default is not finished" in said(page)
    assert any(one.label == "Compare all methods" for one in page.button)


def test_a_fresh_install_shows_the_six_ways_that_came_with_the_demo(opened) -> None:
    page = opened(compare_view="Six ways")
    assert not page.exception
    assert len(page.get("plotly_chart")) == 1
    table = page.dataframe[0].value
    assert len(set(table["way"])) == 6
    assert "PrivLeak by Min-K%" in set(table["measure"])
    assert any('"name": "npo"' in one.value for one in page.code), "what was asked for"
    assert "Sustainability, 2,000 candidates in 4 requests: the retain NLL rose by" in said(page), "why it stays flat"


def test_six_ways_are_drawn_and_told(opened, bundle: Bundle) -> None:
    write_six_ways(bundle, "npo")
    page = opened(compare_view="Six ways")
    assert not page.exception
    assert len(page.get("plotly_chart")) == 1
    ways = set(page.dataframe[0].value["way"])
    assert len(ways) == 6
    assert "6. Sustainability" in ways


def test_a_look_at_another_state_of_the_bundle_is_not_shown(opened, bundle: Bundle) -> None:
    folder = write_six_ways(bundle, "npo")
    spec = folder / "spec.json"
    spec.write_text(spec.read_text().replace(bundle.hash, "another"))
    page = opened(compare_view="Six ways")
    assert not page.exception
    assert not page.get("plotly_chart")
    assert "another state" in said(page)
