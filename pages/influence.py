"""Figure 1 in the browser."""

import streamlit as st

from u2a_core.dashboard.showing import chart
from u2a_core.dashboard.studio import chosen_scores, theme
from u2a_core.figures.influence import HOW_TO_READ, InfluenceOptions, influence_figure
from u2a_core.figures.palette import PaletteName
from u2a_core.figures.polar import RadiusMode

st.title("Influence of negative examples")
st.text(HOW_TO_READ)
left, right = st.columns(2)
radii: list[RadiusMode] = ["linear", "signed-log", "rank"]
palettes: list[PaletteName] = ["paper", "okabe-ito"]
radius = left.segmented_control("Radius", radii, default="linear") or "linear"
palette = right.segmented_control("Colours", palettes, default="paper") or "paper"
scores = chosen_scores()
if scores is not None:
    chart(
        influence_figure(scores, InfluenceOptions(radius, palette, theme(), distribution=True)),
        "influence",
        "Influence scatter",
    )
    columns = ["id", "delta_pa", "low_reward_proportion", "nll", "n_tokens", "category", "prompt", "response"]
    st.dataframe(scores.table.sort_values("delta_pa", ascending=False)[columns], hide_index=True)
    st.caption("ΔPA (delta_pa) in nats per pair; above 0, unlearning the example helps. nll in nats per token.")
