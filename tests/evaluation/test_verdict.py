"""The words of a verdict on synthetic cases, and that they claim no more than the intervals allow."""

import re

import numpy as np
import pytest

from u2a_core.evaluation.agreement import Agreement, CaseTable, Ceiling, Interval, compare, make_case
from u2a_core.evaluation.verdict import ceiling_sentence, decimal, judge, spoken, verdict

SURE = Ceiling(1, Interval(1.0, 1.0, 1.0), 1.0)
UNMEASURED = Ceiling(1, None, None, "every case was run only once")
NOISY = Ceiling(2, Interval(0.2, 0.0, 0.4), 0.58)
NOTHING = compare([], deterministic=True)


def found(value: float, low: float, high: float, n: int = 30, slope: tuple[float, float, float] = (1, 0.9, 1.1)):
    return Agreement(n, 0, Interval(value, low, high), Interval(*slope), 0.0, 0.5, n - 2, n - 3)


def table(ceiling: Ceiling = SURE, **agreements: Agreement) -> CaseTable:
    return CaseTable((), agreements, ceiling)


def said(agreement: Agreement, ceiling: Ceiling = SURE) -> str:
    return judge("first_order", agreement, ceiling, "groups").sentence


def test_a_sentence_in_full() -> None:
    sentence = said(found(0.84, 0.71, 0.92, slope=(3.1, 2.5, 3.9)))
    assert sentence == (
        "First order ranks groups well here (ρ = 0.84 [0.71, 0.92], n = 30); "
        "its size is 3.1 times too small (slope 3.1 [2.5, 3.9]); "
        "its sign is right for 28 of 30 (27 of the 30 gained)."
    )


@pytest.mark.parametrize(
    ("value", "low", "high", "trusted", "claim"),
    [
        (0.95, 0.91, 0.98, True, "ranks groups very well"),
        (0.95, 0.85, 0.98, True, "ranks groups at least well, probably very well"),
        (0.90, 0.90, 0.92, True, "ranks groups very well"),
        (0.84, 0.70, 0.92, True, "ranks groups well"),
        (0.84, 0.69, 0.92, True, "ranks groups at least roughly, probably well"),
        (0.84, 0.10, 0.95, True, "ranks groups better than chance, probably well"),
        (0.50, 0.40, 0.60, True, "ranks groups roughly"),
        (0.50, 0.39, 0.60, True, "ranks groups better than chance, probably roughly"),
        (0.39, 0.10, 0.60, False, "probably ranks groups badly, though better than chance"),
        (0.20, 0.10, 0.40, False, "probably ranks groups badly, though better than chance"),
        (0.20, 0.10, 0.39, False, "ranks groups badly, though better than chance"),
        (0.20, 0.00, 0.69, False, "is not shown to rank groups better than chance"),
        (0.30, -0.30, 0.70, None, ""),
        (0.60, -0.01, 0.90, None, ""),
        (-0.10, -0.40, 0.20, False, "is not shown to rank groups better than chance"),
        (-0.60, -0.80, -0.20, False, "ranks groups the wrong way round"),
    ],
)
def test_the_claim_follows_the_interval(
    value: float, low: float, high: float, trusted: bool | None, claim: str
) -> None:
    judgement = judge("unrolled", found(value, low, high), SURE, "groups")
    assert judgement.trusted is trusted
    if trusted is not None:
        assert judgement.claim == claim
        assert claim in judgement.sentence
    assert judgement.sentence.startswith({True: "Unrolled ranks", False: "Not to be", None: "Cannot be"}[trusted])
    assert f"[{decimal(low)}, {decimal(high)}], n = 30" in judgement.sentence


def test_only_a_trusted_estimator_has_its_size_and_sign_told() -> None:
    assert "size" not in said(found(0.2, -0.1, 0.4)) + said(found(0.5, -0.1, 0.9))


@pytest.mark.parametrize(
    ("slope", "words"),
    [
        ((1.0, 0.81, 1.24), "its size is right (slope 1 [0.81, 1.24])"),
        ((1.0, 0.79, 1.24), "its size is not shown to be wrong (slope 1 [0.79, 1.24])"),
        ((1.0, 0.81, 1.26), "its size is not shown to be wrong (slope 1 [0.81, 1.26])"),
        ((3.0, 0.9, 9.0), "its size is not shown to be wrong (slope 3 [0.9, 9])"),
        ((1.3, 1.1, 1.5), "its size is 1.3 times too small (slope 1.3 [1.1, 1.5])"),
        ((0.25, 0.2, 0.3), "its size is 4 times too large (slope 0.25 [0.2, 0.3])"),
        ((2.0, -1.0, 5.0), "its size cannot be told (slope 2 [−1, 5])"),
    ],
)
def test_the_size_follows_the_slope_and_its_interval(slope: tuple[float, float, float], words: str) -> None:
    assert words in said(found(0.8, 0.75, 0.9, slope=slope))


def test_few_cases_prove_nothing_however_well_they_agree() -> None:
    judgement = judge("unrolled", found(1.0, 1.0, 1.0, n=9), SURE, "groups")
    assert judgement.trusted is None
    assert judgement.sentence == (
        "Cannot be told how unrolled ranks groups: 9 are too few, measure at least 10 (ρ = 1.00 [1.00, 1.00], n = 9)."
    )
    assert judge("unrolled", found(1.0, 1.0, 1.0, n=10), SURE, "groups").trusted


