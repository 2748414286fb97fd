"""Figure 2: the share of low-reward tokens in groups of negative examples against the ΔPA of the group.

x: low tokens / tokens of the group (low: reward < τ) · y: mean ΔPA of its members in nats per pair, bar: ± one standard
error · square: low-proportion half of the groups (the middle one too), circle: high half · blue: ΔPA > 0, unlearning
helps; red: < 0, it hurts.
"""

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from u2a_core.evaluation.correlation import Correlation, spearman
from u2a_core.figures.excerpt import hover_text, short_id, signed
from u2a_core.figures.palette import SIGN_HELP, Ink, PaletteName, ThemeName, empty_figure, frame, headline, ink, note
from u2a_core.figures.statistics import Grouping, low_reward_groups, low_token_counts, reward_threshold
from u2a_core.store.scores import Scores

HOW_TO_READ = (
    "Each mark is a group of negative examples. To the right, more of the group's tokens have a low reward; upwards, "
    "unlearning a member of the group helps preference alignment more on average (ΔPA above 0), downwards it hurts. "
    "Averaging hides the spread of single samples, so groups may correlate more strongly than samples; both are given."
)
IDS_IN_HOVER = 5
DEFAULT_QUANTILE = 0.25
BOOTSTRAP_WORK = 8_000_000  # pairs drawn in all resamples together: about one second
FEW_PAIRS = 10  # below, resamples repeat the same few pairs and the interval comes out too narrow


@dataclass(frozen=True)
class LowRewardOptions:
    """How Figure 2 is made.

    τ is `threshold` (absolute), else the `quantile` of the pooled token rewards, else what the scores were made with,
    else their quantile 0.25.
    """

    threshold: float | None = None
    quantile: float | None = None
    group_size: int = 64
    by: Grouping = "proportion"
    seed: int = 0
    resamples: int = 2000
    palette: PaletteName = "paper"
    theme: ThemeName = "light"


def low_reward_figure(scores: Scores, options: LowRewardOptions | None = None) -> go.Figure:
    """Figure 2; `customdata` is the group's number. Where it cannot be drawn, the figure says why and what to do."""
    options = options or LowRewardOptions()
    colours, table = ink(options.palette, options.theme), scores.table
    if not table["token_rewards"].notna().any():
        what = "These scores have no token rewards" if len(table) else "There is no negative example to draw"
        return empty_figure(
            what, "Score a bundle that has a reward model and a forget split that is not empty.", colours
        )
    threshold, origin = low_reward_cut(scores, options)
    groups = low_reward_groups(table, threshold, options.group_size, options.by, options.seed)
    if len(groups) < 2:
        return _too_few_groups(groups, options, colours)
    samples = low_token_counts(table, threshold)
    figure = go.Figure(layout=_layout(scores, groups, samples, (threshold, origin), options, colours))
    figure.add_trace(_trend(groups, colours))
    for trace in _group_traces(groups, colours):
        figure.add_trace(trace)
    return figure


def low_reward_cut(scores: Scores, options: LowRewardOptions) -> tuple[float, str]:
    """τ and where it comes from, in words; see `LowRewardOptions`."""
    if options.threshold is not None:
        return options.threshold, "absolute"
    recorded = scores.metadata.get("low_reward_threshold")
    if options.quantile is None and recorded is not None:
        return float(recorded), "recorded with the scores"
    quantile = DEFAULT_QUANTILE if options.quantile is None else options.quantile
    return reward_threshold(scores.table, quantile), f"the {quantile:.4g} quantile of all token rewards"


def _too_few_groups(groups: pd.DataFrame, options: LowRewardOptions, colours: Ink) -> go.Figure:
    n = int(groups["size"].sum())
    if options.by == "category":
        return empty_figure("All samples have one category", "Group by proportion instead.", colours)
    remedy = f"Choose a smaller group (--group-size {max(1, n // 8)}), or score more examples."
    return empty_figure(f"Only one group of {options.group_size} fits in {n:,} samples", remedy, colours)


def _group_traces(groups: pd.DataFrame, colours: Ink) -> list[go.Scatter]:
    """One trace a combination of sign and half that occurs."""
    low_half = groups["group"].to_numpy() <= (len(groups) + 1) // 2
    delta = groups["delta_pa"].to_numpy()
    signs = (("helps", delta > 0, colours.helps), ("hurts", delta < 0, colours.hurts))
    no_effect = ("no effect", delta == 0, colours.neutral)
    traces = []
    for half, symbol, members in (("low", "square", low_half), ("high", "circle", ~low_half)):
        for name, of_sign, colour in (*signs, no_effect):
            part = groups[members & of_sign]
            if len(part):
                label = f"{half} half, {name}: {len(part)}"
                traces.append(_group_trace(part, label, symbol, colour, len(groups), colours))
    return traces


def _group_trace(part: pd.DataFrame, label: str, symbol: str, colour: str, total: int, colours: Ink) -> go.Scatter:
    size = 13 if total <= 40 else 8
    marker = {"symbol": symbol, "size": size, "color": colour, "line": {"width": 1.2, "color": colours.paper}}
    bar = {"type": "data", "array": part["standard_error"].to_numpy(), "color": colour, "thickness": 1.4, "width": 4}
    return go.Scatter(
        x=part["proportion"].to_numpy(),
        y=part["delta_pa"].to_numpy(),
        error_y=bar,
        mode="markers",
        name=label,
        marker=marker,
        customdata=part["group"].to_numpy(),
        hovertext=[_hover(row, total) for row in part.to_dict("records")],
        hoverinfo="text",
    )


