"""The forget sets of a bundle, as a curator edits them: an append-only log of commands in `forget_sets.sqlite`.

Undo, redo, autosave, audit and the safety of two tabs are one thing: every change names the version that its tab saw,
and is refused with a `StaleEditError` if the set moved on meanwhile. A change is kept whole or not made at all. One
`ForgetLog` may be shared by threads; every call opens the file anew.
"""

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from u2a_core.data.forget_set import ForgetSet
from u2a_core.errors import UnlearningError
from u2a_core.store import forget_history as rows
from u2a_core.store.forget_commands import (
    Command,
    Difference,
    Entries,
    compare,
    effective,
    load,
    refuse_unknown,
    text,
)
from u2a_core.store.forget_database import ForgetDatabase
from u2a_core.store.forget_files import chosen_set
from u2a_core.store.forget_history import HistoryRow, SavedVersion

FILE = "forget_sets.sqlite"
NAME = re.compile(r"[\w .-]{1,80}")


@dataclass(frozen=True)
class CuratedSet:
    """A forget set at one version: its entries in the order in which they came, and what undo and redo would do."""

    name: str
    version: int
    entries: Entries
    undo: str | None
    redo: str | None


class ForgetLog:
    """The sets in `folder` (a bundle's results folder), of which only `candidates` (ids) can be examples.

    `actor` names the tab or program that changes something. Raises `BundleError` for a file that is damaged or not one
    of forget sets, `StorageError` where it cannot be read or written or is opened `read_only`, and `UnlearningError`
    for a request that makes no sense; a name has letters, digits, spaces and - _ . up to 80 characters.
    """

    def __init__(self, folder: Path, candidates: Iterable[str], read_only: bool = False) -> None:
        self._candidates = frozenset(candidates)
        self._database = ForgetDatabase(folder / FILE, read_only)
        self._database.check()

    def names(self) -> list[str]:
        """The names of all sets, sorted."""
        with self._database.reading() as connection:
            return [name for (name,) in connection.execute("SELECT DISTINCT set_name FROM log ORDER BY set_name")]

    def version(self, name: str) -> int:
        """The number of rows in the set's log, 0 for a set that does not exist; cheap, for polling."""
        with self._database.reading() as connection:
            return rows.latest(connection, _name(name))[0]

    def read(self, name: str) -> CuratedSet:
        """The set as it is; without an entry where it does not exist."""
        with self._database.reading() as connection:
            return _read(connection, _name(name))

    def change(self, name: str, command: Command, seen: int, actor: str) -> CuratedSet:
        """Apply a command of `forget_commands` to the set at version `seen`; one that changes nothing is not recorded.

        The first command makes the set.
        """
        with self._editing(name, seen, actor, command.sentence) as connection:
            return self._changed(connection, name, command, actor)

    def undo(self, name: str, seen: int, actor: str) -> CuratedSet:
        """Take back the last command that is in effect."""
        with self._editing(name, seen, actor, "undo") as connection:
            _move(connection, name, actor, "undo")
            return _read(connection, name)

    def redo(self, name: str, seen: int, actor: str) -> CuratedSet:
        """Do again what was taken back last, as long as no other command came in between."""
        with self._editing(name, seen, actor, "redo") as connection:
            _move(connection, name, actor, "redo")
            return _read(connection, name)

    def save_version(self, name: str, version: str, seen: int, actor: str) -> CuratedSet:
        """Give the state of the set a name, once and for all."""
        sentence = f"saved version '{_name(version)}'"
        with self._editing(name, seen, actor, sentence) as connection:
            head = rows.latest(connection, name)[1]
            if any(version == saved.name for saved in rows.saved_versions(connection, name)):
                raise UnlearningError(
                    f"The forget set '{name}' has a version '{version}' already. Choose another name."
                )
            rows.append(
                connection, name, (head, head), actor, ("save_version", sentence, json.dumps({"name": version}))
            )
            return _read(connection, name)

    def versions(self, name: str) -> list[SavedVersion]:
        """The versions with a name, the oldest first."""
        with self._database.reading() as connection:
            return rows.saved_versions(connection, _name(name))

    def restore(self, name: str, version: str | int, seen: int, actor: str) -> CuratedSet:
        """Load an earlier version, by its name or number; it can be undone like any command."""
        with self._editing(name, seen, actor, f"restored version '{version}'") as connection:
            command = load(_entries_at(connection, name, version), f"version '{version}'")
            return self._changed(connection, name, command, actor)

    def save_as(self, name: str, other: str, seen: int, actor: str) -> CuratedSet:
        """Copy the set to a new one called `other`, whose history begins there; returns the copy."""
        with self._editing(name, seen, actor, f"saved as '{_name(other)}'") as connection:
            if rows.latest(connection, other)[0]:
                raise UnlearningError(f"There is a forget set '{other}' already. Choose another name.")
            entries = _read(connection, name).entries
            if not entries:
                raise UnlearningError(f"The forget set '{name}' is empty, so there is nothing to copy.")
            return self._changed(connection, other, load(entries, f"the set '{name}'"), actor)

    def entries_at(self, name: str, version: str | int) -> Entries:
        """The entries at an earlier version, by its name or number."""
        with self._database.reading() as connection:
            return _entries_at(connection, _name(name), version)

    def compare(self, name: str, before: str | int, after: str | int) -> Difference:
        """What changed between two versions of a set, by their names or numbers."""
        return compare(self.entries_at(name, before), self.entries_at(name, after))

    def history(self, name: str, limit: int = 100, before: int | None = None) -> list[HistoryRow]:
        """At most `limit` rows of the log, the newest first; `before` a version, to turn to older pages."""
        with self._database.reading() as connection:
            version = rows.latest(connection, _name(name))[0]
            return rows.history(connection, name, version + 1 if before is None else before, limit)

    def forget_set(self, name: str) -> ForgetSet:
        """The set for unlearning: ω with mean 1, locks and exclusions."""
        entries = self.read(name).entries
        refuse_unknown([one for one in entries if one not in self._candidates], entries)
        return chosen_set(entries)

    @contextmanager
    def _editing(self, name: str, seen: int, actor: str, edit: str) -> Iterator[sqlite3.Connection]:
        """A transaction on a set that is still at version `seen`."""
        _name(name)
        text(actor, "name of the tab", 200)
        with self._database.writing() as connection:
            rows.refuse_stale(connection, name, seen, actor, edit)
            yield connection

    def _changed(self, connection: sqlite3.Connection, name: str, command: Command, actor: str) -> CuratedSet:
        """Record what of the command changes something."""
        head = rows.latest(connection, name)[1]
        entries, work = rows.state(connection, name, head)
        part = effective(command, entries, self._candidates)
        if part is not None:
            entries = rows.record(connection, name, part, actor, entries, work)
        return _shown(connection, name, entries)


