"""The stand-alone page: whole, offline, escaped; the dark figure as differences."""

import html.parser
import json
import re
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from synthetic_scores import synthetic_scores

from u2a_core.errors import StorageError
from u2a_core.figures.export import differences, samples_html, write_html
from u2a_core.figures.influence import InfluenceOptions, influence_figure, paper_influence_figure
from u2a_core.figures.low_reward import LowRewardOptions, low_reward_figure
from u2a_core.figures.palette import ink
from u2a_core.store.scores import Scores

NASTY = '<script>alert(1)</script></script><b>bold</b> & "quoted" <!-- ${plotly} $title'


class Page(html.parser.HTMLParser):
    """What a parser sees: tags with attributes, and the text outside scripts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, _tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.words.append(data)


def write(path: Path, scores: Scores, **changes: Any) -> str:
    """Write Figure 1 with everything on its page; the page's text."""
    parts: dict[str, Any] = {
        "title": "Figure 1",
        "description": "How to read it.",
        "metadata": scores.metadata,
        "samples": scores.table,
    }
    write_html(influence_figure(scores), path, **(parts | changes))
    return path.read_text(encoding="utf-8")


def embedded(source: str, name: str) -> Any:
    """A JSON element of the page."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', source, flags=re.DOTALL)
    assert found
    assert not set("<>&") & set(found[1])  # nothing in it can end the element
    return json.loads(found[1])


def test_the_page_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "figure.html"
    source = write(path, synthetic_scores(30))
    page = Page(source)
    assert ("meta", {"charset": "utf-8"}) in page.tags
    assert not [tag for tag, attributes in page.tags if tag == "link" or "src" in attributes or "href" in attributes]
    assert "plotly.js v" in source
    assert len(source) > 3_000_000
    words = " ".join(page.words)
    for expected in ("Figure 1", "How to read it.", "bundle_hash", "5f0c2d7e91ab44c8", "Save as SVG"):
        assert expected in words
    assert [child.name for child in path.parent.iterdir()] == ["figure.html"]


def test_the_figure_comes_back_as_it_was(tmp_path: Path) -> None:
    scores = synthetic_scores(30)
    figure = influence_figure(scores)
    before = figure.to_json()
    source = write(tmp_path / "figure.html", scores)
    after = embedded(source, "figure-light")
    assert after["data"] == json.loads(before)["data"]
    assert after["layout"] == json.loads(before)["layout"] | {"dragmode": "zoom"}
    assert figure.to_json() == before
    assert embedded(source, "figure-dark") == {}


def test_text_of_a_data_set_never_becomes_markup(tmp_path: Path) -> None:
    scores = synthetic_scores(6)
    table = scores.table.assign(prompt=NASTY, response=NASTY, category=NASTY, id=[f"{NASTY}{i}" for i in range(6)])
    metadata = scores.metadata | {"estimator": NASTY, NASTY: {NASTY: [NASTY]}}
    nasty = Scores(table, metadata)
    clean = Page(write(tmp_path / "a.html", scores))
    source = write(tmp_path / "b.html", nasty, title=NASTY, description=NASTY)
    page = Page(source)
    count = {tag for tag, _ in page.tags}
    assert count == {tag for tag, _ in clean.tags}
    assert [tag for tag, _ in page.tags].count("script") == [tag for tag, _ in clean.tags].count("script") == 4
    assert "".join(page.words).count("<script>alert(1)</script>") >= 12  # shown, as text, in every row
    assert embedded(source, "figure-light")["data"][0]["customdata"][0].startswith(NASTY)


def test_dark_is_stored_as_differences_that_lead_to_the_dark_figure(tmp_path: Path) -> None:
    scores = synthetic_scores(400)
    for name, draw, options in (
        ("one", influence_figure, InfluenceOptions),
        ("paper", paper_influence_figure, InfluenceOptions),
        ("two", low_reward_figure, LowRewardOptions),
    ):
        light, dark = draw(scores, options(theme="light")), draw(scores, options(theme="dark"))
        path = tmp_path / f"{name}.html"
        write_html(light, path, title="", description="", metadata={}, dark=dark)
        source = path.read_text(encoding="utf-8")
        laid_over = overlay(embedded(source, "figure-light"), embedded(source, "figure-dark"))
        assert laid_over == json.loads(dark.to_json()) | {"layout": laid_over["layout"]}
        assert laid_over["layout"] == json.loads(dark.to_json())["layout"] | {"dragmode": "zoom"}
        assert len(json.dumps(embedded(source, "figure-dark"))) < 12_000
        assert "prefers-color-scheme: dark" in source
        assert ink("paper", "dark").paper in source


def overlay(base: Any, changes: Any) -> Any:
    """What the page's script does with the differences."""
    for key, value in changes.items():
        place = int(key) if isinstance(base, list) else key
        if isinstance(value, dict) and isinstance(base[place], dict | list):
            overlay(base[place], value)
        else:
            base[place] = value
    return base


@pytest.mark.parametrize(
    ("base", "other", "expected"),
    [
        ({"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 2]}, {}),
        ({"a": 1, "b": [1, 2]}, {"a": 2, "b": [1, 3]}, {"a": 2, "b": {1: 3}}),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, {"a": [1, 2, 3]}),
        ({"a": {"x": 1}}, {"a": {"y": 1}}, {"a": {"y": 1}}),
        ({"a": None}, {"a": {"y": 1}}, {"a": {"y": 1}}),
    ],
)
def test_differences(base: Any, other: Any, expected: Any) -> None:
    assert differences(base, other) == expected


def test_a_page_of_one_theme_keeps_that_theme(tmp_path: Path) -> None:
    for theme in ("light", "dark"):
        figure = influence_figure(synthetic_scores(5), InfluenceOptions(theme=theme))
        path = tmp_path / f"{theme}.html"
        write_html(figure, path, title="t", description="d", metadata={})
        source = path.read_text(encoding="utf-8")
        assert f'name="color-scheme" content="{theme}"' in source
        assert f"--paper: {ink('paper', theme).paper}" in source
        assert "@media (prefers-color-scheme" not in source


def test_tables_hold_the_largest_of_each_sign_with_sign_and_unit() -> None:
    table = synthetic_scores(100).table
    source = samples_html(table, count=7)
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", source)]
    rows = [row for row in rows if row]
    helping = table.sort_values("delta_pa", ascending=False)["id"].head(7).tolist()
    hurting = table.sort_values("delta_pa")["id"].head(7).tolist()
    assert [row[1] for row in rows] == helping + hurting
    assert all(row[2].startswith("+") for row in rows[:7])
    assert all(row[2].startswith("−") for row in rows[7:])
    assert source.count("nats per pair") == 2


def test_a_table_without_rows_of_a_sign_says_so() -> None:
    table = synthetic_scores(5).table.assign(delta_pa=0.5)
    source = samples_html(table)
    assert source.count("<table>") == 1
    assert "no example with a ΔPA of this sign" in source


def test_text_in_tables_is_bounded() -> None:
    table = synthetic_scores(2).table.assign(delta_pa=[1.0, -1.0], prompt="p" * 90_000, category="c" * 9_000)
    assert len(samples_html(table)) < 5_000


def test_a_page_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Could not write"):
        write(tmp_path / "file" / "figure.html", synthetic_scores(3))


def test_a_figure_of_another_maker_is_written_too(tmp_path: Path) -> None:
    path = tmp_path / "other.html"
    write_html(go.Figure(go.Bar(y=[1]), {"height": 321}), path, title="t", description="d", metadata={})
    assert "height: 321px" in path.read_text(encoding="utf-8")
