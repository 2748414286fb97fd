"""Splits: no prompt on two sides, independent of order, the sizes asked for, and errors that say what is lacking."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from u2a_core.data.loading import load_pairs
from u2a_core.data.pairs import Message, PreferencePair
from u2a_core.data.splits import SplitAssignment, SplitSizes, split_pairs
from u2a_core.errors import DataError

HELD_OUT = ("pa_train", "pa_test", "test")


def row(prompt: str, chosen: str | None = "good", rejected: str | None = "bad") -> PreferencePair:
    return PreferencePair((Message("user", prompt),), chosen, rejected, "rows.jsonl:1")


def distinct(count: int) -> list[PreferencePair]:
    return [row(f"prompt {number}") for number in range(count)]


def count(assignments: list[SplitAssignment]) -> Counter[str]:
    return Counter(assignment.split for assignment in assignments)


@st.composite
def tables(draw: st.DrawFn) -> list[PreferencePair]:
    """Up to 40 rows of 5 to 12 prompts in two spellings, with half rows, equal negatives and exact duplicates."""
    prompts = draw(st.integers(5, 12))
    sides = st.sampled_from([("a", "x"), ("b", "x"), ("a", "y"), ("c", "z"), (None, "x"), ("a", None)])
    spelled = st.builds("{}{}".format, st.sampled_from(["Prompt ", "prompt  "]), st.integers(0, prompts - 1))
    extra = draw(st.lists(st.builds(lambda prompt, side: row(prompt, *side), spelled, sides), max_size=28))
    return [row(f"prompt {number}") for number in range(prompts)] + extra


def attempt(pairs: list[PreferencePair], sizes: SplitSizes, seed: int) -> list[SplitAssignment]:
    """The split, or no example where these few rows do not allow one."""
    try:
        return split_pairs(pairs, sizes, seed)
    except DataError:
        assume(False)
        raise


sizes_drawn = st.builds(
    SplitSizes,
    pa_train=st.sampled_from([1, 2, 0.1, 0.2]),
    pa_test=st.sampled_from([1, 0.1]),
    test=st.sampled_from([0, 1, 0.05]),
    negative_share=st.sampled_from([0.5, 2 / 3, 1.0]),
    forget_share=st.sampled_from([0.5, 1.0]),
)


@settings(max_examples=150, deadline=None)
@given(tables(), sizes_drawn, st.integers(0, 3), st.randoms(use_true_random=False))
def test_no_prompt_on_two_sides_whatever_the_order(
    pairs: list[PreferencePair], sizes: SplitSizes, seed: int, shuffler: random.Random
) -> None:
    assignments = attempt(pairs, sizes, seed)
    sides: dict[str, set[str]] = {}
    for pair, assignment in zip(pairs, assignments, strict=True):
        tuned = assignment.split in ("positive", "negative")
        sides.setdefault(pair.prompt_key, set()).add("tuned on" if tuned else assignment.split)
        assert pair.is_pair or tuned
        assert pair.chosen is not None or assignment.split == "negative"
        assert pair.rejected is not None or assignment.split == "positive"
        assert assignment.split == "negative" or not assignment.candidate
    assert all(len(found) == 1 for found in sides.values())
    candidates = [pair.negative_id for pair, a in zip(pairs, assignments, strict=True) if a.candidate]
    negatives = {pair.negative_id for pair, a in zip(pairs, assignments, strict=True) if a.split == "negative"}
    assert len(candidates) == len(set(candidates)) == max(round(sizes.forget_share * len(negatives)), 1)

    order = shuffler.sample(range(len(pairs)), len(pairs))
    again = split_pairs([pairs[index] for index in order], sizes, seed)
    assert tally([pairs[index] for index in order], again) == tally(pairs, assignments)


def tally(pairs: list[PreferencePair], assignments: list[SplitAssignment]) -> Counter[tuple[str, SplitAssignment]]:
    return Counter((pair.id, assignment) for pair, assignment in zip(pairs, assignments, strict=True))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (SplitSizes(), {"pa_train": 20, "pa_test": 20, "test": 10, "negative": 100, "positive": 50}),
        (SplitSizes(7, 5, 0), {"pa_train": 7, "pa_test": 5, "negative": 125, "positive": 63}),
        (SplitSizes(0.001, 1, 1, 1.0), {"pa_train": 1, "pa_test": 1, "test": 1, "negative": 197}),
    ],
)
def test_sizes_are_exact_for_distinct_prompts(sizes: SplitSizes, expected: dict[str, int]) -> None:
    assignments = split_pairs(distinct(200), sizes, seed=0)
    assert count(assignments) == expected
    assert sum(assignment.candidate for assignment in assignments) == expected["negative"]


def test_forget_share() -> None:
    assignments = split_pairs(distinct(200), SplitSizes(forget_share=0.3), seed=0)
    assert sum(assignment.candidate for assignment in assignments) == 30


def test_seed_decides() -> None:
    pairs = distinct(60)
    one, same, other = (split_pairs(pairs, SplitSizes(), seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert count(one) == count(other)


def test_one_prompt_with_many_rows_does_not_flood_a_held_out_split() -> None:
    pairs = distinct(30) + [row("the same", f"good {number}") for number in range(70)]
    for seed in range(10):
        found = count(split_pairs(pairs, SplitSizes(), seed))
        assert (found["pa_train"], found["pa_test"], found["test"]) == (10, 10, 5)


def test_prompts_of_several_rows_stay_whole() -> None:
    pairs = [row(f"prompt {number}", f"good {answer}") for number in range(20) for answer in range(5)]
    found = count(split_pairs(pairs, SplitSizes(pa_train=12, pa_test=3, test=5), seed=0))
    assert (found["pa_train"], found["pa_test"], found["test"]) == (10, 5, 5)


def test_half_rows_go_where_they_belong_and_take_their_prompt_along() -> None:
    halves = [row("prompt 0", None), row("only bad", None), row("only good", rejected=None)]
    for seed in range(20):
        assignments = split_pairs([*distinct(10), *halves], SplitSizes(), seed)
        assert [assignment.split for assignment in assignments[-3:]] == ["negative", "negative", "positive"]
        assert assignments[0].split in ("positive", "negative")


def test_equal_negatives_have_one_candidate() -> None:
    pairs = distinct(12) + [row("prompt 3", "better")] * 2
    for seed in range(20):
        assignments = split_pairs(pairs, SplitSizes(), seed)
        places = [index for index in (3, 12, 13) if assignments[index].split == "negative"]
        assert sum(assignments[index].candidate for index in places) == bool(places)


def refusal(pairs: list[PreferencePair], sizes: SplitSizes) -> str:
    with pytest.raises(DataError) as caught:
        split_pairs(pairs, sizes, seed=0)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_all_equal_prompts() -> None:
    message = refusal([row("Same  prompt", f"good {number}") for number in range(40)], SplitSizes())
    assert "40 rows have 1 distinct prompt (" in message
    assert "at least 5 are needed" in message
    assert "Give data with more prompts" in message
    assert "at least 4 are needed" in refusal(distinct(3), SplitSizes(test=0))
    assert len(split_pairs(distinct(5), SplitSizes(), seed=0)) == 5


def test_no_complete_pair() -> None:
    message = refusal([row(f"p{number}", None) for number in range(40)], SplitSizes())
    assert "None of the 40 rows is a complete pair" in message
    assert "J" in message
    assert "Add a data set with pairs" in message


@pytest.mark.parametrize(
    ("pairs", "sizes"),
    [
        (distinct(20), SplitSizes(pa_train=30)),
        (distinct(20), SplitSizes(pa_train=10, pa_test=10)),
        (distinct(20), SplitSizes(pa_train=0.5, pa_test=0.5, test=0)),
        (distinct(20), SplitSizes(pa_train=17, pa_test=1, test=1)),
        (distinct(3) + [row(f"p{number}", None) for number in range(40)], SplitSizes(pa_train=20)),
    ],
)
def test_sizes_that_do_not_fit(pairs: list[PreferencePair], sizes: SplitSizes) -> None:
    message = refusal(pairs, sizes)
    assert f"do not fit: pa_train {sizes.pa_train}" in message
    assert f"{len(pairs)} rows" in message
    assert "Ask for less, or give more data" in message


@pytest.mark.parametrize(
    "sizes",
    [
        {"pa_train": 0},
        {"pa_train": 1.0},
        {"pa_train": True},
        {"pa_test": -1},
        {"test": -0.1},
        {"test": float("nan")},
        {"negative_share": 0.0},
        {"negative_share": 1.5},
        {"forget_share": 0.0},
        {"forget_share": float("nan")},
    ],
)
def test_sizes_without_sense(sizes: dict[str, Any]) -> None:
    (name,) = sizes
    message = refusal(distinct(20), SplitSizes(**sizes))
    assert name in message
    assert str(sizes[name]) in message
    assert "Give" in message


@pytest.mark.parametrize("name", ["halueval_qa_500.jsonl", "hh_rlhf_harmless_1300.jsonl.gz"])
def test_real_data(real_data: Callable[[str], str], name: str) -> None:
    pairs = load_pairs([real_data(name)], skip_invalid=True).pairs
    assignments = split_pairs(pairs, SplitSizes(), seed=0)
    found = count(assignments)
    for split, share in (("pa_train", 0.10), ("pa_test", 0.10), ("test", 0.05)):
        assert found[split] == round(share * len(pairs))
    keys = {
        split: {p.prompt_key for p, a in zip(pairs, assignments, strict=True) if a.split == split} for split in found
    }
    tuned = keys["positive"] | keys["negative"]
    assert not any(keys[split] & tuned for split in HELD_OUT)
    assert not keys["pa_train"] & keys["pa_test"]
