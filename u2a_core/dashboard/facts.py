"""What a page needs to know of a bundle's pairs, counted once for all tabs."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import streamlit as st

from u2a_core.bundle import Bundle


@dataclass(frozen=True)
class Facts:
    """Numbers of examples or pairs by split, and of candidates by category ("" for none), the largest first."""

    sizes: Mapping[str, int]
    categories: Mapping[str, int]


@st.cache_resource(
    max_entries=8, show_spinner="Counting …", hash_funcs={Bundle: lambda bundle: [bundle.reference, bundle.data_hash]}
)
def facts(bundle: Bundle) -> Facts:
    """The facts of a bundle; raises `BundleError` where its pairs cannot be read."""
    counts = Counter(one.category or "" for one in bundle.pairs.forget)
    return Facts(bundle.pairs.sizes(), dict(sorted(counts.items(), key=lambda one: (-one[1], one[0]))))
