"""Metrics: what an evaluation comes to, one entry each, so that another one is added by writing it down; no torch.

A metric is a weighted mean over samples, m = Σ w_i x_i / Σ w, with the 95 % interval ± 1.96 standard errors (from the
parts w_i (x_i − m) / Σ w, the ratio's linearisation), or a number of a whole collection, without interval. The interval
of a difference is paired: from the differences of the parts, sample by sample.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from u2a_core.store.evaluations import Evaluation

Floats = NDArray[np.float64]
Weights = Mapping[str, float]
Better = Literal["higher", "lower", "unchanged"]
NORMAL_95 = 1.959964
FEW = 10  # samples below which no interval is given
GRAM = 4  # words that must recur for a repetition


@dataclass(frozen=True)
class Measured:
    """A value over `n` samples (None: there is none), and the part of every sample in it, for intervals."""

    value: float | None
    n: int
    parts: Floats | None = None

    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; None where there are too few samples, or no parts."""
        return None if self.value is None or self.parts is None else _around(self.value, self.parts, self.n)


@dataclass(frozen=True)
class Metric:
    """`definition`: one sentence; `measure` takes an evaluation and ω of the forget set in question by id."""

    name: str
    title: str
    definition: str
    unit: str
    better: Better
    measure: Callable[[Evaluation, Weights], Measured]


def weighted_mean(values: ArrayLike, weights: ArrayLike | None = None) -> Measured:
    """Σ w x / Σ w over the samples with w > 0 and a value; equal weights unless given."""
    found = np.asarray(values, np.float64)
    w = np.ones(len(found)) if weights is None else np.asarray(weights, np.float64)
    w = np.where(np.isfinite(found), w, 0.0)
    used = w > 0
    if not used.any():
        return Measured(None, 0)
    total = float(w.sum())
    mean = float((w[used] * found[used]).sum() / total)
    parts = np.where(used, w * (np.where(used, found, mean) - mean), 0.0) / total
    return Measured(mean, int(used.sum()), parts)


def margins(evaluation: Evaluation) -> Floats:
    """Log-ratio of the chosen response less that of the rejected one to the original policy, nats per pair."""
    pairs = evaluation.tables["pairs"]
    chosen = pairs["chosen_logp"] - pairs["chosen_reference"]
    found: Floats = (chosen - (pairs["rejected_logp"] - pairs["rejected_reference"])).to_numpy(np.float64)
    return found


def preferences(evaluation: Evaluation) -> Floats:
    """How much likelier the chosen response is than the rejected one, nats per token; > 0: it is preferred."""
    pairs = evaluation.tables["pairs"]
    chosen = pairs["chosen_logp"] / pairs["chosen_tokens"]
    found: Floats = (chosen - pairs["rejected_logp"] / pairs["rejected_tokens"]).to_numpy(np.float64)
    return found


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Different n-grams of words over all n-grams of all texts (Li et al., arXiv 1510.03055); None without any."""
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else None


def repetition(text: str, n: int = GRAM) -> float | None:
    """The share of a text's n-grams of words that stood in it before (Welleck et al., arXiv 1908.04319)."""
    grams = _grams(text, n)
    return 1 - len(set(grams)) / len(grams) if grams else None


def compared(left: Evaluation, right: Evaluation, weights: Weights) -> pd.DataFrame:
    """A row a metric: its value left and right with intervals, the difference, right less left, with its paired
    interval (None: no interval), and the verdict in words.
    """
    return pd.DataFrame([_row(metric, left, right, weights) for metric in METRICS])


def verdict(better: Better, difference: float | None, interval: tuple[float, float] | None) -> str:
    """What a difference means: `better`, `worse` or `changed` only where its interval leaves 0 out."""
    if difference is None:
        return "not measured"
    if difference == 0:
        return "equal"
    if interval is None:
        return "higher" if difference > 0 else "lower"
    if interval[0] <= 0 <= interval[1]:
        return "no clear change"
    if better == "unchanged":
        return "changed"
    return "better" if (difference > 0) == (better == "higher") else "worse"


def _row(metric: Metric, left: Evaluation, right: Evaluation, weights: Weights) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(metric, name) for name in ("name", "title", "definition", "unit", "better")}
    both = [metric.measure(one, weights) for one in (left, right)]
    for side, found in zip(("left", "right"), both, strict=True):
        low, high = found.interval() or (None, None)
        row |= {side: found.value, f"{side}_low": low, f"{side}_high": high, f"{side}_n": found.n}
    difference, interval = _difference(*both)
    low, high = interval or (None, None)
    told = verdict(metric.better, difference, interval)
    return {**row, "difference": difference, "difference_low": low, "difference_high": high, "verdict": told}


