"""Atomic files: a path exists whole or not at all (`<name>.part` becomes `<name>` by rename).

Shared by everything that writes results, so that nothing half-written is ever read.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from u2a_core.errors import StorageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield `<path>.part` to write to (file or folder); it becomes `path` when the block ends without an error.

    Raises `StorageError` where the folder cannot be written or the disk is full; the unfinished part is removed.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(part)
        yield part
        _take_place(part, path)
    except OSError as error:
        remove(part, quiet=True)
        raise unwritable(path, error) from error
    except SafetensorError as error:  # safetensors' own name for a disk that is full
        remove(part, quiet=True)
        raise unwritable(path, OSError(str(error))) from error
    except BaseException:
        remove(part, quiet=True)
        raise


def _take_place(part: Path, path: Path) -> None:
    """Rename `part` to `path`; a folder there before waits as `<path>.old`, and returns if the rename fails."""
    if not path.is_dir():
        part.replace(path)
        return
    old = path.with_name(path.name + ".old")
    remove(old)
    path.replace(old)
    try:
        part.replace(path)
    except OSError:
        old.replace(path)
        raise
    remove(old, quiet=True)


def unwritable(path: Path, error: OSError) -> StorageError:
    """The `StorageError` for an operating-system error met while writing `path`."""
    reason = error.strerror or str(error)
    return StorageError(
        f"Could not write {path}: {reason}. Nothing was changed there. Free some space or choose a folder that you "
        "may write to, and run the same command again."
    )


def remove(path: Path, quiet: bool = False) -> None:
    """Remove a file or a folder if it is there; `quiet` keeps an earlier error the one that is reported."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=quiet)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        if not quiet:
            raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document atomically."""
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_plain_name(name: str) -> bool:
    """Whether a result can have this name: letters, digits and `-_.`, with no point at the start; no path."""
    return bool(name) and not name.startswith(".") and all(letter.isalnum() or letter in "-_." for letter in name)


def writable_folder(path: Path) -> Path:
    """Create `path` if need be and prove that it can be written; raises `StorageError`, before any work is done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise unwritable(path, error) from error
    return path
