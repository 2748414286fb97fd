"""Predicted against realised ΔPA in words: plain sentences that claim no more than the intervals allow.

| ρ (Spearman) | ranks | | trusted if |
|---|---|---|---|
| ≥ 0.9 | very well | | at least 10 cases, the interval above 0, and ρ ≥ 0.4 |
| ≥ 0.7 | well | | |
| ≥ 0.4 | roughly | | |
| below | badly | | |

The claim "at least" is the level of the interval's lower end, "probably" that of ρ itself. An interval that holds both
0 and 0.7 tells nothing. A poor ρ tells nothing either where even a perfect prediction would stay below 0.7 for noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from u2a_core.evaluation.agreement import Agreement, CaseTable, Ceiling, Interval

VERY_WELL, WELL, ROUGHLY = 0.9, 0.7, 0.4
FEW_CASES = 10  # below, resamples repeat the same few cases, and the interval comes out too narrow
RIGHT_SIZE = 1.25  # a slope surely between 1/1.25 and 1.25 counts as right
GROUPS, SINGLES = "groups", "single examples"


@dataclass(frozen=True)
class Judgement:
    """Whether an estimator is trusted (None: it cannot be told), its claim ("ranks groups well"), and why, in one
    sentence.
    """

    trusted: bool | None
    claim: str
    sentence: str


def verdict(groups: CaseTable, singles: CaseTable) -> str:
    """A line for the best estimator to use, then one an estimator and kind of case, then one a noise ceiling."""
    tables = [(table, noun) for table, noun in ((groups, GROUPS), (singles, SINGLES)) if table.agreements]
    if not tables:
        return "Nothing can be told: no case was measured."
    lines = [_recommendation(*tables[0])]
    for table, noun in tables:
        lines += [one.sentence for one in _judgements(table, noun).values()]
    return "\n".join([*lines, *(ceiling_sentence(table.ceiling, noun) for table, noun in tables)])


def judge(name: str, found: Agreement, ceiling: Ceiling, noun: str) -> Judgement:
    """What may be said of the estimator `name` for cases that are called `noun`."""
    said = spoken(name)
    if found.rho is None:
        return Judgement(None, "", f"Cannot be told how {said} ranks {noun}: {found.reason}.")
    numbers = f"({rho_text(found.rho)}, n = {found.n})"
    if found.n < FEW_CASES:
        why = f"{found.n} are too few, measure at least {FEW_CASES}"
        return Judgement(None, "", f"Cannot be told how {said} ranks {noun}: {why} {numbers}.")
    trusted, claim = _claim(found.rho, noun)
    noise = _noise(ceiling)
    if noise and not trusted and found.rho.high >= 0:
        return Judgement(None, "", f"Cannot be told how {said} ranks {noun} {numbers}: {noise}.")
    if trusted is None:
        return Judgement(None, "", f"Cannot be told: {said} {claim} {numbers}; measure more {noun}.")
    if not trusted:
        return Judgement(False, claim, f"Not to be trusted: {said} {claim} {numbers}.")
    doubt = _too_good(found.rho, ceiling)
    sentence = f"{said[:1].upper()}{said[1:]} {claim} here {numbers}; {_size(found)}; {_signs(found)}{doubt}."
    return Judgement(True, claim, sentence)


def ceiling_sentence(ceiling: Ceiling, noun: str) -> str:
    """How much of the disagreement may be noise of the runs."""
    if ceiling.rho is None or ceiling.attainable is None:
        reason = f"not measured for {noun} ({ceiling.reason})"
        return f"Noise ceiling: {reason}; a part of the disagreement may be noise of the runs."
    if ceiling.repetitions == 1:
        return (
            f"Noise ceiling: 1 for {noun}, whose runs are deterministic; what another seed or order of the same run "
            "would give was not measured."
        )
    return (
        f"Noise ceiling: {noun} run twice agree with themselves to {rho_text(ceiling.rho)}; against the mean of "
        f"{ceiling.repetitions} runs a perfect prediction would reach about {decimal(ceiling.attainable)}."
    )


def rho_text(rho: Interval) -> str:
    """ρ with its interval: ρ = 0.84 [0.70, 0.92]."""
    return f"ρ = {decimal(rho.value)} [{decimal(rho.low)}, {decimal(rho.high)}]"


def slope_text(slope: Interval) -> str:
    """The slope with its interval: slope 3.1 [2.52, 3.9]."""
    value, low, high = (f"{number:.3g}".replace("-", "−") for number in (slope.value, slope.low, slope.high))
    return f"slope {value} [{low}, {high}]"


def spoken(estimator: str) -> str:
    """An estimator's name in a sentence."""
    return " ".join(estimator.replace("_", " ").split())


