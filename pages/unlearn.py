"""Unlearn."""

import streamlit as st

st.title("Unlearn")
