"""Figure 2 in the browser."""

import streamlit as st

from u2a_core.dashboard.showing import chart
from u2a_core.dashboard.studio import chosen_scores, theme
from u2a_core.figures.low_reward import HOW_TO_READ, LowRewardOptions, low_reward_figure
from u2a_core.figures.statistics import Grouping

st.title("Low-reward tokens")
st.text(HOW_TO_READ)
left, middle, right = st.columns(3)
group_size = int(left.number_input("Samples a group", min_value=1, value=64))
groupings: list[Grouping] = ["proportion", "random", "category"]
by = middle.segmented_control("Groups by", groupings, default="proportion") or "proportion"
quantile = float(right.slider("τ as a quantile of all token rewards", 0.05, 0.95, 0.25, 0.05))
scores = chosen_scores()
if scores is not None and scores.metadata["low_reward_threshold"] is None:
    st.info("These scores hold no token rewards. Run `u2a reward BUNDLE --train`, then `u2a score BUNDLE --restart`.")
elif scores is not None:
    chart(
        low_reward_figure(scores, LowRewardOptions(quantile=quantile, group_size=group_size, by=by, theme=theme())),
        "low-reward",
        "Groups",
    )
