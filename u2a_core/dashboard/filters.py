"""Controls that say which samples are shown, and that select samples by number; both are kept in the address."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from u2a_core.dashboard.selection import choose
from u2a_core.dashboard.showing import plain
from u2a_core.figures.choosing import (
    MEASURES,
    SIDES,
    Filters,
    Mask,
    Range,
    Side,
    beyond,
    kept,
    measure,
    numbers,
    present_categories,
)
from u2a_core.figures.excerpt import signed
from u2a_core.figures.polar import Hashes, stable_hashes
from u2a_core.store.scores import Scores

# What pages show of a row; the lists a token stay behind when rows are filtered.
SHOWN_COLUMNS = [
    "id", "delta_pa", "nll", "n_tokens", "reward", "low_reward_proportion", "prompt", "response", "category",
    "severity", "chosen_score", "rejected_score", "source", "tags", "truncated",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Shown:
    """The scores that a page shows: the rows that the filters let through, their hashes, and all of them.

    While it lies in the cache, no other scores have the identity of `whole`.
    """

    scores: Scores
    hashes: Hashes
    whole: Scores


def filter_controls(table: pd.DataFrame) -> Filters:
    """Controls for the filters that the data have values for; what the data lack is said."""
    text = st.text_input("Search in prompts, responses and ids", key="map_find", bind="query-params")
    labels: dict[str, list[str]] = {}
    for name in present_categories(table):
        labels.setdefault(plain(name, 60), []).append(name)
    chosen = st.multiselect(
        "Categories", _within(labels, "map_categories"), key="map_categories", bind="query-params", placeholder="All"
    )
    low_reward = _range("Low-reward proportion", numbers(table, "low_reward_proportion"), "map_low_reward", (0.0, 1.0))
    length = _range("Length, response tokens", numbers(table, "n_tokens"), "map_length")
    severity = _range("Severity", numbers(table, "severity"), "map_severity")
    words = text.strip().encode("utf-8", "replace").decode()  # Arrow refuses halves of surrogate pairs
    lacking = [
        name
        for name, column in (("low-reward proportion", "low_reward_proportion"), ("severity", "severity"))
        if table[column].isna().all()
    ]
    if lacking:
        st.caption(f"These scores hold no {' and no '.join(lacking)}.")
    return Filters(tuple(name for one in chosen for name in labels[one]), severity, length, low_reward, words)


def shown(scores: Scores, filters: Filters) -> Shown:
    """What the filters let through; made once for all tabs."""
    return _shown(scores, filters)


def by_number(table: pd.DataFrame, mode: str) -> None:
    """Select what is shown, or what of it lies beyond a threshold or quantile."""
    st.button(
        f"Select all {len(table):,} shown", key="map_select_shown", on_click=_choose,
        args=(table, np.ones(len(table), dtype=bool), "all shown", mode), disabled=table.empty,
    )  # fmt: skip
    present = [name for name, (column, _) in MEASURES.items() if table[column].notna().any()] or ["ΔPA"]
    name = st.selectbox("Value", present, key="map_value", persist_state="session")
    side: Side = st.segmented_control(
        "Take", SIDES, default="highest %", key="map_side", required=True, persist_state="session"
    )
    share = side.endswith("%")
    asked: dict[str, Any] = {"format": "%g", "persist_state": "session"}
    if share:
        amount = st.number_input("Per cent of the samples shown", 0.0, 100.0, 10.0, key="map_share", **asked)
    else:
        amount = st.number_input(MEASURES[name][1], value=0.0, key="map_threshold", **asked)
    values = measure(table, name)
    found = beyond(values, side, float(amount))
    st.text(_told(values, found, share))
    st.button(
        f"{mode}: {found.sum():,} samples", key="map_select_number", type="primary", on_click=_choose,
        args=(table, found, f"{name} {side.removesuffix(' %')} {amount:g}{' %' if share else ''}", mode),
    )  # fmt: skip


def _choose(table: pd.DataFrame, found: Mask, told: str, mode: str) -> None:
    choose(table["id"][found].tolist(), told, mode)


def _told(values: np.ndarray, found: Mask, share: bool) -> str:
    """Where the samples that would be selected begin and end."""
    if not found.any():
        return "No sample lies there."
    ends = f"from {signed(float(values[found].min()))} to {signed(float(values[found].max()))}"
    return f"{found.sum():,} of {len(found):,} samples, {ends}" + ("; ties are all in" if share else "")


def _range(label: str, values: np.ndarray, key: str, ends: Range | None = None) -> Range | None:
    """A slider over the values; None where it lets all through, or where there is nothing to choose."""
    present = values[~np.isnan(values)]
    if not len(present):
        return None
    low, high = ends or (math.floor(present.min()), math.ceil(present.max()))
    if low == high:
        return None
    whole = ends is None and high - low > 10
    kind: Callable[[float], float] = int if whole else float
    limits = (kind(low), kind(high))
    old = st.session_state.get(key)
    if old is not None and not limits[0] <= old[0] <= old[1] <= limits[1]:
        st.session_state.pop(key)
    step = 1 if whole else (high - low) / 100
    found = st.slider(label, *limits, limits, step=step, key=key, bind="query-params")
    return None if found == limits else (float(found[0]), float(found[1]))


def _within(labels: dict[str, list[str]], key: str) -> list[str]:
    """The options, after what other data left behind is forgotten."""
    old = st.session_state.get(key)
    if old is not None and not set(old) <= set(labels):
        st.session_state[key] = [one for one in old if one in labels]
    return list(labels)


@st.cache_resource(max_entries=4, show_spinner=False, hash_funcs={Scores: id})
def _hashes(scores: Scores) -> tuple[Hashes, Scores]:
    return stable_hashes(scores.table["id"].to_numpy(dtype=object)), scores


@st.cache_resource(max_entries=8, show_spinner=False, hash_funcs={Scores: id})
def _shown(scores: Scores, filters: Filters) -> Shown:
    hashes = _hashes(scores)[0]
    if not filters.active:
        return Shown(scores, hashes, scores)
    mask = kept(scores.table, filters)
    table = scores.table[SHOWN_COLUMNS][mask].reset_index(drop=True)
    return Shown(Scores(table, scores.metadata), hashes[mask], scores)