def _difference(left: Measured, right: Measured) -> tuple[float | None, tuple[float, float] | None]:
    if left.value is None or right.value is None:
        return None, None
    difference = right.value - left.value
    if left.parts is None or right.parts is None or len(left.parts) != len(right.parts):
        return difference, None
    return difference, _around(difference, right.parts - left.parts, min(left.n, right.n))


def _around(value: float, parts: Floats, n: int) -> tuple[float, float] | None:
    if n < FEW:
        return None
    error = math.sqrt(float((parts**2).sum()) * n / (n - 1))
    return value - NORMAL_95 * error, value + NORMAL_95 * error


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.casefold().split()
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def _candidates(evaluation: Evaluation, weight: Callable[[float], float], weights: Weights) -> Measured:
    table = evaluation.tables["candidates"]
    return weighted_mean(table["nll"], [weight(weights.get(one, 0.0)) for one in table["id"]])


def _alignment(evaluation: Evaluation, _weights: Weights) -> Measured:
    return weighted_mean(-np.logaddexp(0.0, -evaluation.settings["alignment_beta"] * margins(evaluation)))


def _repetition(evaluation: Evaluation, _weights: Weights) -> Measured:
    found = [repetition(text) for text in evaluation.tables["answers"]["answer"]]
    return weighted_mean([math.nan if one is None else one for one in found])


def _distinct(n: int) -> Callable[[Evaluation, Weights], Measured]:
    def measure(evaluation: Evaluation, _weights: Weights) -> Measured:
        texts = list(evaluation.tables["answers"]["answer"])
        return Measured(distinct(texts, n), len(texts))

    return measure


def _column(kind: str, name: str, weighed_by: str | None = None) -> Callable[[Evaluation, Weights], Measured]:
    def measure(evaluation: Evaluation, _weights: Weights) -> Measured:
        table = evaluation.tables[kind]
        return weighted_mean(table[name], table[weighed_by] if weighed_by else None)

    return measure


METRICS = (
    Metric(
        "alignment", "J", "Mean of log σ(β × margin) over the pairs of pa_test; log ½ = −0.693 at the original policy.",
        "nats per pair", "higher", _alignment,
    ),
    Metric(
        "accuracy", "Preference accuracy",
        "Share of the pairs of pa_test whose chosen response is likelier per token than the rejected one.",
        "share of pairs", "higher", lambda one, _: weighted_mean(preferences(one) > 0),
    ),
    Metric(
        "margin", "Margin",
        "How much the log-probability of the chosen response rose against the original policy, less that of the "
        "rejected one; mean over the pairs of pa_test.",
        "nats per pair", "higher", lambda one, _: weighted_mean(margins(one)),
    ),
    Metric(
        "token_reward", "Token reward of answers",
        "Mean of the token rewards of all greedy answers to test prompts, every token counting the same.",
        "reward units", "higher", _column("answers", "reward", "tokens"),
    ),
    Metric(
        "answer_reward", "Reward of answers",
        "Mean over greedy answers to test prompts of their mean token reward, every answer counting the same.",
        "reward units", "higher", _column("answers", "reward"),
    ),
    Metric(
        "forget_nll", "NLL of the forget set",
        "Negative log-likelihood of the forget set's responses, a mean over examples weighed by ω.",
        "nats per token", "higher", lambda one, weights: _candidates(one, lambda weight: weight, weights),
    ),
    Metric(
        "unlearned_nll", "NLL of what was unlearned",
        "The same, every candidate with ω > 0 counting the same.",
        "nats per token", "higher", lambda one, weights: _candidates(one, lambda w: float(w > 0), weights),
    ),
    Metric(
        "kept_nll", "NLL of other candidates",
        "Negative log-likelihood of the candidates that were not unlearned; a rise is a side effect.",
        "nats per token", "unchanged", lambda one, weights: _candidates(one, lambda w: float(w == 0), weights),
    ),
    Metric(
        "retain_nll", "NLL of retain data",
        "Negative log-likelihood of the responses that shall stay, mean over examples.",
        "nats per token", "lower", _column("retain", "nll"),
    ),
    Metric(
        "retain_kl", "KL to the original",
        "KL(original ‖ policy) of the next token, mean over the responses of retain data; 0 where nothing changed.",
        "nats per token", "lower", _column("retain", "kl"),
    ),
    Metric(
        "distinct_1", "Distinct words",
        "Different words over all words of all greedy answers to test prompts (distinct-1).",
        "share of words", "higher", _distinct(1),
    ),
    Metric(
        "distinct_2", "Distinct word pairs",
        "Different pairs of neighbouring words over all such pairs of all greedy answers to test prompts (distinct-2).",
        "share of pairs of words", "higher", _distinct(2),
    ),
    Metric(
        "repetition", "Repetition",
        f"Share of {GRAM}-word sequences of an answer that stood in it before, mean over greedy answers to test "
        "prompts.",
        "share of sequences", "lower", _repetition,
    ),
)  # fmt: skip