def _hover(row: dict[Any, Any], total: int) -> str:
    ids = [short_id(name) for name in row["ids"][:IDS_IN_HOVER]]
    more = f" and {row['size'] - len(ids):,} more" if row["size"] > len(ids) else ""
    label = f": {hover_text(row['label'], 60)}" if row["label"] else ""
    error = "" if np.isnan(row["standard_error"]) else f" ± {row['standard_error']:.3g}"
    return "<br>".join(
        [
            f"<b>Group {row['group']} of {total}{label}</b>",
            f"{row['size']:,} samples, {row['proportion']:.1%} of their tokens low-reward",
            f"mean ΔPA {signed(row['delta_pa'])}{error} nats per pair",
            *ids[:-1],
            f"{ids[-1]}{more}",
        ]
    )


def _trend(groups: pd.DataFrame, colours: Ink) -> go.Scatter:
    """Least-squares line through the groups; a guide for the eye, empty where all proportions are equal."""
    x, y = groups["proportion"].to_numpy(), groups["delta_pa"].to_numpy()
    ends = np.array([x.min(), x.max()])
    heights = np.polyval(np.polyfit(x, y, 1), ends) if np.ptp(x) > 0 else np.full(2, np.nan)
    line = {"color": colours.muted, "width": 1.6, "dash": "dash"}
    return go.Scatter(
        x=ends, y=heights, mode="lines", line=line, name="trend (least squares)", legendrank=2000, hoverinfo="skip"
    )


def _layout(
    scores: Scores,
    groups: pd.DataFrame,
    samples: pd.DataFrame,
    cut: tuple[float, str],
    options: LowRewardOptions,
    colours: Ink,
) -> dict[str, Any]:
    """Frame, axes with units, zero line, and the title that carries both correlations."""
    axis = {
        "gridcolor": colours.grid,
        "linecolor": colours.grid,
        "tickcolor": colours.grid,
        "ticks": "outside",
        "zeroline": False,
    }
    small = {"font": {"size": 14}}
    threshold = f"{cut[0]:.4g}".replace("-", "−")
    zero = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "layer": "below"}
    legend = {**frame(colours)["legend"], "orientation": "h", "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom"}
    return {
        **frame(colours),
        "title": headline(_heading(options), _subtitle(scores, groups, samples, options), colours),
        "xaxis": {
            **axis,
            "title": {
                "text": f"low-reward tokens / tokens of the group (low: reward &lt; τ = {threshold}, {cut[1]})",
                **small,
            },
            "tickformat": ".3~%",
        },
        "yaxis": {
            **axis,
            "title": {"text": "ΔPA of the group: mean of its members, nats per pair", "standoff": 14, **small},
            "automargin": True,
            "exponentformat": "power",
            "minexponent": 5,
        },
        "shapes": [{**zero, "line": {"color": colours.muted, "width": 1.4}}],
        "annotations": _side_notes(colours),
        "legend": legend,
        "margin": {"l": 78, "r": 72, "t": 168, "b": 60},
    }


def _side_notes(colours: Ink) -> list[dict[str, Any]]:
    """Which side of the zero line helps, in the margin at the right end of the line."""
    place = {"x": 1, "xanchor": "left", "xshift": 6, "yref": "y", "y": 0}
    up = note("▲ helps", colours, **place, yanchor="bottom", yshift=1)
    down = note("▼ hurts", colours, **place, yanchor="top", yshift=-1)
    return [up, down]


def _heading(options: LowRewardOptions) -> str:
    cut = {"proportion": "groups by proportion", "random": "random groups", "category": "groups by category"}
    return f"Low-reward tokens against influence, {cut[options.by]}"


def _subtitle(scores: Scores, groups: pd.DataFrame, samples: pd.DataFrame, options: LowRewardOptions) -> list[str]:
    """Facts about the scores, and Spearman of groups and of samples, whatever they are."""
    of_groups, of_samples = (_correlation(part, options) for part in (groups, samples))
    size = "" if options.by == "category" else f" of about {options.group_size}"
    facts = [f"{len(samples):,} samples in {len(groups)} groups{size}; bars: ± 1 standard error"]
    facts += [f"{key} {scores.metadata.get(key, 'not recorded')}" for key in ("estimator", "objective")]
    left_out = len(scores.table) - len(samples)
    if left_out:
        facts.append(f"{left_out:,} samples without token rewards left out")
    marks = f"{SIGN_HELP} · squares: low-proportion half of the groups, circles: high half"
    correlations = [f"Spearman of {_words(of_groups, 'groups')}", f"Spearman of {_words(of_samples, 'samples')}"]
    return [html.escape(line, quote=False) for line in (" · ".join(facts), marks, *correlations)]


def _correlation(rows: pd.DataFrame, options: LowRewardOptions) -> Correlation:
    """Spearman of proportion and ΔPA; with very many rows fewer resamples, for the interval is narrow then."""
    resamples = min(options.resamples, max(80, BOOTSTRAP_WORK // len(rows)))
    return spearman(rows["proportion"], rows["delta_pa"], resamples=resamples, seed=options.seed)


def _words(correlation: Correlation, what: str) -> str:
    if correlation.coefficient is None or correlation.low is None or correlation.high is None:
        return f"{what} undefined ({correlation.reason})"
    rho, low, high = (
        f"{value:+.2f}".replace("-", "−") for value in (correlation.coefficient, correlation.low, correlation.high)
    )
    doubt = "; so few make it too narrow" if correlation.n < FEW_PAIRS else ""
    return f"{what} ρ = {rho} ({correlation.confidence:.0%} interval {low} to {high}, n = {correlation.n:,}{doubt})"
