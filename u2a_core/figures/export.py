"""A figure as one HTML file that works offline: plotly.js inside, light and dark, its meaning and its origin.

Every word of a data set is escaped, in the tables, the metadata and the figure's data: none of it is ever read as
markup or code.
"""

import html
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from u2a_core.figures.excerpt import excerpt, signed
from u2a_core.figures.palette import Ink, ink
from u2a_core.store.files import replacing

TOP_ROWS = 20
EXCERPT_LENGTH = 240
HEIGHT = "clamp(600px, calc(100vh - 185px), 900px)"  # of a figure that sets none: whole on a usual screen
PAGE = Path(__file__).with_name("page.html")


def write_html(
    figure: go.Figure,
    path: Path,
    *,
    title: str,
    description: str,
    metadata: Mapping[str, Any],
    dark: go.Figure | None = None,
    samples: pd.DataFrame | None = None,
) -> None:
    """Write a stand-alone page to `path`, atomically: heading, how to read it, the figure, tables, metadata.

    `dark` is the same figure in dark colours, shown where the reader's system is dark; only its differences are stored.
    Without it the page keeps the figure's own ground. `samples`, a table of scores, adds the largest ΔPA of each sign
    as plain tables.
    """
    colours = _ink_of(figure)
    light_json, dark_json = (_plain(each) for each in (figure, dark or figure))
    page = Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        description=html.escape(description),
        schemes="light dark" if dark is not None else _scheme(colours),
        light_colours=_variables(colours),
        dark_rule=_dark_rule(dark),
        height=f"{figure.layout.height}px" if figure.layout.height else HEIGHT,
        tables="" if samples is None else samples_html(samples),
        metadata="\n".join(_entry(key, value) for key, value in metadata.items()),
        plotly=get_plotlyjs(),
        light_figure=_for_script(light_json),
        dark_differences=_for_script(differences(light_json, dark_json)),
        file_name=_for_script(path.stem),
    )
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")


def samples_html(samples: pd.DataFrame, count: int = TOP_ROWS) -> str:
    """The `count` examples that help most and the `count` that hurt most when unlearned, as two escaped HTML tables."""
    by_delta = samples.sort_values(["delta_pa", "id"], ascending=[False, True], kind="stable")
    helping = by_delta[by_delta["delta_pa"] > 0].head(count)
    hurting = by_delta[by_delta["delta_pa"] < 0].iloc[::-1].head(count)
    return _table("helps", helping, "Unlearning these helps most") + _table(
        "hurts", hurting, "Unlearning these hurts most"
    )


def differences(base: Any, other: Any) -> Any:
    """What must be laid over `base` to get `other`, two JSON values of the same shape; {} where they are equal.

    Lists of the same length become objects keyed by index; everything else that differs is taken from `other` whole.
    """
    if isinstance(base, list) and isinstance(other, list) and len(base) == len(other):
        pairs: Any = enumerate(zip(base, other, strict=True))
    elif isinstance(base, dict) and isinstance(other, dict) and base.keys() == other.keys():
        pairs = ((key, (base[key], other[key])) for key in base)
    else:
        return other
    return {key: differences(first, second) for key, (first, second) in pairs if first != second}


def _table(verdict: str, rows: pd.DataFrame, heading: str) -> str:
    """One table with its heading; a sentence where there is no such example."""
    if rows.empty:
        return f"<h2>{heading}</h2>\n<p>There is no example with a ΔPA of this sign.</p>\n"
    titles = ("", "id", "ΔPA<br>nats per pair", "low-reward<br>tokens", "category", "prompt", "response")
    classes = ("number", "id", "number", "number", "", "text", "text")
    head = "".join(f'<th scope="col" class="{name}">{text}</th>' for name, text in zip(classes, titles, strict=True))
    columns = ("id", "delta_pa", "low_reward_proportion", "category", "prompt", "response")
    values = zip(*(rows[name] for name in columns), strict=True)
    body = "\n".join(_row(verdict, number, *value) for number, value in enumerate(values, start=1))
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<h2>{heading}</h2>\n<div class="wide">{table}</div>\n'


def _row(
    verdict: str,
    number: int,
    identity: str,
    delta: float,
    low: float | None,
    category: str | None,
    prompt: str,
    response: str,
) -> str:
    cells = (
        ("number", str(number)),
        ("id", excerpt(identity, 40)),
        (f"number {verdict}", signed(delta)),
        ("number", "–" if pd.isna(low) else f"{low:.0%}"),
        ("", "–" if pd.isna(category) else excerpt(str(category), 60)),
        ("text", excerpt(prompt, EXCERPT_LENGTH)),
        ("text", excerpt(response, EXCERPT_LENGTH)),
    )
    return "<tr>" + "".join(f'<td class="{name}" dir="auto">{html.escape(text)}</td>' for name, text in cells) + "</tr>"


def _entry(key: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1, default=str)
    return f"<dt>{html.escape(str(key))}</dt><dd>{html.escape(text)}</dd>"


def _plain(figure: go.Figure) -> Any:
    """The figure as JSON values, zooming by drag: a lasso has no use on a page without a program behind it."""
    copy = go.Figure(figure)
    return json.loads(copy.update_layout(dragmode="zoom").to_json())


def _for_script(value: Any) -> str:
    """JSON that cannot end a script element nor open a comment in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _ink_of(figure: go.Figure) -> Ink:
    """The palette whose ground the figure has; the light one for a figure from elsewhere."""
    grounds = {ink("paper", theme).paper: ink("paper", theme) for theme in ("light", "dark")}
    return grounds.get(figure.layout.paper_bgcolor, ink("paper", "light"))


def _scheme(colours: Ink) -> str:
    return "dark" if colours == ink("paper", "dark") else "light"


def _variables(colours: Ink) -> str:
    names = ("paper", "text", "muted", "grid", "helps", "hurts")
    return " ".join(f"--{name}: {getattr(colours, name)};" for name in names)


def _dark_rule(dark: go.Figure | None) -> str:
    if dark is None:
        return ""
    return f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables(_ink_of(dark))} }} }}"