def decimal(value: float) -> str:
    """Two decimals, with a real minus."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _level(rho: float) -> Literal["very well", "well", "roughly", "badly"]:
    return "very well" if rho >= VERY_WELL else "well" if rho >= WELL else "roughly" if rho >= ROUGHLY else "badly"


def _claim(rho: Interval, noun: str) -> tuple[bool | None, str]:
    """Whether an estimator is trusted, and what it does to the order of `noun`."""
    sure, seen = _level(rho.low), _level(rho.value)
    if rho.high < 0:
        return False, f"ranks {noun} the wrong way round"
    if rho.low <= 0:
        return None if rho.high >= WELL else False, f"is not shown to rank {noun} better than chance"
    if seen == "badly":
        perhaps = "probably " if rho.high >= ROUGHLY else ""
        return False, f"{perhaps}ranks {noun} badly, though better than chance"
    if sure == seen:
        return True, f"ranks {noun} {seen}"
    least = "better than chance" if sure == "badly" else f"at least {sure}"
    return True, f"ranks {noun} {least}, probably {seen}"


def _noise(ceiling: Ceiling) -> str | None:
    """Why a poor ρ may be the fault of noise; None where noise is small or not known."""
    if ceiling.rho is None or ceiling.attainable is None or ceiling.attainable >= WELL:
        return None
    return (
        f"the realised values agree with themselves only to {decimal(ceiling.rho.value)} (noise ceiling), so even a "
        f"perfect prediction would reach only about ρ = {decimal(ceiling.attainable)}"
    )


def _size(found: Agreement) -> str:
    """What the slope says of the size of the predictions."""
    if found.slope is None or found.slope.low <= 0:
        return "its size cannot be told" + (f" ({slope_text(found.slope)})" if found.slope else "")
    value, low, high = found.slope.value, found.slope.low, found.slope.high
    if low >= 1 / RIGHT_SIZE and high <= RIGHT_SIZE:
        return f"its size is right ({slope_text(found.slope)})"
    if low <= 1 <= high:
        return f"its size is not shown to be wrong ({slope_text(found.slope)})"
    factor, way = (value, "small") if low > 1 else (1 / value, "large")
    return f"its size is {factor:.3g} times too {way} ({slope_text(found.slope)})"


def _signs(found: Agreement) -> str:
    return f"its sign is right for {found.same_sign} of {found.n} ({found.gains} of the {found.n} gained)"


def _too_good(rho: Interval, ceiling: Ceiling) -> str:
    """A warning where even the lower end of ρ lies above what noise allows."""
    if ceiling.attainable is None or rho.low <= ceiling.attainable:
        return ""
    return (
        f"; this is more than the noise ceiling allows (about {decimal(ceiling.attainable)}), so measure more "
        "repetitions before relying on it"
    )


def _judgements(table: CaseTable, noun: str) -> dict[str, Judgement]:
    return {name: judge(name, found, table.ceiling, noun) for name, found in table.agreements.items()}


def _recommendation(table: CaseTable, noun: str) -> str:
    """The trusted estimator with the highest ρ, and those whose intervals reach into its own."""
    judgements = _judgements(table, noun)
    rhos = {name: found.rho for name, found in table.agreements.items() if found.rho is not None}
    trusted = [name for name, one in judgements.items() if one.trusted]
    if not trusted:
        if all(one.trusted is False for one in judgements.values()):
            return f"No estimator is to be trusted for {noun} here: unlearn and measure instead of predicting."
        return f"No estimator can be recommended for {noun} yet: see why below."
    best = max(trusted, key=lambda name: rhos[name].value)
    sentence = f"Use {spoken(best)} here: it {judgements[best].claim} ({rho_text(rhos[best])})"
    rivals = _rivals(best, rhos)
    if rivals:
        sentence += f"; {' and '.join(rivals)} cannot be told apart from it, for the intervals overlap"
    return f"{sentence}."


def _rivals(best: str, rhos: Mapping[str, Interval]) -> list[str]:
    return [spoken(name) for name, rho in rhos.items() if name != best and rho.high >= rhos[best].low]
