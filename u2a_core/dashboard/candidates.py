"""The bundle's negative examples, read once for all tabs; nobody may change them."""

import numpy as np
import pandas as pd
import streamlit as st

from u2a_core.bundle import Bundle
from u2a_core.data.pairs import transcript
from u2a_core.data.table import Example
from u2a_core.store.scores import Scores

COLUMNS = ("delta_pa", "category", "prompt", "response")


@st.cache_resource(
    max_entries=4,
    show_spinner="Reading the data …",
    hash_funcs={Bundle: lambda bundle: [bundle.reference, bundle.data_hash]},
)
def candidates(bundle: Bundle) -> tuple[Example, ...]:
    """Every candidate for unlearning; raises `BundleError` where the data cannot be read."""
    return bundle.pairs.forget


def known_examples(bundle: Bundle, scores: Scores | None) -> pd.DataFrame:
    """`COLUMNS` of every candidate by its id: from the scores, which are read anyway, or without ΔPA from the data.

    ΔPA in nats per pair, for ω = 1 among all candidates; > 0: unlearning helps.
    """
    if scores is not None:
        return scores.table.set_index("id")[list(COLUMNS)]
    rows = [(np.nan, one.category, transcript(one.prompt), one.response) for one in candidates(bundle)]
    return pd.DataFrame(rows, [one.id for one in candidates(bundle)], COLUMNS)
