"""Figure 2 in the browser: low-reward tokens against ΔPA, by groups that open their samples."""

import streamlit as st

from u2a_core.dashboard.low_reward_view import figure_2, has_rewards, options
from u2a_core.dashboard.sample_view import selected_samples
from u2a_core.dashboard.studio import chosen_scores
from u2a_core.figures.low_reward import HOW_TO_READ

st.title("Low-reward tokens")
st.caption(HOW_TO_READ)
scores = chosen_scores()
if scores is not None and has_rewards(scores):
    figure_2(scores, options(scores))
    st.subheader("Selected samples")
    selected_samples(scores, "No sample is selected. Click a group in the figure to open its samples here.")
