"""The frame of the studio, started by `u2a serve`: navigation, what is chosen, and the page."""

import streamlit as st

from u2a_core.dashboard.frame import close, frame, navigation

st.set_page_config(page_title="U2A Studio", layout="wide")
page = navigation()
frame()
page.run()
close()
