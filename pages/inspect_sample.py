"""One sample: its texts, its tokens coloured by ΔPA and by reward, why a reward is low, and what is like it."""

import streamlit as st

from u2a_core.dashboard.answers_view import answers_for
from u2a_core.dashboard.curation import watch
from u2a_core.dashboard.sample_view import curation_buttons, facts, sample, similar_samples, texts, walked
from u2a_core.dashboard.studio import chosen_scores
from u2a_core.dashboard.token_view import explained, rejected_response, token_values

st.title("Inspect")
scores = chosen_scores()
number = None if scores is None else walked(scores)
if scores is not None and number is not None:
    row = sample(scores, number)
    facts(row)
    curation_buttons(row["id"])
    texts(row)
    rejected_response(scores, row)
    names = ["Why this reward", "Values by token", "Most similar", "What it would answer"]
    why, values, similar, answers = st.tabs(names, key="inspect-tab", bind="query-params")
    if why.open:
        with why:
            explained(row)
    if values.open:
        with values:
            token_values(scores, row)
    if similar.open:
        with similar:
            similar_samples(scores, row["id"])
    if answers.open:
        with answers:
            answers_for(row["prompt"])
    watch()