def _read(connection: sqlite3.Connection, name: str) -> CuratedSet:
    return _shown(connection, name, rows.state(connection, name, rows.latest(connection, name)[1])[0])


def _shown(connection: sqlite3.Connection, name: str, entries: Entries) -> CuratedSet:
    undo, redo = rows.previous(connection, name), rows.following(connection, name)
    version = rows.latest(connection, name)[0]
    return CuratedSet(name, version, entries, undo[1] if undo else None, redo[1] if redo else None)


def _move(connection: sqlite3.Connection, name: str, actor: str, command: str) -> None:
    """Undo or redo one command."""
    head = rows.latest(connection, name)[1]
    found = rows.previous(connection, name) if command == "undo" else rows.following(connection, name)
    if found is None:
        raise UnlearningError(f"There is nothing to {command} in the forget set '{name}'.")
    target, sentence = found
    told = f"took back: {sentence}" if command == "undo" else f"did again: {sentence}"
    arguments = json.dumps({"command": head if command == "undo" else target})
    rows.append(connection, name, (head, target), actor, (command, told, arguments))


def _entries_at(connection: sqlite3.Connection, name: str, version: str | int) -> Entries:
    saved = rows.saved_versions(connection, name)
    seq = version if isinstance(version, int) else next((one.seq for one in saved if one.name == version), -1)
    latest = rows.latest(connection, name)[0]
    if not 0 <= seq <= latest:
        names = f"Saved are: {', '.join(one.name for one in saved)}" if saved else "None is saved"
        raise UnlearningError(
            f"The forget set '{name}' has no version {version!r}. {names}; their numbers go from 0 to {latest}."
        )
    return rows.state(connection, name, rows.head_at(connection, name, seq))[0]


def _name(name: str) -> str:
    """The name if it can be one; `UnlearningError` otherwise."""
    if not NAME.fullmatch(name) or name != name.strip() or not name.strip("."):
        raise UnlearningError(
            f"{name[:100]!a} cannot be the name of a forget set or of a version. Use letters, digits, spaces and "
            "- _ . (at most 80 characters, no space at either end, not only dots)."
        )
    return name
