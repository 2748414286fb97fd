"""Influence map: Figure 1, what is chosen in it, and what becomes of that."""

import streamlit as st

from u2a_core.dashboard.curation import watch
from u2a_core.dashboard.filters import by_number, filter_controls, shown
from u2a_core.dashboard.influence_view import HEIGHT, estimator_told, influence_map, look, paper_figure
from u2a_core.dashboard.inspector import inspector
from u2a_core.dashboard.selection import MODES, focus, selection
from u2a_core.dashboard.slices import slice_choice
from u2a_core.dashboard.studio import chosen_scores
from u2a_core.dashboard.tray import tray
from u2a_core.figures.influence import HOW_TO_READ

st.title("Influence map", help=HOW_TO_READ)
scores = chosen_scores()
if scores is not None:
    watch()
    told = st.empty()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        mode = st.segmented_control(
            "A lasso or box does", MODES, default="Replace", key="map_mode", bind="query-params", required=True
        )
        with st.popover("Drawing"):
            options, paper = look()
        with st.popover("Preference pairs"):
            scores = slice_choice(scores)
        with st.popover("Filters"):
            now = shown(scores, filter_controls(scores.table))
        with st.popover("Select by number"):
            by_number(now.scores.table, mode)
    told.text(estimator_told(scores))
    left, right = st.columns([7, 3])
    with left:
        if paper:
            paper_figure(now, options)
        else:
            influence_map(now, options, mode)
    with right, st.container(border=True, height=HEIGHT):
        st.text(f"{len(selection().ids):,} selected: see the tray below")
        st.subheader("In focus", anchor=False)
        inspector(scores, focus())
    tray(now.scores.table)
