"""Which candidates a selection means: by file, score, chance or all, each with its inverse."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from u2a_core.data.forget_set import forget_set
from u2a_core.data.pairs import Message
from u2a_core.data.table import Example
from u2a_core.errors import UnlearningError
from u2a_core.unlearning.selection import Selection, select

CANDIDATES = [
    Example(f"id-{number}", (Message("user", "Why?"),), f"Bad {number}.", "pair", "rows.jsonl") for number in range(8)
]
IDS = [one.id for one in CANDIDATES]
DELTA = [0.3, -0.2, 0.0, 0.5, -0.7, 0.1, 0.5, -0.1]
SCORES = pd.DataFrame({"id": IDS, "delta_pa": DELTA}).iloc[::-1].reset_index(drop=True)


def chosen(asked: Selection, seed: int = 0, candidates: Sequence[Example] = CANDIDATES) -> list[str]:
    """The ids chosen; all with weight 1."""
    found = select(asked, candidates, SCORES if asked.needs_scores else None, seed)
    assert set(found.weights) == {1.0}
    return list(found.ids)


def test_all() -> None:
    assert chosen(Selection(everything=True)) == IDS


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.125, ["id-3"]),
        (0.25, ["id-3", "id-6"]),
        (0.5, ["id-0", "id-3", "id-5", "id-6"]),
        (1.0, IDS),
        (0.01, ["id-3"]),
    ],
)
def test_the_top_share_has_the_highest_scores(share: float, expected: list[str]) -> None:
    """Ties go by id; the order is that of the candidates; a share is never nothing."""
    assert chosen(Selection(top=share)) == expected


def test_the_inverse_of_the_top_is_the_bottom() -> None:
    assert chosen(Selection(top=0.25, invert=True)) == ["id-1", "id-4"]
    assert chosen(Selection(top=1.0, invert=True)) == IDS


def test_a_threshold_is_exclusive_and_its_inverse_the_rest() -> None:
    assert chosen(Selection(threshold=0.1)) == ["id-0", "id-3", "id-6"]
    assert chosen(Selection(threshold=0.1, invert=True)) == ["id-1", "id-2", "id-4", "id-5", "id-7"]
    assert chosen(Selection(threshold=-5.0)) == IDS


def test_chance_depends_on_seed_and_id_alone() -> None:
    draw = chosen(Selection(random=0.5))
    assert len(draw) == 4
    assert chosen(Selection(random=0.5)) == draw
    assert sorted(chosen(Selection(random=0.5), candidates=CANDIDATES[::-1])) == draw
    assert any(chosen(Selection(random=0.5), seed) != draw for seed in range(1, 4))
    rest = chosen(Selection(random=0.5, invert=True))
    assert sorted([*draw, *rest]) == IDS
    assert set(chosen(Selection(random=0.25))) < set(draw), "a larger share holds the smaller one"


def test_every_candidate_is_drawn_by_some_seed() -> None:
    assert {one for seed in range(60) for one in chosen(Selection(random=0.125), seed)} == set(IDS)


def written(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_file_brings_its_weights(tmp_path: Path) -> None:
    file = written(tmp_path / "set.jsonl", [{"id": "id-5", "weight": 3}, {"id": "id-1", "weight": 1}])
    assert select(Selection(file=file), CANDIDATES) == forget_set({"id-5": 1.5, "id-1": 0.5})


def test_the_inverse_of_a_file_is_what_it_does_not_unlearn(tmp_path: Path) -> None:
    """An example of weight 0 is not unlearned, so it is in the inverse; an excluded one is in neither."""
    rows: list[dict[str, object]] = [{"id": one, "weight": 1} for one in IDS[:4]]
    rows += [{"id": "id-4", "weight": 0}, {"id": "id-5", "weight": 1, "excluded": True}]
    assert chosen(Selection(file=written(tmp_path / "set.jsonl", rows), invert=True)) == ["id-4", "id-6", "id-7"]


# Bad input


@pytest.mark.parametrize(
    "asked", [{}, {"top": 0.5, "random": 0.5}, {"everything": True, "file": "x"}, {"threshold": 0.0, "top": 0.1}]
)
def test_exactly_one_way_of_choosing(asked: dict[str, object]) -> None:
    with pytest.raises(UnlearningError, match=r"Say one of --forget-set FILE, --top .* and --all"):
        Selection(**asked)


@pytest.mark.parametrize("name", ["top", "random"])
@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, math.nan, math.inf])
def test_a_share_that_is_none(name: str, share: float) -> None:
    with pytest.raises(UnlearningError, match=rf"--{name} {share} is no share: give a number above 0 and at most 1"):
        Selection(**{name: share})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_threshold_that_is_none(value: float) -> None:
    with pytest.raises(UnlearningError, match=rf"--threshold {value} is no finite number"):
        Selection(threshold=value)


@pytest.mark.parametrize(
    "asked",
    [
        Selection(threshold=0.5),
        Selection(threshold=-5.0, invert=True),
        Selection(everything=True, invert=True),
        Selection(random=1.0, invert=True),
    ],
)
def test_an_empty_selection(asked: Selection) -> None:
    with pytest.raises(UnlearningError, match=r"selection is empty: none of the 8 candidates is in it"):
        chosen(asked)


def test_an_empty_inverse_of_a_file(tmp_path: Path) -> None:
    file = written(tmp_path / "set.jsonl", [{"id": one} for one in IDS])
    with pytest.raises(UnlearningError, match=r"set.jsonl holds every candidate, so its inverse is empty"):
        chosen(Selection(file=file, invert=True))


def test_scores_that_are_not_there() -> None:
    with pytest.raises(UnlearningError, match="needs scores: run `u2a score` first"):
        select(Selection(top=0.5), CANDIDATES)
    for broken in (SCORES.iloc[:5], SCORES.assign(delta_pa=[math.nan, *DELTA[1:]])):
        with pytest.raises(UnlearningError, match=r"candidates have no finite ΔPA \(such as id-\d\): score them again"):
            select(Selection(threshold=0.0), CANDIDATES, broken)
