"""Forget set."""

import streamlit as st

st.title("Forget set")
