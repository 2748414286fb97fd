"""What a file of each kind is read as: JSON Lines, JSON, CSV or Parquet bytes to numbered raw rows.

A single unreadable row is a `BrokenRow`, for the caller to refuse or to count; what spoils the rest of the file is a
`DataError`.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from u2a_core.errors import DataError

byte_order_mark = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class RawRow:
    """A row as it was read: its one-based number and its columns."""

    number: int
    values: dict[str, Any]


@dataclass(frozen=True)
class BrokenRow:
    """A row that could not be read: its one-based number, what it is counted by, and what was wrong."""

    number: int
    reason: str
    detail: str


Rows = Iterator[RawRow | BrokenRow]


def _decoded(line: bytes, offset: int) -> str:
    """One line's text; `offset` is where it begins. Raises `ValueError` naming the byte that is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte 0x{line[error.start]:02x} at offset {offset + error.start} is not UTF-8") from error


def _lines(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Number, byte offset and bytes of each line, without a byte order mark."""
    offset = 0
    for number, line in enumerate(stream, 1):
        mark = len(byte_order_mark) if number == 1 and line.startswith(byte_order_mark) else 0
        yield number, offset + mark, line[mark:]
        offset += len(line)


def read_jsonl(stream: BinaryIO, location: str) -> Rows:
    """One object a line; blank lines are passed over but counted, so that a row's number is its line."""
    for number, offset, line in _lines(stream):
        if not line.strip():
            continue
        try:
            text = _decoded(line, offset)
        except ValueError as error:
            yield BrokenRow(number, "invalid UTF-8", f"{error} (save the file as UTF-8)")
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            if number == 1 and text.lstrip().startswith("["):
                raise _json_array(location) from error
            yield BrokenRow(number, "broken JSON", f"the line is not one JSON object ({error})")
            continue
        if number == 1 and isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            raise _json_array(location)
        yield _row(number, value)


def _json_array(location: str) -> DataError:
    return DataError(
        f"{location} is not what its name says: it should be JSON Lines (one object a line), but row 1 begins a JSON "
        "array. Rename it to .json."
    )


def _row(number: int, value: object) -> RawRow | BrokenRow:
    if isinstance(value, dict):
        return RawRow(number, value)
    return BrokenRow(number, "row is not an object", f"it is a JSON {type(value).__name__}, not an object with columns")


def read_json(stream: BinaryIO, location: str) -> Rows:
    """An array of objects, `{"data": [objects]}`, or an object of equally long columns."""
    content = stream.read().removeprefix(byte_order_mark)
    if not content.strip():
        return
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{location}, line {line}: byte 0x{content[error.start]:02x} at offset {error.start} is not UTF-8. Save "
            "the file as UTF-8."
        ) from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _broken_json(location, text, error) from error
    for number, item in enumerate(_json_rows(value, location), 1):
        yield _row(number, item)


def _json_rows(value: object, location: str) -> list[Any]:
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        lengths = {name: len(column) for name, column in value.items()}
        if len(set(lengths.values())) == 1:
            return [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]
        raise DataError(
            f"{location} is an object of columns of unequal length ({lengths}), so its rows are in doubt. Save it as "
            "an array of objects."
        )
    raise DataError(
        f"{location} holds neither an array of objects nor an object of columns, so it has no rows. Save it as an "
        "array of objects, or as JSON Lines with the name .jsonl."
    )


def _broken_json(location: str, text: str, error: Exception) -> DataError:
    first = text.lstrip().split("\n", 1)[0]
    try:
        lines = isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        lines = False
    if lines:
        return DataError(
            f"{location} is not what its name says: it should be one JSON document, but row 1 is an object of its "
            "own, as in JSON Lines. Rename it to .jsonl."
        )
    return DataError(f"{location} is broken JSON: {error}. Mend that place, or export the file again.")


def read_csv(stream: BinaryIO, location: str) -> Rows:
    """A header and one record a row (the header is not counted); every value is text."""
    records = csv.reader(_csv_lines(stream, location), strict=True)
    try:
        header = next(records, [])
        _check_header(header, location)
        for number, record in enumerate((record for record in records if record), 1):
            if len(record) == len(header):
                yield RawRow(number, dict(zip(header, record, strict=True)))
            else:
                found = f"it has {len(record)} values where the header has {len(header)} columns"
                yield BrokenRow(number, "wrong number of values", found)
    except csv.Error as error:
        raise DataError(
            f"{location}, line {records.line_num}: broken CSV ({error}). Mend the quotes there, or save the data as "
            "JSON Lines or Parquet."
        ) from error


def _csv_lines(stream: BinaryIO, location: str) -> Iterator[str]:
    for number, offset, line in _lines(stream):
        try:
            yield _decoded(line, offset)
        except ValueError as error:
            raise DataError(f"{location}, line {number}: {error}. Save the file as UTF-8.") from error


def _check_header(header: list[str], location: str) -> None:
    if len(header) == 1 and (header[0].startswith(("{", "[")) or any(sign in header[0] for sign in "\t;|")):
        raise DataError(
            f"{location} is not what its name says: row 1 is no header with commas between the columns. Save it with "
            "commas, or rename it to fit its content (.jsonl, .json)."
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{location} names columns twice in its header: {', '.join(twice)}. Rename one of each.")


def read_parquet(stream: BinaryIO, location: str) -> Rows:
    """The file's rows in order, nested values as lists and dicts."""
    number = 0
    try:
        seekable = (
            io.BytesIO(stream.read()) if isinstance(stream, io.BufferedReader) and not _is_file(stream) else stream
        )
        for batch in pq.ParquetFile(seekable).iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                number += 1
                yield RawRow(number, values)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{location} is a damaged Parquet file (after row {number}: {str(error).splitlines()[0]}). Download or "
            "export it again."
        ) from error


def _is_file(stream: io.BufferedReader) -> bool:
    return isinstance(stream.raw, io.FileIO)
