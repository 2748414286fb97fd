"""Figures of the paper: (table, options) -> plotly Figure; no torch, no streamlit."""
