"""The Scores file: what goes in comes out, and what breaks the contract is refused by name."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from u2a_core.errors import BundleError, ScoringError
from u2a_core.store.scores import FORMAT_VERSION, HEADER, REQUIRED_METADATA, SCHEMA, read_scores, write_scores


def rows() -> list[dict[str, Any]]:
    """Two rows: one with every value, one with every optional value missing."""
    full = {
        "id": "aaaa",
        "delta_pa": 0.5,
        "nll": 1.25,
        "n_tokens": 3,
        "tokens": ["I", " know", "<eos>"],
        "token_delta_pa": [0.25, 0.5, -0.25],
        "delta_pa_alternatives": 0.0,
        "token_rewards": [0.5, -1.0, 0.25],
        "reward": -0.25 / 3,
        "low_reward_proportion": 1 / 3,
        "prompt": "user: Wie geht's? 你好",
        "response": "I know",
        "category": "privacy",
        "severity": 2.0,
        "chosen_score": 0.9,
        "rejected_score": 0.1,
        "source": "data.jsonl:1",
        "tags": ["a", "b"],
        "truncated": 0,
    }
    optional = [field.name for field in SCHEMA if field.nullable]
    bare = full | dict.fromkeys(optional) | {"id": "bbbb", "delta_pa": -0.125, "tags": [], "truncated": 7}
    return [full, bare]


def table(*changes: dict[str, Any]) -> pd.DataFrame:
    """The two rows, each with its changes laid over."""
    return pd.DataFrame([row | change for row, change in zip(rows(), [*changes, {}, {}], strict=False)])


def metadata(**changes: Any) -> dict[str, Any]:
    """Metadata that satisfy the contract, with changes."""
    base = {
        "format_version": FORMAT_VERSION,
        "estimator": "first_order",
        "objective": "ga",
        "units": "nats per pair",
        "sign": "> 0 helps",
        "bundle_hash": "ab12",
        "n": 2,
        "seed": 0,
        "versions": {"torch": "2.9"},
        "low_reward_threshold": None,
    }
    return base | changes


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.parquet"
    write_scores(path, table(), metadata(note="extra keys stay"))
    scores = read_scores(path)
    assert scores.metadata == metadata(note="extra keys stay")
    assert list(scores.table.columns) == SCHEMA.names
    for before, (_, after) in zip(rows(), scores.table.iterrows(), strict=True):
        for name, value in before.items():
            if value is None:
                assert after[name] is None or pd.isna(after[name]), name
            elif isinstance(value, list):
                assert list(after[name]) == value, name
            else:
                assert after[name] == value, name
    assert [child.name for child in path.parent.iterdir()] == ["scores.parquet"]


def test_types_on_disk_are_the_schema_even_where_a_column_is_all_missing(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_scores(path, table({"category": None, "token_rewards": None, "severity": None}), metadata())
    assert pq.read_schema(path).remove_metadata().equals(SCHEMA)


def test_an_empty_table_is_a_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_scores(path, table().iloc[:0], metadata(n=0))
    assert read_scores(path).table.empty


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"delta_pa": float("inf"), "token_delta_pa": None}, ["aaaa", "delta_pa", "finite"]),
        ({"delta_pa": float("nan"), "token_delta_pa": None}, ["aaaa", "delta_pa", "missing"]),
        ({"nll": float("-inf")}, ["aaaa", "nll", "finite"]),
        ({"id": "bbbb"}, ["bbbb", "more than once"]),
        ({"id": None}, ["row 1", "missing"]),
        ({"tokens": ["I", " know"]}, ["aaaa", "tokens", "2 entries", "3"]),
        ({"token_rewards": [0.5]}, ["aaaa", "token_rewards", "1 entries"]),
        ({"token_rewards": [0.5, None, 0.5]}, ["aaaa", "token_rewards", "not a number"]),
        ({"token_delta_pa": [0.25, 0.5, 0.25]}, ["aaaa", "adds up to 1", "0.5"]),
        ({"delta_pa_alternatives": 0.25}, ["aaaa", "delta_pa_alternatives", "0.25", "to 0.75", "0.5"]),
        ({"delta_pa_alternatives": float("inf")}, ["aaaa", "delta_pa_alternatives", "finite"]),
        ({"delta_pa_alternatives": None}, ["aaaa", "delta_pa_alternatives", "missing"]),
        ({"n_tokens": 0, "tokens": [], "token_delta_pa": None, "token_rewards": None}, ["aaaa", "no response token"]),
        ({"prompt": None}, ["aaaa", "prompt", "missing"]),
        ({"truncated": "many"}, ["truncated", "int32"]),
    ],
)
def test_a_broken_row_is_refused_by_name_and_the_old_file_stays(
    tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    path = tmp_path / "scores.parquet"
    path.write_bytes(b"old")
    with pytest.raises(ScoringError) as caught:
        write_scores(path, table(change), metadata())
    assert [word for word in words if word not in str(caught.value)] == []
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_text_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    wrong = table().assign(response=pd.Series(["\ud800", "fine"], dtype=object))
    with pytest.raises(ScoringError, match=r"`response`.*surrogates"):
        write_scores(tmp_path / "scores.parquet", wrong, metadata())


def test_the_parts_may_differ_from_the_total_by_rounding_only(tmp_path: Path) -> None:
    write_scores(tmp_path / "a", table({"token_delta_pa": [0.25, 0.5, -0.25 + 5e-4]}), metadata())
    with pytest.raises(ScoringError, match="adds up to"):
        write_scores(tmp_path / "b", table({"token_delta_pa": [0.25, 0.5, -0.25 + 5e-3]}), metadata())


def test_tokens_and_alternatives_add_up_to_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_scores(path, table({"token_delta_pa": [0.25, 0.5, 0.25], "delta_pa_alternatives": -0.5}), metadata())
    row = read_scores(path).table.iloc[0]
    assert sum(row["token_delta_pa"]) + row["delta_pa_alternatives"] == row["delta_pa"] == 0.5


def test_scores_of_a_time_without_alternatives_have_none(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    rewrite(path, good_header(), drop=("delta_pa_alternatives",))
    scores = read_scores(path)
    assert list(scores.table.columns) == SCHEMA.names
    assert scores.table["delta_pa_alternatives"].tolist() == [0.0, 0.0]


def test_a_wrong_set_of_columns_is_refused(tmp_path: Path) -> None:
    wrong = table().drop(columns="nll").assign(extra=1)
    with pytest.raises(ScoringError, match=r"lacks.*nll.*unknown.*extra"):
        write_scores(tmp_path / "scores.parquet", wrong, metadata())


@pytest.mark.parametrize("key", REQUIRED_METADATA)
def test_every_required_metadata_key_is_required(tmp_path: Path, key: str) -> None:
    less = {name: value for name, value in metadata().items() if name != key}
    with pytest.raises(ScoringError, match=key):
        write_scores(tmp_path / "scores.parquet", table(), less)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"n": 3}, "n = 3"), ({"format_version": 99}, "99"), ({"x": {1, 2}}, "JSON"), ({"x": float("nan")}, "JSON")],
)
def test_metadata_that_cannot_be_true_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ScoringError, match=words):
        write_scores(tmp_path / "scores.parquet", table(), metadata(**change))


def rewrite(path: Path, header: bytes | None, drop: tuple[str, ...] = (), **columns: pa.Array) -> None:
    """Write a Parquet file past the checks of `write_scores`."""
    write_scores(path, table(), metadata())
    arrow = pq.ParquetFile(path).read().drop_columns(list(drop))
    for name, column in columns.items():
        arrow = arrow.set_column(arrow.column_names.index(name), name, column)
    pq.write_table(arrow.replace_schema_metadata({} if header is None else {HEADER: header}), path)


def good_header(**changes: Any) -> bytes:
    return json.dumps(metadata(**changes)).encode()


def test_unreadable_files_are_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    with pytest.raises(BundleError, match=r"no scores file.*u2a score"):
        read_scores(path)
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(BundleError, match=r"cannot be read as Parquet[\s\S]*u2a score"):
        read_scores(path)
    write_scores(path, table(), metadata())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BundleError, match="cannot be read as Parquet"):
        read_scores(path)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (None, "not a scores file"),
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "lack format_version"),
        (good_header(n=5), "n = 5"),
        (good_header(format_version=2), "format version is 2"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, header: bytes | None, words: str) -> None:
    path = tmp_path / "scores.parquet"
    rewrite(path, header)
    with pytest.raises(BundleError, match=words):
        read_scores(path)


def test_wrong_columns_are_refused_on_reading(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    rewrite(path, good_header(), drop=("nll", "tags"))
    with pytest.raises(BundleError, match="nll, tags"):
        read_scores(path)
    rewrite(path, good_header(), delta_pa=pa.array(["high", "low"]))
    with pytest.raises(BundleError, match="wrong type"):
        read_scores(path)
    rewrite(path, good_header(), delta_pa=pa.array([0.5, float("nan")]))
    with pytest.raises(BundleError, match="bbbb"):
        read_scores(path)
