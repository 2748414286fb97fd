"""Readers: every file kind gives the same rows; a file that is not what its name says, and a broken row, say where."""

import csv
import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from u2a_core.data import hub
from u2a_core.data.file_kinds import BrokenRow, RawRow
from u2a_core.data.readers import open_source
from u2a_core.errors import DataError
from u2a_core.store.files import file_sha256

ROOT = Path(__file__).parents[2]
ROWS = [{"a": "one", "b": "1"}, {"a": 'zwei,\n"quoted" ü', "b": "2"}, {"a": "三", "b": "3"}]


def write_csv(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["a", "b"])
        writer.writeheader()
        writer.writerows(ROWS)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "rows.jsonl": lambda path: path.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8"),
    "rows.ndjson": lambda path: path.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8"),
    "rows.json": lambda path: path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8"),
    "columns.json": lambda path: path.write_text(
        json.dumps({name: [row[name] for row in ROWS] for name in "ab"}), encoding="utf-8"
    ),
    "data.json": lambda path: path.write_text(json.dumps({"version": 1, "data": ROWS}), encoding="utf-8"),
    "rows.csv": write_csv,
    "rows.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path),
}


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(open_source(str(path)).rows)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_gives_the_same_rows(tmp_path: Path, name: str, zipped: bool) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    if zipped:
        path = path.with_name(name + ".gz")
        path.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    source = open_source(str(path))
    assert source.name == path.name
    assert source.fingerprint == f"sha256:{file_sha256(path)}"
    assert list(source.rows) == [RawRow(number, row) for number, row in enumerate(ROWS, 1)]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_byte_order_mark_is_accepted(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [row.values for row in open_source(str(path)).rows if isinstance(row, RawRow)] == ROWS


def test_jsonl_rows_are_numbered_by_line(tmp_path: Path) -> None:
    path = tmp_path / "gaps.jsonl"
    path.write_text('{"a": 1}\n\n\n{"a": 2}\n')
    assert [row.number for row in open_source(str(path)).rows] == [1, 4]


@pytest.mark.parametrize(
    ("name", "content", "found", "remedy"),
    [
        ("a.parquet", b"prompt,chosen\n", "other text", "Rename it"),
        ("a.parquet", b'{"a": 1}\n', "JSON text", "Rename it"),
        ("a.jsonl", gzip.compress(b'{"a": 1}'), "gzip", ".gz if it is gzipped"),
        ("a.csv", b"PAR1\x00\x00", "Parquet", "Rename it"),
        ("a.json", b"\x01\x02\x00\x03", "binary data", "Rename it"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "UTF-16", "save it again as UTF-8"),
        ("a.jsonl.gz", b'{"a": 1}', "JSON text", "Rename it"),
        ("a.jsonl.gz", b"", "empty", "Rename it"),
        ("a.csv.gz", gzip.compress(b"PAR1\x00"), "Parquet", "Rename it"),
        ("a.json", b'{"a": 1}\n{"a": 2}\n', "JSON Lines", "Rename it to .jsonl"),
        ("a.jsonl", b'[\n{"a": 1}\n]', "JSON array", "Rename it to .json"),
        ("a.jsonl", b'[{"a": 1}, {"a": 2}]', "JSON array", "Rename it to .json"),
        ("a.csv", b'{"a": 1}\n{"a": 2}\n', "no header", "commas"),
        ("a.csv", b"a\tb\n1\t2\n", "no header", "commas"),
    ],
)
def test_content_that_contradicts_the_name(tmp_path: Path, name: str, content: bytes, found: str, remedy: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = error_of(path)
    assert "is not what its name says" in message
    assert found in message
    assert remedy in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b""),
        ("a.json", b""),
        ("a.csv", b""),
        ("a.parquet", b""),
        ("a.jsonl", b" \n\n"),
        ("a.json", b" \n\n"),
    ],
)
def test_empty_file(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = error_of(path)
    assert "no rows" in message
    assert "at least one row" in message


def test_header_without_rows_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,chosen\n")
    assert "no rows" in error_of(path)
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), path.with_suffix(".parquet"))
    assert "no rows" in error_of(path.with_suffix(".parquet"))


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"a": "\xff"}', "invalid UTF-8", "byte 0xff at offset 16 is not UTF-8"),
        (b'{"a": ', "broken JSON", "not one JSON object"),
        (b"[1]", "row is not an object", "JSON list"),
        (b"3", "row is not an object", "JSON int"),
        (b"[" * 100_000, "broken JSON", "recursion"),
        (b'{"a": ' + b"1" * 5000 + b"}", "broken JSON", "limit"),
    ],
)
def test_broken_jsonl_rows_do_not_stop_the_others(tmp_path: Path, line: bytes, reason: str, detail: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    first, broken, last = open_source(str(path)).rows
    assert isinstance(broken, BrokenRow)
    assert (broken.number, broken.reason) == (2, reason)
    assert detail in broken.detail
    assert (first, last) == (RawRow(1, {"a": 1}), RawRow(3, {"a": 2}))


@pytest.mark.parametrize(
    ("name", "content", "where", "what"),
    [
        ("a.json", b'[{"a": 1},\n{"a": "\xc3("}]', "line 2", "byte 0xc3 at offset 18 is not UTF-8"),
        ("a.csv", b"a,b\n1,2\n3,\xe9\n", "line 3", "byte 0xe9 at offset 10 is not UTF-8"),
        ("a.json", b'[{"a": 1},\n{"a": }]', "line 2", "broken JSON"),
        ("a.csv", b'a,b\n1,"2\n', "line 2", "broken CSV"),
        ("a.csv", b"a,a\n1,2\n", "twice", "a"),
        ("a.json", b'{"a": [1, 2], "b": [1]}', "unequal length", "'b': 1"),
        ("a.json", b'{"a": 1}', "neither an array", ".jsonl"),
        ("a.parquet", b"PAR1" + b"x" * 40, "after row 0", "damaged Parquet"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 999)[:-12], "damaged gzip", "again"),
    ],
)
def test_broken_files_say_where(tmp_path: Path, name: str, content: bytes, where: str, what: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = error_of(path)
    assert where in message
    assert what in message


def test_csv_row_with_another_number_of_values(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n3\n\n4,5,6\n7,8\n")
    rows = list(open_source(str(path)).rows)
    assert [type(row) for row in rows] == [RawRow, BrokenRow, BrokenRow, RawRow]
    assert isinstance(rows[2], BrokenRow)
    assert rows[2] == BrokenRow(3, "wrong number of values", "it has 3 values where the header has 2 columns")


@pytest.mark.parametrize(
    ("name", "what"),
    [("missing.jsonl", "There is no file"), ("folder/missing.csv", "There is no file"), ("a.txt", "by its name")],
)
def test_no_such_file_or_unknown_kind(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "a.txt").write_text("a")
    assert what in error_of(tmp_path / name)


class FakeLibrary:
    """Stands for `datasets` where a test must not reach for the network."""

    class exceptions:  # noqa: N801 - the library's own name
        class DatasetsError(Exception):
            pass

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def load_dataset(self, *arguments: Any) -> Any:
        self.asked.append(arguments)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def dataset_dict(**splits: list[dict[str, str]]) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in splits.items()})


