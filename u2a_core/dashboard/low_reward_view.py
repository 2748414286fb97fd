"""Figure 2 on its page: its settings, the threshold τ by number, quantile or histogram, and the groups to open."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from numpy.typing import NDArray

from u2a_core.dashboard.jobs import start_button
from u2a_core.dashboard.selection import choose
from u2a_core.dashboard.showing import chart, exports, shown_rows
from u2a_core.dashboard.studio import studio, theme
from u2a_core.figures.low_reward import DEFAULT_QUANTILE, LowRewardOptions, low_reward_cut, low_reward_figure
from u2a_core.figures.palette import ink
from u2a_core.figures.reward_histogram import chosen_threshold, reward_histogram
from u2a_core.figures.statistics import Grouping, low_reward_groups
from u2a_core.store.scores import Scores

TAU, QUANTILE, SIZE, GROUPING = "tau", "tau-quantile", "group-size", "groups-by"
FIGURE, HISTOGRAM, TABLE = "figure 2", "reward histogram", "groups of figure 2"
GROUPINGS: list[Grouping] = ["proportion", "random", "category"]
SAID = 3  # numbers of groups named in the selection's source
FIGURE_HEIGHT = 600


def has_rewards(scores: Scores) -> bool:
    """Whether there are token rewards; where not, the page says why and what to do."""
    if len(pooled_rewards(scores)):
        return True
    now = studio()
    st.info("These scores hold no token rewards, so there are no low-reward tokens to count.")
    if now.bundle.reward is None:
        st.text("Give the bundle a token reward model, then score it again on the page Home.")
        argv = ["reward", now.bundle.reference, "--train"]
        start_button("Train a reward model", argv, "Train a reward model", "train reward", now.bundle.read_only)
    else:
        st.text("The bundle has a reward model by now. Score it again on the page Home.")
    return False


def options(scores: Scores) -> LowRewardOptions:
    """Group size, grouping and τ as set on the page; drawn with the histogram of token rewards beside them."""
    left, right = st.columns([2, 3], gap="medium")
    with left:
        size, by = _grouping()
        threshold, quantile = _threshold(scores)
    now = studio()
    found = LowRewardOptions(threshold, quantile, size, by, palette=now.palette, theme=theme())
    with right:
        rewards, cut = pooled_rewards(scores), low_reward_cut(scores, found)[0]
        chart(
            reward_histogram(rewards, cut, ink(now.palette, theme())),
            "token-rewards",
            f"Histogram of {len(rewards):,} token rewards; {(rewards < cut).mean():.1%} lie below τ = {cut:.4g}.",
            key=HISTOGRAM,
            on_select=_take_threshold,
        )
        st.caption("Click a bar, or draw a box: τ goes to its right end.")
    return found


def figure_2(scores: Scores, asked: LowRewardOptions) -> None:
    """The figure, whose marks open their samples, and its groups as a table, whose rows do so too."""
    _, groups, figure = _drawn(scores, asked)
    chart(
        figure,
        "low-reward",
        f"Mean ΔPA of {len(groups)} groups against their proportion of low-reward tokens, with a trend line. The "
        "groups are in the table below.",
        key=FIGURE,
        on_select=partial(_open_marks, groups),
    )
    st.caption("Click a mark, or draw a box or a lasso around several, to open their samples below.")
    with st.expander(f"The {len(groups)} groups as a table"):
        shown = groups.drop(columns="ids")
        st.dataframe(
            shown_rows(shown),
            hide_index=True,
            key=TABLE,
            on_select=partial(_open_rows, groups),
            selection_mode="multi-row",
            alt="Groups of Figure 2",
        )
        st.caption("ΔPA (delta_pa) and its standard error in nats per pair, mean of the members; above 0: it helps.")
        exports(shown, "low-reward-groups")


@st.cache_resource(max_entries=4, show_spinner=False, hash_funcs={Scores: lambda scores: id(scores.table)})
def _pooled(scores: Scores) -> tuple[Scores, NDArray[np.float64]]:
    rows = [np.asarray(one, dtype=np.float64) for one in scores.table["token_rewards"].dropna()]
    return scores, np.concatenate([np.empty(0), *rows])  # the scores live as long as the entry: their id is not reused


def pooled_rewards(scores: Scores) -> NDArray[np.float64]:
    """All token rewards of all candidates, one after the other; empty where there are none. Nobody may change them."""
    return _pooled(scores)[1]


@st.cache_resource(max_entries=16, show_spinner="Drawing …", hash_funcs={Scores: lambda scores: id(scores.table)})
def _drawn(scores: Scores, asked: LowRewardOptions) -> tuple[Scores, pd.DataFrame, go.Figure]:
    cut = low_reward_cut(scores, asked)[0]
    groups = low_reward_groups(scores.table, cut, asked.group_size, asked.by, asked.seed)
    return scores, groups, low_reward_figure(scores, asked).update_layout(height=FIGURE_HEIGHT)


def _grouping() -> tuple[int, Grouping]:
    size = st.number_input("Samples a group", 1, value=64, key=SIZE, bind="query-params", persist_state="session")
    by: Grouping = st.segmented_control(
        "Groups by", GROUPINGS, default="proportion", key=GROUPING, bind="query-params", persist_state="session",
        required=True,
        help="proportion: samples sorted by their low-reward proportion; random: shuffled; category: the data's own.",
    )  # fmt: skip
    return int(size), by


def _threshold(scores: Scores) -> tuple[float | None, float | None]:
    """τ as a number, or as a quantile, each following the other; both None: as recorded with the scores."""
    rewards = pooled_rewards(scores)
    recorded = _tidy(low_reward_cut(scores, LowRewardOptions())[0])
    _begin_at(recorded)
    tau = float(
        st.number_input(
            "Threshold τ (a token is low below it)", step=_tidy((float(np.ptp(rewards)) or 1.0) / 200, 1),
            format="%.6g", key=TAU, bind="query-params", persist_state="session", help="In the reward model's units.",
        )
    )  # fmt: skip
    share = float((rewards < tau).mean())
    now = st.session_state.get(QUANTILE, DEFAULT_QUANTILE)
    if _tidy(float(np.quantile(rewards, now))) != tau:
        now = st.session_state[QUANTILE] = min(0.99, max(0.01, round(share, 2)))
    else:
        st.session_state[QUANTILE] = now
    st.slider(
        "τ as a quantile of all token rewards", 0.01, 0.99, step=0.01, key=QUANTILE, on_change=_take_quantile,
        args=(rewards,),
    )  # fmt: skip
    if tau == recorded:
        return None, None
    return (None, now) if _tidy(float(np.quantile(rewards, now))) == tau else (tau, None)


def _begin_at(recorded: float) -> None:
    """Begin with the recorded τ, or that of the address; and again where other scores are shown: a reward has the
    units of its model.
    """
    what = (studio().bundle.reference, studio().scores_name, recorded)
    before = st.session_state.get("tau of")
    st.session_state["tau of"] = what
    if before != what and not (before is None and TAU in st.query_params):
        st.session_state[TAU] = recorded


def _tidy(value: float, digits: int = 6) -> float:
    """Rounded to what the address and the box show."""
    return float(f"{value:.{digits}g}")


def _take_quantile(rewards: NDArray[np.float64]) -> None:
    st.session_state[TAU] = _tidy(float(np.quantile(rewards, st.session_state[QUANTILE])))


def _take_threshold() -> None:
    chosen = st.session_state[HISTOGRAM].selection
    tau = chosen_threshold(chosen.get("points", []), chosen.get("box", []))
    if tau is not None:
        st.session_state[TAU] = _tidy(tau)


def _open_marks(groups: pd.DataFrame) -> None:
    points = st.session_state[FIGURE].selection.get("points", [])
    _open(groups, [int(np.ravel(one["customdata"])[0]) for one in points if "customdata" in one])


def _open_rows(groups: pd.DataFrame) -> None:
    rows = st.session_state[TABLE].selection.get("rows", [])
    _open(groups, groups["group"].iloc[rows].tolist())


def _open(groups: pd.DataFrame, numbers: Sequence[int]) -> None:
    """Select the samples of some groups; no group (a click beside them) leaves the selection as it is."""
    chosen = sorted(set(numbers))
    if not chosen:
        return
    ids = [one for members in groups.loc[groups["group"].isin(chosen), "ids"] for one in members]
    named = f"groups {', '.join(map(str, chosen))}" if len(chosen) <= SAID else f"{len(chosen)} groups"
    choose(ids, f"{named if len(chosen) > 1 else f'group {chosen[0]}'} of Figure 2")
