"""Splits after the paper's recipe (arXiv 2504.06659), drawn by prompt so that no prompt leaks.

`pa_train`, `pa_test` and `test` come first, from prompts whose rows are all complete pairs; the rest is tuned on, as
positives (chosen: `retain`) and negatives (rejected: candidates of `forget`). A prompt lies in one of {positive and
negative}, pa_train, pa_test, test. The draw depends on seed and content alone, not on the order of the input.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

from u2a_core.data.pairs import PreferencePair
from u2a_core.errors import DataError

Split = Literal["pa_train", "pa_test", "test", "positive", "negative"]
SPLITS: tuple[Split, ...] = get_args(Split)
held_out: tuple[Literal["pa_train", "pa_test", "test"], ...] = ("pa_train", "pa_test", "test")


@dataclass(frozen=True)
class SplitSizes:
    """How much goes where.

    `pa_train`, `pa_test` and `test` are shares of the complete pairs (a float below 1) or numbers of pairs (an int).
    `negative_share` is the negatives' share of the complete pairs that remain; `forget_share` the candidates' share of
    the distinct negatives. Splits take whole prompts, so a size may be missed by a few rows.
    """

    pa_train: float | int = 0.10
    pa_test: float | int = 0.10
    test: float | int = 0.05
    negative_share: float = 2 / 3
    forget_share: float = 1.0


@dataclass(frozen=True)
class SplitAssignment:
    """Where a pair lies, and whether its negative is a candidate for unlearning."""

    split: Split
    candidate: bool = False


@dataclass(frozen=True)
class _Group:
    """The rows of one prompt, by their place in the input."""

    key: str
    members: tuple[int, ...]
    complete: bool


def split_pairs(pairs: Sequence[PreferencePair], sizes: SplitSizes, seed: int) -> list[SplitAssignment]:
    """One assignment a pair, in the order of the input.

    Rows with one response go to the side of that response. Of equal negatives only one is a candidate. Raises
    `DataError` for sizes that make no sense or do not fit, too few distinct prompts, and no complete pairs at all.
    """
    groups = _groups(pairs)
    complete = sum(pair.is_pair for pair in pairs)
    wanted = _wanted(sizes, complete)
    _check_material(pairs, groups, complete, wanted)
    usable = sorted((group for group in groups if group.complete), key=lambda group: _draw(seed, "hold", group.key))
    order = [group.members for group in usable]
    split_of: dict[int, Split] = {}
    for name in held_out:
        taken = _whole_prompts(order, wanted[name])
        if 2 * sum(map(len, taken)) < wanted[name]:
            raise _do_not_fit(sizes, pairs, groups)
        split_of.update(dict.fromkeys(chain.from_iterable(taken), name))
        order = [members for members in order if members[0] not in split_of]
    rest = [group for group in groups if group.members[0] not in split_of]
    split_of.update(_sides(pairs, rest, sizes.negative_share, seed))
    sides = set(split_of.values())
    if "negative" not in sides or ("positive" not in sides and sizes.negative_share < 1):
        raise _do_not_fit(sizes, pairs, groups)
    candidates = _candidates(pairs, [at for at, split in split_of.items() if split == "negative"], sizes, seed)
    return [SplitAssignment(split_of[index], index in candidates) for index in range(len(pairs))]


def _draw(seed: int, purpose: str, content: str) -> str:
    """A pseudo-random rank: the hash of what is drawn, salted by purpose so that draws are independent."""
    return hashlib.sha256(f"{seed}\x1d{purpose}\x1d{content}".encode("utf-8", "surrogatepass")).hexdigest()


def _groups(pairs: Sequence[PreferencePair]) -> list[_Group]:
    members: dict[str, list[int]] = {}
    for index, pair in enumerate(pairs):
        members.setdefault(pair.prompt_key, []).append(index)
    return [_Group(key, tuple(at), all(pairs[index].is_pair for index in at)) for key, at in members.items()]


def _whole_prompts(order: Sequence[tuple[int, ...]], wanted: int) -> list[tuple[int, ...]]:
    """Prompts in the order drawn, each taken where all its rows still fit; the smallest one where none does.

    So a split may come out a few rows short, but one prompt with very many rows does not flood it.
    """
    taken: list[tuple[int, ...]] = []
    room = wanted
    for members in order:
        if len(members) <= room:
            taken.append(members)
            room -= len(members)
    if wanted and order and not taken:
        taken.append(min(order, key=len))
    return taken


def _wanted(sizes: SplitSizes, complete: int) -> dict[Split, int]:
    for name in ("negative_share", "forget_share"):
        if not 0 < getattr(sizes, name) <= 1:
            raise DataError(f"The {name} {getattr(sizes, name)} is no share. Give a number above 0 and at most 1.")
    return {
        "pa_train": _count("pa_train", sizes.pa_train, complete, least=1),
        "pa_test": _count("pa_test", sizes.pa_test, complete, least=1),
        "test": _count("test", sizes.test, complete, least=0),
    }


def _count(name: str, size: float | int, complete: int, least: int) -> int:
    """A size in pairs: an int as it is, a share rounded, but not to nothing."""
    if isinstance(size, float) and 0 <= size < 1:
        size = max(round(size * complete), 1 if size else 0)
    if not isinstance(size, int) or isinstance(size, bool) or size < least:
        raise DataError(
            f"The size of {name}, {size}, is neither a share of the pairs (below 1) nor a number of pairs (at least "
            f"{least}). Give for example 0.1 or 200."
        )
    return size


def _check_material(
    pairs: Sequence[PreferencePair], groups: list[_Group], complete: int, wanted: dict[Split, int]
) -> None:
    if not complete:
        raise DataError(
            f"None of the {len(pairs)} rows is a complete pair (a chosen and a rejected response to one prompt), and "
            "J, the alignment performance that ΔPA is a change of, is measured on pairs. Add a data set with pairs, "
            "or rows with the other label for the same prompts."
        )
    needed = sum(count > 0 for count in wanted.values()) + 2  # and a prompt each for negatives and positives
    if len(groups) < needed:
        raise DataError(
            f"The {len(pairs)} rows have {len(groups)} distinct prompt{'s' * (len(groups) != 1)} (case and white space "
            f"folded), and at least {needed} are needed: no prompt may lie in two of pa_train, pa_test, test and the "
            "tuning data, which itself needs a positive and a negative. Give data with more prompts."
        )


def _do_not_fit(sizes: SplitSizes, pairs: Sequence[PreferencePair], groups: list[_Group]) -> DataError:
    usable = [group for group in groups if group.complete]
    return DataError(
        f"The split sizes do not fit: pa_train {sizes.pa_train}, pa_test {sizes.pa_test} and test {sizes.test}, and "
        f"after them at least a negative and a positive, are asked of {len(pairs)} rows in {len(groups)} prompts; "
        f"{sum(len(group.members) for group in usable)} rows in {len(usable)} prompts are in complete pairs only, as "
        "the first three need. Ask for less, or give more data; a split takes whole prompts."
    )


def _sides(
    pairs: Sequence[PreferencePair], rest: Sequence[_Group], negative_share: float, seed: int
) -> dict[int, Split]:
    """A side for every row not held out: whole prompts, save that half rows go by what they have."""
    sides: dict[int, Split] = {}
    undecided: list[tuple[int, ...]] = []
    for group in sorted(rest, key=lambda group: _draw(seed, "side", group.key)):
        for index in group.members:
            if not pairs[index].is_pair:
                sides[index] = "positive" if pairs[index].rejected is None else "negative"
        whole = tuple(index for index in group.members if pairs[index].is_pair)
        if whole:
            undecided.append(whole)
    need_positive = negative_share < 1 and "positive" not in sides.values()
    negatives = _whole_prompts(undecided, max(round(negative_share * sum(map(len, undecided))), 1))
    if need_positive and len(negatives) == len(undecided):
        negatives = negatives[:-1]
    sides.update(dict.fromkeys(chain.from_iterable(undecided), "positive"))
    sides.update(dict.fromkeys(chain.from_iterable(negatives), "negative"))
    return sides


def _candidates(
    pairs: Sequence[PreferencePair], negatives: Sequence[int], sizes: SplitSizes, seed: int
) -> frozenset[int]:
    """The rows whose negative is a candidate: one row for each distinct negative, and of these the share asked for."""
    first: dict[str, int] = {}
    for index in sorted(negatives, key=lambda index: pairs[index].id):  # by content: input order must not matter
        first.setdefault(pairs[index].negative_id, index)
    drawn = sorted(first, key=lambda negative: _draw(seed, "candidate", negative))
    return frozenset(first[negative] for negative in drawn[: max(round(sizes.forget_share * len(drawn)), 1)])
