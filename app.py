"""The frame of the studio: which bundle, which page. Started by `u2a serve BUNDLE`."""

import sys

import streamlit as st

from u2a_core.dashboard.bundle_view import scores_choice

st.set_page_config(page_title="U2A Studio", layout="wide")
page = st.navigation(
    [
        st.Page("pages/influence.py", title="Influence map", default=True),
        st.Page("pages/low_reward.py", title="Low-reward tokens"),
    ]
)
scores_choice(sys.argv[1:])
page.run()
