"""Two policies against each other: numbers, distributions, samples, answers, and predicted against realised ΔPA."""

import streamlit as st

from u2a_core.dashboard.answers_view import answers_side_by_side
from u2a_core.dashboard.compare_samples import distributions_part, samples_part
from u2a_core.dashboard.compare_view import chosen_sides, compared_sides, metrics_part, prediction_part

PARTS = ["Metrics", "Distributions", "Samples", "Answers", "Predicted ΔPA"]

st.title("Compare")
sides = chosen_sides()
if sides is not None:
    part = st.segmented_control(
        "Show", PARTS, key="compare_part", bind="query-params", default=PARTS[0], required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    if part == "Answers":
        answers_side_by_side(*sides)
    else:
        both = compared_sides(*sides)
        if both is not None and part == "Metrics":
            metrics_part(both)
        elif both is not None and part == "Distributions":
            distributions_part(both)
        elif both is not None and part == "Samples":
            samples_part(both)
        elif both is not None:
            prediction_part(both)