def test_an_undefined_agreement_gives_its_reason() -> None:
    nothing = Agreement(3, 0, None, None, None, None, 0, 0, "one of the two quantities is the same everywhere")
    assert said(nothing) == (
        "Cannot be told how first order ranks groups: one of the two quantities is the same everywhere."
    )


def test_a_poor_rho_within_the_noise_cannot_be_told() -> None:
    for agreement in (found(0.2, 0.1, 0.3), found(0.1, -0.2, 0.4), found(0.6, -0.1, 0.9)):
        sentence = said(agreement, NOISY)
        assert sentence.startswith("Cannot be told how first order ranks groups (ρ = ")
        assert "agree with themselves only to 0.20 (noise ceiling)" in sentence
        assert "reach only about ρ = 0.58" in sentence
    repeated = Ceiling(8, Interval(0.3, 0.2, 0.4), 0.88)  # noisy one by one, but the mean of eight is not
    assert said(found(0.2, 0.1, 0.3), repeated).startswith("Not to be trusted")


def test_noise_does_not_excuse_the_wrong_order_and_does_not_spoil_a_good_one() -> None:
    assert said(found(-0.6, -0.8, -0.2), NOISY).startswith("Not to be trusted")
    good = said(found(0.5, 0.42, 0.57), NOISY)
    assert good.startswith("First order ranks groups roughly")
    assert "more than the noise" not in good


def test_better_than_noise_allows_is_doubted() -> None:
    doubted = said(found(0.8, 0.7, 0.9), NOISY)
    assert doubted.startswith("First order ranks groups well")
    assert "more than the noise ceiling allows (about 0.58)" in doubted
    assert "more than the noise" not in said(found(0.8, 0.5, 0.9), NOISY)  # the interval reaches down to what it allows
    assert "noise" not in said(found(0.8, 0.7, 0.9), UNMEASURED) + said(found(0.8, 0.7, 0.9), SURE)


def test_the_first_line_names_the_best_and_those_not_told_apart() -> None:
    groups = table(
        first_order=found(0.60, 0.42, 0.75),
        unrolled=found(0.93, 0.91, 0.97),
        implicit=found(0.90, 0.85, 0.91),
        second_order=found(0.5, -0.1, 0.95),
    )
    first = verdict(groups, NOTHING).split("\n")[0]
    assert first == (
        "Use unrolled here: it ranks groups very well (ρ = 0.93 [0.91, 0.97]); implicit and second order cannot be "
        "told apart from it, for the intervals overlap."
    )
    alone = table(first_order=found(0.60, 0.42, 0.75), unrolled=found(0.93, 0.91, 0.97))
    assert verdict(alone, NOTHING).startswith("Use unrolled here: it ranks groups very well (ρ = 0.93 [0.91, 0.97]).\n")


def test_an_untrusted_estimator_is_never_recommended() -> None:
    untrusted = found(0.5, -0.1, 0.6)
    groups = table(first_order=found(0.41, 0.3, 0.5), implicit=untrusted)
    assert verdict(groups, NOTHING).startswith("Use first order here")
    assert verdict(table(implicit=untrusted), NOTHING).startswith("No estimator is to be trusted for groups")
    open_too = table(implicit=untrusted, unrolled=found(0.6, -0.1, 0.9))
    assert verdict(open_too, NOTHING).startswith("No estimator can be recommended for groups yet")


def test_one_line_an_estimator_and_kind_then_one_a_ceiling() -> None:
    groups = table(first_order=found(0.8, 0.7, 0.9), unrolled=found(0.8, 0.7, 0.9))
    singles = table(UNMEASURED, first_order=found(0.95, 0.91, 0.99))
    lines = verdict(groups, singles).split("\n")
    assert [re.search("groups|single examples", line)[0] for line in lines] == [
        *("groups",) * 3,
        "single examples",
        "groups",
        "single examples",
    ]
    assert verdict(NOTHING, singles).startswith("Use first order here: it ranks single examples very well")
    assert verdict(NOTHING, NOTHING) == "Nothing can be told: no case was measured."


def test_ceilings_in_words() -> None:
    assert "not measured for groups (every case was run only once)" in ceiling_sentence(UNMEASURED, "groups")
    assert "may be noise" in ceiling_sentence(UNMEASURED, "groups")
    assert "1 for groups, whose runs are deterministic" in ceiling_sentence(SURE, "groups")
    three = ceiling_sentence(Ceiling(3, Interval(0.75, 0.6, 0.85), 0.949), "groups")
    assert "to ρ = 0.75 [0.60, 0.85]; against the mean of 3 runs" in three
    assert "about 0.95" in three


def test_numbers_measured_from_cases_reach_the_words() -> None:
    generator = np.random.default_rng(0)
    truth = generator.normal(size=40)
    cases = [
        make_case([str(i)], [value], {"unrolled": value / 3, "first_order": generator.normal()})
        for i, value in enumerate(truth)
    ]
    words = verdict(compare(cases, deterministic=True), NOTHING)
    assert words.startswith("Use unrolled here: it ranks groups very well (ρ = 1.00 [1.00, 1.00]).")
    assert "3 times too small (slope 3 [3, 3])" in words
    assert "Not to be trusted: first order" in words


def test_small_things_that_are_written() -> None:
    assert decimal(-0.004) == "0.00"
    assert decimal(-0.5) == "−0.50"
    assert spoken("second_order\nof\tmine") == "second order of mine"
