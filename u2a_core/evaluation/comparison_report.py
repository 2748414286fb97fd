"""A comparison as Markdown and as one HTML file that needs nothing else: head, claims, table, what the columns mean.

The readable columns alone; everything is in the Parquet file. In the HTML every word is escaped.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from u2a_core.evaluation.comparison_claims import Claim, claims
from u2a_core.evaluation.comparison_table import Interval

READABLE = (  # the columns of the first table; all of them follow, a table a group
    "alignment", "accuracy", "win_rate", "attack_success", "forget_nll", "extraction", "rouge", "retain_nll",
    "retain_kl", "distinct_2", "auc_min_k", "privleak", "undone_relearned", "undone_rounded", "seconds", "peak_memory",
    "cost", "cost_search", "work",
)  # fmt: skip
DIGITS = {  # 3, but for these
    "win_rate": 2, "attack_success": 2, "privleak": 1, "undone_relearned": 2, "undone_rounded": 2, "seconds": 1,
    "search_seconds": 0, "peak_memory": 0, "cost": 2, "cost_search": 2, "work": 2, "tokens": 0, "forward_tokens": 0,
    "unlearned": 0, "kept_step": 1, "retain_perplexity": 2,
}  # fmt: skip
IN_SHORT = "In short"
INTERVAL = "Mean over seeds ± half of its 95 % interval (Student's t); –: no value."
STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --text: #1b1f24; --muted: #5b636e; --grid: #d5dae1; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161c; --text: #e8ebf0; --muted: #a5aebb; --grid: #39414d; } }
body { margin: 0; background: var(--paper); color: var(--text);
  font: 16px/1.55 Inter, "Helvetica Neue", Helvetica, Arial, "Noto Sans", "DejaVu Sans", sans-serif; }
main { margin: 0 auto; padding: 28px 32px 64px; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
p, li { max-width: 104ch; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; }
th, td { text-align: right; padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--grid); white-space: nowrap;
  vertical-align: bottom; font-variant-numeric: tabular-nums; }
thead th { white-space: normal; color: var(--muted); border-bottom-color: var(--muted); }
tr > :first-child { text-align: left; }
code { overflow-wrap: anywhere; }
"""


def markdown(table: pd.DataFrame, document: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"# {document['title']}", "", f"`{document['command']}`", "", document["hardware"], "",
        *(part for note in document["notes"] for part in (note, "")),
        "## Claims", "", *(line for one in claims_of(table, document) for line in _claim(one)),
        "## Table", "", INTERVAL, "",
    ]  # fmt: skip
    for number, (title, names) in enumerate(sections(table)):
        lines += [f"### {title}", ""] if number else []
        lines += [*_table(*_parts(readable(table, names))), ""]
    failures = _failures(document)
    if failures:
        lines += ["## Rows without a value for a seed", "", *(f"- **{title}**: {why}" for title, why in failures), ""]
    lines += ["## Columns", "", *(f"- **{title}** ({unit}): {text}" for title, unit, text in _columns(table)), ""]
    return "\n".join(lines)


def html_page(table: pd.DataFrame, document: Mapping[str, Any]) -> str:
    """The report as an HTML page."""
    title = html.escape(document["title"])
    failures = [f"{row}: {why}" for row, why in _failures(document)]
    parts = [
        f"<h1>{title}</h1>",
        f"<p><code>{html.escape(document['command'])}</code></p>",
        *(f"<p>{html.escape(one)}</p>" for one in (document["hardware"], *document["notes"])),
        "<h2>Claims</h2>",
        *(_html_claim(one) for one in claims_of(table, document)),
        f"<h2>Table</h2><p>{html.escape(INTERVAL)}</p>",
        *(
            f"<h3>{html.escape(told)}</h3>{_html_table(*_parts(readable(table, names)))}"
            for told, names in sections(table)
        ),
        _listed("Rows without a value for a seed", failures) if failures else "",
        _listed("Columns", [f"{one} ({unit}): {text}" for one, unit, text in _columns(table)]),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


def claims_of(table: pd.DataFrame, document: Mapping[str, Any]) -> list[Claim]:
    """The claims of a comparison, `table` and `document` as in `Comparison`."""
    return claims(table, document["asked"].get("steps"))


def sections(table: pd.DataFrame) -> list[tuple[str, tuple[str, ...]]]:
    """The tables of a report, a title and metrics each: what is looked at first, then every group whole."""
    known = table.drop_duplicates("metric")
    groups = [(str(group), tuple(part["metric"])) for group, part in known.groupby("group", sort=False)]
    return [(IN_SHORT, tuple(one for one in READABLE if one in set(known["metric"]))), *groups]


def readable(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A row a row of the long `table`, its title in the column `row`, and a column a metric, by its title: mean ± half
    of the interval as text, – where there is no value.
    """
    titles = dict(zip(table["metric"], table["metric_title"], strict=True))
    found = {(one.row, one.metric): one for one in table.itertuples()}
    rows = table.drop_duplicates("row")
    texts = {titles[one]: [_text(found[row, one], DIGITS.get(one, 3)) for row in rows["row"]] for one in metrics}
    return pd.DataFrame({"row": list(rows["title"]), **texts})


def _parts(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    return list(table.columns), table.to_numpy().tolist()


def _claim(claim: Claim) -> list[str]:
    return [f"### {claim.title}", "", claim.said, "", *((*_table(claim.head, claim.rows), "") if claim.rows else ())]


def _html_section(title: str, table: pd.DataFrame) -> str:
    return f"<h3>{html.escape(title)}</h3>{_html_table(*_parts(table))}"


def _html_claim(claim: Claim) -> str:
    table = _html_table(claim.head, claim.rows) if claim.rows else ""
    return f"<h3>{html.escape(claim.title)}</h3><p>{html.escape(claim.said)}</p>{table}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_line(head), "|---|" + "---:|" * (len(head) - 1), *map(_line, rows)]


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(one)}</td>" for one in row) + "</tr>" for row in rows)
    columns = "".join(f'<th scope="col">{html.escape(one)}</th>' for one in head)
    return f'<div class="wide"><table><thead><tr>{columns}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _text(cell: Any, digits: int) -> str:
    if pd.isna(cell.mean):
        return "–"
    return Interval(cell.mean, None if pd.isna(cell.half) else cell.half).told(digits)


def _columns(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Title, unit and definition of every column."""
    known = table.drop_duplicates("metric")
    return list(known[["metric_title", "unit", "definition"]].itertuples(index=False, name=None))


def _failures(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(row["title"], row["note"]) for row in document["rows"] if row["note"]]


def _listed(title: str, items: Sequence[str]) -> str:
    points = "".join(f"<li>{html.escape(one)}</li>" for one in items)
    return f"<h2>{html.escape(title)}</h2><ul>{points}</ul>"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(one.replace('|', '&#124;') for one in cells)} |"