def test_datasets_folder(tmp_path: Path) -> None:
    splits = dataset_dict(train=ROWS[:2], test=ROWS[2:])
    splits.save_to_disk(str(tmp_path / "both"))
    splits["test"].save_to_disk(str(tmp_path / "one"))
    both, one = str(tmp_path / "both"), str(tmp_path / "one")
    assert [row.values for row in open_source(both).rows if isinstance(row, RawRow)] == ROWS[:2]
    assert list(open_source(both, "test").rows) == list(open_source(one).rows) == [RawRow(1, ROWS[2])]
    assert open_source(both).name == "both[train]"
    assert open_source(one).name == "one"
    assert open_source(both).fingerprint == open_source(both).fingerprint != open_source(both, "test").fingerprint
    with pytest.raises(DataError, match=r"no split `dev`. Pass --hub-split with one of: train, test"):
        open_source(both, "dev")


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    assert "not written by datasets.save_to_disk" in error_of(tmp_path)
    (tmp_path / "dataset_info.json").write_text("{}")
    assert "is damaged" in error_of(tmp_path)


def test_hub_id_with_config(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeLibrary(dataset_dict(train=ROWS))
    monkeypatch.setattr(hub, "_library", lambda _: library)
    source = open_source("owner/name:small")
    assert library.asked == [("owner/name", "small")]
    assert source.name == "owner/name:small[train]"
    assert source.fingerprint.startswith("datasets:")
    assert [row.values for row in source.rows if isinstance(row, RawRow)] == ROWS


def test_hub_splits_are_never_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_library", lambda _: FakeLibrary(dataset_dict(dev=ROWS, test=ROWS)))
    with pytest.raises(DataError, match=r"owner/name has several splits .* --hub-split with one of: dev, test"):
        open_source("owner/name")


def test_hub_id_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_library", lambda _: FakeLibrary(ConnectionError("no route\nmore")))
    with pytest.raises(DataError, match=r"owner/name could not be loaded \(no route\)\. Check the path or the name"):
        open_source("owner/name")


def test_hub_id_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"can only be read with the library `datasets`.*pip install datasets"):
        open_source("owner/name")


def test_reading_imports_neither_torch_nor_datasets(write_rows: Callable[..., str]) -> None:
    program = (
        "import sys; import u2a_core.data.splits, u2a_core.data.table; from u2a_core.data.loading import load_pairs; "
        f"load_pairs([{write_rows([{'prompt': 'p', 'chosen': 'a', 'rejected': 'b'}])!r}]); "
        "print({'torch', 'datasets', 'streamlit'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
