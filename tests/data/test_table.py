"""The pair table: what is written comes back; the views are the design's splits; a changed file is refused."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from u2a_core.data.pairs import Message, PreferencePair, content_id
from u2a_core.data.splits import SplitAssignment, SplitSizes, split_pairs
from u2a_core.data.table import SCHEMA, PairTable, read_pairs, write_pairs
from u2a_core.errors import BundleError, StorageError

ROWS = (
    PreferencePair((Message("user", "p0"),), "g0", "b0", "a:1", "c", 2.0, 0.5, -1.5, ("t", "u"), ((0, 1), (1, 2))),
    PreferencePair((Message("system", ""), Message("user", "p1 ü\n三")), "g1", "b1", "a:2", low_reward_spans=()),
    PreferencePair((Message("user", "p2"),), None, "b2", "a:3", severity=1.0),
    PreferencePair((Message("user", "p3"),), "g3", None, "a:4"),
    PreferencePair((Message("user", "p4"),), "g4", "b4", "a:5"),
    PreferencePair((Message("user", "p5"),), "g5", "b5", "a:6"),
    PreferencePair((Message("user", "p6"),), "g6", "b6", "a:7", category="c6"),
)
SIDES = tuple(
    SplitAssignment(split, candidate)
    for split, candidate in [
        ("negative", True),
        ("negative", False),
        ("negative", True),
        ("positive", False),
        ("pa_train", False),
        ("pa_test", False),
        ("positive", False),
    ]
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "bundle" / "data" / "pairs.parquet"
    write_pairs(path, ROWS, SIDES)
    return path


def test_round_trip(written: Path) -> None:
    table = read_pairs(written)
    assert (table.pairs, table.assignments) == (ROWS, SIDES)
    assert pq.read_schema(written).equals(SCHEMA)
    assert [path.name for path in written.parent.iterdir()] == ["pairs.parquet"]


def test_round_trip_of_a_real_split(tmp_path: Path, make_pair: Callable[..., PreferencePair]) -> None:
    pairs = [make_pair(f"p{number}", source=f"rows.jsonl:{number}") for number in range(40)]
    assignments = split_pairs(pairs, SplitSizes(), seed=3)
    write_pairs(tmp_path / "pairs.parquet", pairs, assignments)
    table = read_pairs(tmp_path / "pairs.parquet")
    assert (list(table.pairs), list(table.assignments)) == (pairs, assignments)
    assert table.sizes() == {"original": 30, "forget": 20, "retain": 10, "pa_train": 4, "pa_test": 4, "test": 2}
    lengths = {name: len(getattr(table, name)) for name in ("original", "forget", "retain")}
    assert lengths == {name: table.sizes()[name] for name in lengths}


def test_views(written: Path) -> None:
    table = read_pairs(written)
    assert [example.response for example in table.original] == ["b0", "b1", "b2", "g3", "g6"]
    assert [example.response for example in table.negatives] == ["b0", "b1", "b2"]
    assert [example.response for example in table.forget] == ["b0", "b2"]
    assert [example.response for example in table.retain] == ["g3", "g6"]
    assert table.pairs_of("pa_train") == ROWS[4:5]
    assert table.pairs_of("pa_test") == ROWS[5:6]
    assert table.pairs_of("test") == ()
    assert table.sizes() == {"original": 5, "forget": 2, "retain": 2, "pa_train": 1, "pa_test": 1, "test": 0}


def test_examples_know_their_pair(written: Path) -> None:
    table = read_pairs(written)
    negative, positive = table.forget[0], table.retain[1]
    assert (negative.id, negative.pair_id, negative.prompt) == (ROWS[0].negative_id, ROWS[0].id, ROWS[0].prompt)
    assert (negative.category, negative.severity, negative.source, negative.tags) == ("c", 2.0, "a:1", ("t", "u"))
    assert negative.low_reward_spans == ((0, 1), (1, 2))
    assert positive.id == content_id(ROWS[6].prompt, "g6")
    assert (positive.pair_id, positive.category, positive.low_reward_spans) == (ROWS[6].id, "c6", None)


def test_a_pair_in_need_of_an_assignment() -> None:
    with pytest.raises(ValueError, match="7 pairs with 6 assignments"):
        PairTable(ROWS, SIDES[:-1])


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        read_pairs(path)
    message = str(caught.value)
    assert str(path) in message
    assert "make the bundle again" in message
    assert "\n" not in message
    return message


def test_missing_file(tmp_path: Path) -> None:
    assert "lacks its pairs" in refusal(tmp_path / "pairs.parquet")


@pytest.mark.parametrize("damage", ["text", "cut", "flipped"])
def test_damaged_file(written: Path, damage: str) -> None:
    content = bytearray(written.read_bytes())
    if damage == "flipped":
        content[40] ^= 0xFF
    written.write_bytes({"text": b"no parquet", "cut": content[: len(content) // 2], "flipped": content}[damage])
    assert "is damaged" in refusal(written)


def test_a_flipped_byte_is_never_read_as_data(written: Path) -> None:
    content = written.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    refused = 0
    for place in range(4, footer, 5):
        written.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            table = read_pairs(written)
        except BundleError:
            refused += 1
        else:
            assert (table.pairs, table.assignments) == (ROWS, SIDES)  # a byte that Parquet does not use
    assert refused > 100


def test_other_columns(written: Path) -> None:
    pq.write_table(pq.read_table(written).drop_columns(["split"]), written)
    assert "has other columns" in refusal(written)


def change(path: Path, column: str, row: int, value: object) -> None:
    rows = pq.read_table(path).to_pylist()
    rows[row][column] = value
    pq.write_table(type(pq.read_table(path)).from_pylist(rows, schema=SCHEMA), path)


@pytest.mark.parametrize(("column", "value"), [("rejected", "other"), ("chosen", None), ("negative_id", "0" * 16)])
def test_changed_text_is_refused(written: Path, column: str, value: object) -> None:
    change(written, column, 1, value)
    message = refusal(written)
    assert f"row 2 (pair {ROWS[1].id})" in message
    assert "changed since" in message


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [(0, "split", "dev"), (2, "split", "pa_train"), (3, "split", "negative"), (4, "candidate", True)],
)
def test_impossible_splits_are_refused(written: Path, row: int, column: str, value: object) -> None:
    change(written, column, row, value)
    message = refusal(written)
    assert f"row {row + 1} (pair {ROWS[row].id})" in message
    assert "cannot lie in the split" in message


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="Could not write"):
        write_pairs(tmp_path / "file" / "pairs.parquet", ROWS, SIDES)
