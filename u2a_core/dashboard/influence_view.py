"""Figure 1 on its page: how it is drawn, and what lassos, boxes and clicks in it choose.

The figure is made once for all tabs, and its spec stays the same while the user draws lassos over it: what a gesture
selects, the browser itself shows. Only when the selection was changed elsewhere, or the figure is another one anyway,
it is drawn anew with the selection marked in it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from u2a_core.dashboard.filters import Shown
from u2a_core.dashboard.selection import choose, selection, set_focus
from u2a_core.dashboard.showing import chart
from u2a_core.dashboard.slices import told_slice
from u2a_core.dashboard.studio import studio, theme
from u2a_core.figures.choosing import within
from u2a_core.figures.colouring import COLOUR_MODES
from u2a_core.figures.influence import InfluenceOptions, influence_figure, paper_influence_figure, with_selected
from u2a_core.figures.palette import SIGN_HELP
from u2a_core.figures.polar import RADIUS_MODES, Places, places
from u2a_core.store.scores import Scores
from u2a_core.store.selections import Selection

MAP, DRAWN = "influence_map", "influence map drawn"
HEIGHT = 580  # pixels
MOST_POINTS = 5_000  # drawn in the studio: what a browser without a graphics card lassos at once
ESTIMATORS = {
    "first_order": "first order: the gradient at θ0, H = λI",
    "implicit": "implicit gradient at θ0, H = λI + α·GGN of the retain KL",
    "unrolled": "unrolled: the exact derivative through the unlearning run",
    "realised": "realised: each example really left out and J measured",
}
# In lasso and box mode Streamlit hears no clicks; Plotly does. The listener is renewed when the plot is.
CLICKS = """
export default function ({ setTriggerValue }) {
  let heard = null;
  const timer = setInterval(() => {
    const plot = document.querySelector('.st-key-influence_map .js-plotly-plot');
    if (!plot || plot === heard || !plot.on) { return; }
    heard = plot;
    plot.on('plotly_click', (event) => {
      const id = event.points?.[0]?.customdata;
      if (typeof id === 'string') { setTriggerValue('clicked', id); }
    });
  }, 200);
  return () => clearInterval(timer);
}
"""


@dataclass(frozen=True)
class _Drawn:
    """Which figure the tab shows: the `turn`-th one, with `marked` marked in it; `seen` is the selection after the
    last gesture in it.
    """

    turn: int
    base: go.Figure
    marked: Selection
    seen: Selection


def look() -> tuple[InfluenceOptions, bool]:
    """Controls for how the figure is drawn; its options, and whether it is the one for print."""
    bound: Any = {"bind": "query-params", "required": True}
    radius = st.segmented_control(
        "Distance from the centre", RADIUS_MODES, default="linear", key="map_radius", **bound,
        help="linear: |ΔPA|, as in the paper; signed-log: log(1 + |ΔPA| / median); rank: the rank of |ΔPA|.",
    )  # fmt: skip
    colour = st.segmented_control(
        "Colour", COLOUR_MODES, default="sign", key="map_colour", **bound,
        help="The shape always shows the sign: a circle helps, a diamond hurts.",
    )  # fmt: skip
    labels = st.slider("Ids written beside the largest |ΔPA|", 0, 20, 0, key="map_labels", bind="query-params")
    histogram = st.toggle("Histogram of ΔPA", key="map_histogram", bind="query-params")
    paper = st.toggle(
        "Paper style, for export", key="map_paper", bind="query-params",
        help="Real polar axes as in print. Lasso and box work in the other drawing only.",
    )  # fmt: skip
    options = InfluenceOptions(radius, colour, studio().palette, theme(), histogram, labels, MOST_POINTS)
    return options, paper


def estimator_told(scores: Scores) -> str:
    """What ΔPA is here: estimator, objective, and whether it is live."""
    live = told_slice(scores)
    if live:
        return f"ΔPA on this page is live, to first order: {live}. Trust above is about the scores as stored."
    name = str(scores.metadata["estimator"])
    return f"Estimator: {ESTIMATORS.get(name, name)}. Objective: {scores.metadata['objective']}."


def influence_map(shown: Shown, options: InfluenceOptions, mode: str) -> None:
    """The figure; a lasso or box chooses rows by `mode`, drawn or thinned out, and a click sets the focus."""
    base = _figure(shown, options)[0]
    drawn = _drawn(base)
    figure = _with_selected(base, drawn.marked)[0]
    key = f"influence_map_{drawn.turn}"
    spots = _places(shown, options.radius)[0]
    with st.container(key=MAP):
        chart(figure, "influence", _alt(shown), key=key, on_select=partial(_gesture, key, shown, spots, mode))
        _clicks()(key="influence_clicks", on_clicked_change=_clicked)
    if drawn.seen != drawn.marked and drawn.seen.ids:
        st.button(
            "Mark the whole selection in the figure", key="map_mark", on_click=_mark_anew,
            help="After Add, Remove or Intersect the figure shows only the last lasso. This draws it anew.",
        )  # fmt: skip


def paper_figure(shown: Shown, options: InfluenceOptions) -> None:
    """The figure for print."""
    chart(_paper(shown, options)[0], "influence-paper", _alt(shown))
    st.caption("Lasso, box and click work in the other drawing: switch off 'Paper style' in 'Drawing'.")


def _drawn(base: go.Figure) -> _Drawn:
    """What this tab shows now: as before, unless figure or selection changed elsewhere."""
    old, now = st.session_state.get(DRAWN), selection()
    if isinstance(old, _Drawn) and old.base is base and old.seen == now:
        return old
    found = _Drawn(old.turn + 1 if old else 0, base, now, now)
    st.session_state[DRAWN] = found
    return found


def _gesture(key: str, shown: Shown, spots: Places, mode: str) -> None:
    """What was drawn over the figure: shapes choose, a point alone comes into focus, a double click clears."""
    event = st.session_state[key].selection
    shapes = [*event.box, *event.lasso]
    if shapes:
        table = shown.scores.table
        chosen = within(shapes, spots, table["delta_pa"].to_numpy())
        choose(table["id"][chosen].tolist(), "lasso" if event.lasso else "box", mode)
    elif event.points:
        set_focus(str(event.points[0]["customdata"]))
    elif mode == "Replace":
        choose((), "")
    st.session_state[DRAWN] = replace(st.session_state[DRAWN], seen=selection())


def _clicked() -> None:
    found = st.session_state["influence_clicks"].clicked
    if found:
        set_focus(str(found))


def _mark_anew() -> None:
    old = st.session_state[DRAWN]
    st.session_state[DRAWN] = replace(old, turn=old.turn + 1, marked=old.seen)


def _alt(shown: Shown) -> str:
    delta = shown.scores.table["delta_pa"]
    helps, hurts = int((delta > 0).sum()), int((delta < 0).sum())
    return (
        f"Influence scatter of {len(delta):,} negative examples: {helps:,} help when unlearned, {hurts:,} hurt. "
        f"{SIGN_HELP}. The same rows can be selected by number and read in the table below."
    )


@st.cache_resource(show_spinner=False)
def _clicks() -> Callable[..., Any]:
    return st.components.v2.component("influence_clicks", js=CLICKS)


# What lies in these caches holds what it was made of, so that no other object can take over its identity.


@st.cache_resource(max_entries=12, show_spinner=False, hash_funcs={Shown: id})
def _places(shown: Shown, radius: Any) -> tuple[Places, Shown]:
    return places(shown.scores.table, radius, shown.hashes), shown


@st.cache_resource(max_entries=12, show_spinner=False, hash_funcs={Shown: id})
def _figure(shown: Shown, options: InfluenceOptions) -> tuple[go.Figure, Shown]:
    figure = influence_figure(shown.scores, options, shown.hashes)
    return figure.update_layout(height=HEIGHT, modebar={"orientation": "v"}), shown


@st.cache_resource(max_entries=4, show_spinner=False, hash_funcs={Shown: id})
def _paper(shown: Shown, options: InfluenceOptions) -> tuple[go.Figure, Shown]:
    return paper_influence_figure(shown.scores, options), shown


@st.cache_resource(max_entries=12, show_spinner=False, hash_funcs={go.Figure: id, Selection: lambda one: one.key})
def _with_selected(base: go.Figure, marked: Selection) -> tuple[go.Figure, go.Figure]:
    return with_selected(base, set(marked.ids)), base
