"""Page Compare, all methods: the headline table that `u2a compare` made, as a figure, a table, and in words."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from u2a_core.dashboard.jobs import start_button
from u2a_core.dashboard.showing import chart, exports, plain, shown_rows
from u2a_core.dashboard.studio import studio, theme
from u2a_core.errors import U2AError
from u2a_core.figures.pareto import HOW_TO_READ, front, pareto_figure, pareto_points
from u2a_core.store.comparison import Comparison, comparison_names, read_comparison

# of the many columns, those that a reader looks at first
FIRST = (
    "alignment", "accuracy", "win_rate", "attack_success", "forget_nll", "extraction", "retain_nll", "retain_kl",
    "auc_min_k", "privleak", "undone_relearned", "undone_rounded", "seconds", "cost", "cost_search", "work",
)  # fmt: skip


def headline_part() -> None:
    """One finished comparison, or the offer to make one."""
    names = comparison_names(studio().bundle)
    if not names:
        st.info(
            "No comparison of all methods was made yet. It unlearns with every objective, uniformly and with the "
            "weights of U2A, trains the baselines, and measures all of them: many runs, so it takes long."
        )
        _offer("default")
        return
    if st.session_state.get("compare_table") not in names:
        st.session_state.pop("compare_table", None)
    name = st.selectbox("Comparison", names, key="compare_table", bind="query-params") or names[0]
    try:
        found = read_comparison(studio().bundle, name)
    except U2AError as error:
        st.info("This comparison cannot be shown.")
        st.text(plain(str(error)))
        _offer(name)
        return
    points = pareto_points(found)
    best = ", ".join(one.title for one in front(points))
    told = (
        f"J gain against the rise of the retain NLL of {len(points)} methods. Not beaten in both: {plain(best, 600)}."
    )
    chart(pareto_figure(points, studio().palette, theme()), f"pareto-{name}", told, key=f"pareto {name}")
    st.caption(HOW_TO_READ)
    st.text("\n".join([*_lines(found, "claims"), plain(str(found.document["hardware"]), 600), *_lines(found, "notes")]))
    st.code(plain(str(found.document["command"]), 2000), language="bash", wrap_lines=True)
    shown = readable(found.table)
    st.dataframe(shown_rows(shown), hide_index=True)
    st.caption("Mean over the seeds ± half of its 95 % interval. The definition of each column is in the saved table.")
    exports(found.table, f"comparison-{name}")


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A row a method and a column a metric of `FIRST` that there is: mean ± half interval as text, – where there is no
    value.
    """
    titles = dict(zip(table["metric"], table["metric_title"], strict=True))
    metrics = [one for one in FIRST if one in titles]
    rows = []
    for _, members in table.groupby("row", sort=False):
        by_metric = {one["metric"]: one for one in members.to_dict("records")}
        cells = {titles[one]: _cell(by_metric[one]) if one in by_metric else "–" for one in metrics}
        rows.append({"method": str(members["title"].iloc[0]), **cells})
    return pd.DataFrame(rows)


def _cell(row: dict[object, object]) -> str:
    mean, half = (None if pd.isna(row[name]) else float(row[name]) for name in ("mean", "half"))  # type: ignore[call-overload, arg-type]
    if mean is None:
        return "–"
    return f"{mean:.3g}" if half is None else f"{mean:.3g} ± {half:.2g}"


def _lines(found: Comparison, key: str) -> Sequence[str]:
    return [plain(str(one), 600) for one in found.document[key]]


def _offer(name: str) -> None:
    argv = ["compare", studio().bundle.reference, "--name", name]
    start_button("Compare all methods", argv, f"Compare all methods on {studio().bundle.name}", "compare all")
