"""Forget sets as a log: any sequence of commands against a plain model, history, versions, files, hostile text."""

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from u2a_core.data.forget_set import forget_set, read_forget_set
from u2a_core.data.pairs import Message, PreferencePair
from u2a_core.data.table import negative_example
from u2a_core.errors import BundleError, DataError, UnlearningError
from u2a_core.store import forget_commands as commands
from u2a_core.store import forget_database, forget_files, forget_history
from u2a_core.store.forget_commands import Entry
from u2a_core.store.forget_log import FILE, CuratedSet, ForgetLog

IDS = ["a", "b", "c", "d"]
TAB = "tab-1"


class Unsynced(sqlite3.Connection):
    """A connection that does not wait for the disk, so that thousands of commands take seconds."""

    def __init__(self, *values: Any, **options: Any) -> None:
        super().__init__(*values, **options)
        super().execute("PRAGMA synchronous = OFF")


@pytest.fixture(autouse=True, scope="module")
def _unsynced() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forget_database.sqlite3, "connect", partial(sqlite3.connect, factory=Unsynced))
        yield


@pytest.fixture
def log(tmp_path: Path) -> ForgetLog:
    return ForgetLog(tmp_path, IDS)


def done(log: ForgetLog, *given_commands: commands.Command, name: str = "mine") -> CuratedSet:
    """The set after the commands."""
    for command in given_commands:
        log.change(name, command, log.version(name), TAB)
    return log.read(name)


def raw(log_folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(log_folder / FILE, isolation_level=None)


# Any sequence of commands against a plain model


class Model:
    """The meaning of the commands, told a second time: whole states, and two stacks of them."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, Any]] = {}
        self.past: list[dict[str, dict[str, Any]]] = []
        self.future: list[dict[str, dict[str, Any]]] = []

    def after(self, kind: str, ids: list[str], value: Any) -> dict[str, dict[str, Any]] | None:
        """The entries after a command, None where it is refused."""
        if kind == "load":
            return {one: {"weight": value, "locked": True, "excluded": False, "note": one} for one in ids}
        new = {one: dict(entry) for one, entry in self.entries.items()}
        if kind == "remove":
            new = {one: entry for one, entry in new.items() if one not in ids}
        elif kind in ("add", "exclude"):
            weight = value if kind == "add" else 1.0
            for one in ids:
                new.setdefault(one, {"weight": weight, "locked": False, "excluded": False, "note": ""})
        elif not new.keys() >= set(ids):
            return None
        field, becomes = {
            "set_weight": ("weight", value),
            "lock": ("locked", True),
            "unlock": ("locked", False),
            "exclude": ("excluded", True),
            "include": ("excluded", False),
            "note": ("note", f"note {value}"),
        }.get(kind, (None, None))
        for one in ids if field else []:
            new[one][field] = becomes
        refused = kind not in ("lock", "unlock", "note") and any(
            entry["locked"] and new.get(one) != entry for one, entry in self.entries.items()
        )
        return None if refused else new

    def step(self, kind: str, ids: list[str], value: Any) -> bool | None:
        """Whether the step changes something; None where it is refused."""
        if kind in ("undo", "redo"):
            source, target = (self.past, self.future) if kind == "undo" else (self.future, self.past)
            if not source:
                return None
            target.append(self.entries)
            self.entries = source.pop()
            return True
        new = self.after(kind, ids, value)
        if new is None:
            return None
        if list(new.items()) == list(self.entries.items()):
            return False
        self.past.append(self.entries)
        self.future.clear()
        self.entries = new
        return True


def command_of(kind: str, ids: list[str], value: float) -> commands.Command:
    match kind:
        case "add":
            return commands.add(ids, value)
        case "set_weight":
            return commands.set_weight(dict.fromkeys(ids, value))
        case "note":
            return commands.note(dict.fromkeys(ids, f"note {value}"))
        case "load":
            return commands.load({one: Entry(value, locked=True, note=one) for one in ids}, "elsewhere")
    return {
        "remove": commands.remove,
        "lock": commands.lock,
        "unlock": commands.unlock,
        "exclude": commands.exclude,
        "include": commands.include,
    }[kind](ids)


def plain(entries: Any) -> list[tuple[str, dict[str, Any]]]:
    """Entries in their order, as the model has them."""
    return [
        (one, {"weight": entry.weight, "locked": entry.locked, "excluded": entry.excluded, "note": entry.note})
        for one, entry in entries.items()
    ]


KINDS = ["add", "remove", "set_weight", "lock", "unlock", "exclude", "include", "note", "load", "add", "exclude"]
STEPS = st.tuples(
    st.sampled_from([*KINDS, "undo", "undo", "undo", "redo", "redo"]),
    st.lists(st.sampled_from(IDS), max_size=4, unique=True),
    st.sampled_from([0.0, 1.0, 2.5]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=25), st.sampled_from([1, 4, 1000]))
def test_any_commands_undone_and_redone_at_any_point(steps: list[tuple[str, list[str], float]], work: int) -> None:
    """Against the model after every step, by a log opened anew, however often snapshots are taken."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(forget_history, "SNAPSHOT_WORK", work)
        model, seen = Model(), [[]]
        for kind, ids, value in steps:
            log = ForgetLog(Path(folder), IDS)
            version = log.version("mine")
            changed = model.step(kind, ids, value)
            try:
                if kind in ("undo", "redo"):
                    found = getattr(log, kind)("mine", version, TAB)
                else:
                    found = log.change("mine", command_of(kind, ids, value), version, TAB)
                assert found == log.read("mine")
            except UnlearningError:
                assert changed is None
            else:
                assert changed is not None
            current = log.read("mine")
            assert plain(current.entries) == list(model.entries.items())
            assert current.version == version + bool(changed)
            assert (current.undo is not None, current.redo is not None) == (bool(model.past), bool(model.future))
            seen += [plain(current.entries)] if changed else []
        log = ForgetLog(Path(folder), IDS)
        assert [plain(log.entries_at("mine", version)) for version in range(len(seen))] == seen, "nothing is ever lost"
        assert len(log.history("mine", limit=1000)) == len(seen) - 1
        done_and_kept = [
            row for row in log.history("mine", limit=1000) if not row.undone and "back" not in row.sentence
        ]
        assert len([row for row in done_and_kept if "again" not in row.sentence]) == len(model.past)


# Commands one by one


def test_an_entry_and_its_life(log: ForgetLog) -> None:
    assert log.read("mine") == CuratedSet("mine", 0, {}, None, None)
    assert done(log, commands.add(["a", "b"], 2)).entries == {"a": Entry(2.0), "b": Entry(2.0)}
    assert done(log, commands.set_weight({"a": 3, "b": 0})).entries == {"a": Entry(3.0), "b": Entry(0.0)}
    assert done(log, commands.note({"a": "look again"})).entries["a"] == Entry(3.0, note="look again")
    assert done(log, commands.exclude(["a", "c"])).entries["c"] == Entry(1.0, excluded=True)
    assert done(log, commands.include(["a"])).entries["a"] == Entry(3.0, note="look again"), "as before"
    assert done(log, commands.lock(["b"])).entries["b"] == Entry(0.0, locked=True)
    assert list(done(log, commands.remove(["a"])).entries) == ["b", "c"]
    assert done(log, commands.add(["a"])).entries["a"] == Entry(1.0), "notes go with the example"
    assert list(log.read("mine").entries) == ["b", "c", "a"], "in the order in which they came"
    assert log.version("mine") == 8


def test_what_changes_nothing_is_not_recorded(log: ForgetLog) -> None:
    version = done(log, commands.add(["a", "b"]), commands.lock(["a"])).version
    for command in (
        commands.add(["b", "a"], 7),
        commands.add([]),
        commands.remove(["c", "d"]),
        commands.lock(["a"]),
        commands.unlock(["b"]),
        commands.include(["a", "b"]),
        commands.set_weight({"a": 1.0}),
        commands.note({"a": ""}),
        commands.load({"a": Entry(locked=True), "b": Entry()}, "a file"),
    ):
        assert done(log, command).version == version, command.name
    assert done(log, commands.load({"b": Entry(), "a": Entry(locked=True)}, "a file")).version == version + 1, "order"


def test_only_what_changes_is_recorded(log: ForgetLog) -> None:
    found = done(log, commands.add(["a"]), commands.add(["a", "b", "c", "b"]))
    assert found.undo == "added 2 examples"


def test_a_lock_keeps_weight_exclusion_and_place(log: ForgetLog) -> None:
    before = done(log, commands.add(["a", "b"]), commands.exclude(["b"]), commands.lock(["a", "b"]))
    for command in (
        commands.remove(["a", "c"]),
        commands.set_weight({"a": 2.0}),
        commands.exclude(["a"]),
        commands.include(["b"]),
    ):
        with pytest.raises(
            UnlearningError, match=r"1 of \d examples are locked. Unlock .*They are: [ab]\. Nothing was"
        ):
            done(log, command)
    assert log.read("mine") == before
    assert done(log, commands.note({"a": "kept"})).entries["a"].note == "kept"
    assert done(log, commands.unlock(["a"]), commands.remove(["a"])).entries.keys() == {"b"}


@pytest.mark.parametrize(
    "command",
    [
        commands.set_weight({"a": 1.0, "d": 2.0}),
        commands.lock(["a", "d"]),
        commands.unlock(["d"]),
        commands.include(["d"]),
        commands.note({"d": "x"}),
    ],
)
def test_examples_that_are_not_in_the_set(log: ForgetLog, command: commands.Command) -> None:
    before = done(log, commands.add(["a", "b"]))
    with pytest.raises(UnlearningError, match=r"1 of \d examples are not in the set\. Add them first\. They are: d\."):
        done(log, command)
    assert log.read("mine") == before


def test_ids_that_are_no_candidates_are_counted_and_five_named(log: ForgetLog) -> None:
    before = done(log, commands.add(["a"]))
    strange = [f"x{number}" for number in range(1200)]
    for command in (
        commands.add(["b", *strange]),
        commands.exclude(["b", *strange]),
        commands.load(dict.fromkeys(["b", *strange], Entry()), "a file"),
    ):
        with pytest.raises(UnlearningError) as caught:
            done(log, command)
        assert "1,200 of 1,201 examples are no candidates of this bundle: x0, x1, x2, x3, x4 …." in str(caught.value)
    assert log.read("mine") == before


def test_a_set_whose_examples_are_no_candidates_any_more(tmp_path: Path, log: ForgetLog) -> None:
    done(log, commands.add(IDS))
    later = ForgetLog(tmp_path, ["a", "b"])
    with pytest.raises(UnlearningError, match=r"2 of 4 examples are no candidates of this bundle: c, d\."):
        later.forget_set("mine")
    assert done(later, commands.exclude(["b", "c"])).entries["c"].excluded, "they can be changed, and removed"
    done(later, commands.remove(["c", "d"]))
    done(later, commands.include(["b"]))
    assert later.forget_set("mine").ids == ("a", "b")


@pytest.mark.parametrize("weight", [-1, -1e-9, math.nan, math.inf, None, "heavy"])
def test_weights_that_are_none(weight: Any) -> None:
    said = "cannot be .* a weight is a finite number of at least 0"
    with pytest.raises(UnlearningError, match=f"The weight of 2 examples {said}"):
        commands.add(["a", "b"], weight)
    with pytest.raises(UnlearningError, match=f"The weight of example b {said}"):
        commands.set_weight({"a": 1.0, "b": weight})
    with pytest.raises(UnlearningError, match=f"The weight of example a {said}"):
        commands.load({"a": Entry(weight)}, "a file")


# Undo, history, versions


def test_undo_and_redo_at_the_ends(log: ForgetLog) -> None:
    for move in (log.undo, log.redo):
        with pytest.raises(UnlearningError, match=r"nothing to (un|re)do in the forget set 'mine'"):
            move("mine", 0, TAB)
    done(log, commands.add(["a"]), commands.add(["b"]))
    first = log.undo("mine", 2, TAB)
    assert (first.undo, first.redo) == ("added a", "added b")
    empty = log.undo("mine", 3, TAB)
    assert (empty.version, empty.entries, empty.undo, empty.redo) == (4, {}, None, "added a")
    assert log.redo("mine", 4, TAB).redo == "added b"
    after = done(log, commands.add(["c"]))
    assert (list(after.entries), after.redo) == (["a", "c"], None), "a new command clears redo"
    with pytest.raises(UnlearningError, match="nothing to redo"):
        log.redo("mine", 6, TAB)
    assert list(log.entries_at("mine", 2)) == ["a", "b"], "the log keeps what was cleared"


def test_history_in_sentences(log: ForgetLog) -> None:
    start = datetime.now(UTC).replace(microsecond=0)
    done(log, commands.add(["a", "b", "c"]), commands.set_weight({"a": 2.0}), commands.set_weight({"a": 1.5, "b": 2}))
    log.undo("mine", 3, "tab-2")
    done(
        log,
        commands.set_weight({"b": 0.5, "c": 0.5}),
        commands.note({"a": "why?"}),
        commands.note({"a": ""}),
        commands.lock(["a"]),
        commands.unlock(["a"]),
        commands.exclude(["b", "c"]),
        commands.include(["b"]),
        commands.remove(["b", "c"]),
        commands.add(["b", "d"], 2),
        commands.load({"d": Entry()}, "picked.jsonl"),
    )
    log.undo("mine", 14, TAB)
    log.redo("mine", 15, TAB)
    rows = log.history("mine")
    assert [row.sentence for row in rows[::-1]] == [
        "added 3 examples",
        "set the weight of a to 2",
        "set the weights of 2 examples",
        "took back: set the weights of 2 examples",
        "set the weight of 2 examples to 0.5",
        "wrote a note on a",
        "removed the note of a",
        "locked a",
        "unlocked a",
        "excluded 2 examples",
        "included b",
        "removed 2 examples",
        "added 2 examples with weight 2",
        "loaded d from picked.jsonl",
        "took back: loaded d from picked.jsonl",
        "did again: loaded d from picked.jsonl",
    ]
    assert [row.seq for row in rows] == list(range(16, 0, -1))
    assert [row.seq for row in rows if row.undone] == [3]
    assert [row.seq for row in rows if row.actor == "tab-2"] == [4]
    assert all(start <= row.time <= datetime.now(UTC) for row in rows)
    assert log.history("mine", limit=4, before=8) == rows[9:13]


def test_saved_versions(log: ForgetLog) -> None:
    done(log, commands.add(["a", "b"]), commands.note({"b": "old"}), commands.add(["d"]))
    saved = log.save_version("mine", "first pick", 3, TAB)
    assert (saved.version, saved.undo) == (4, "added d"), "saving is no step of undo"
    done(
        log,
        commands.remove(["a"]),
        commands.add(["c"]),
        commands.set_weight({"b": 3}),
        commands.note({"b": "new"}),
        commands.lock(["b"]),
        commands.exclude(["d"]),
    )
    log.save_version("mine", "second", 10, "tab-2")
    assert [(one.name, one.seq, one.actor) for one in log.versions("mine")] == [
        ("first pick", 4, TAB),
        ("second", 11, "tab-2"),
    ]
    assert log.versions("other") == []
    difference = log.compare("mine", "first pick", "second")
    assert difference == commands.Difference(
        added=("c",),
        removed=("a",),
        weights={"b": (1.0, 3.0)},
        locks={"b": (False, True)},
        exclusions={"d": (False, True)},
        notes={"b": ("old", "new")},
    )
    assert log.compare("mine", 4, 11) == difference
    assert log.compare("mine", "second", "first pick").weights == {"b": (3.0, 1.0)}
    assert log.compare("mine", 0, 1).added == ("a", "b")
    second = log.read("mine").entries
    restored = log.restore("mine", "first pick", 11, TAB)
    assert restored.entries == log.entries_at("mine", "first pick") == log.entries_at("mine", 3)
    assert restored.undo == "loaded 3 examples from version 'first pick'"
    assert log.undo("mine", 12, TAB).entries == second


def test_saving_clears_no_redo_and_refuses_a_second_name(log: ForgetLog) -> None:
    done(log, commands.add(["a"]), commands.add(["b"]))
    log.undo("mine", 2, TAB)
    log.save_version("mine", "half", 3, TAB)
    assert list(log.redo("mine", 4, TAB).entries) == ["a", "b"]
    with pytest.raises(UnlearningError, match=r"'mine' has a version 'half' already. Choose another name"):
        log.save_version("mine", "half", 5, TAB)
    assert log.save_version("other", "half", 0, TAB).entries == {}
    assert log.version("mine") == 5


@pytest.mark.parametrize("version", ["absent", 3, -1])
def test_a_version_that_is_not_there(log: ForgetLog, version: str | int) -> None:
    done(log, commands.add(["a"]))
    said = rf"no version {version!r}. None is saved; their numbers go from 0 to 1"
    with pytest.raises(UnlearningError, match=said):
        log.entries_at("mine", version)
    log.save_version("mine", "half", 1, TAB)
    with pytest.raises(UnlearningError, match="Saved are: half; their numbers go from 0 to 2"):
        log.restore("mine", version, 2, TAB)


def test_several_sets_and_a_copy(log: ForgetLog) -> None:
    assert log.names() == []
    done(log, commands.add(["a"]), commands.note({"a": "x"}))
    done(log, commands.add(["b"]), name="Another one")
    copy = log.save_as("mine", "mine-2", 2, TAB)
    assert copy.name == "mine-2"
    assert copy.entries == log.read("mine").entries
    assert copy.undo == "loaded a from the set 'mine'"
    assert log.names() == ["Another one", "mine", "mine-2"]
    assert (log.version("mine"), log.version("mine-2"), log.version("Another one")) == (2, 1, 1)
    done(log, commands.remove(["a"]), name="mine-2")
    assert list(log.read("mine").entries) == ["a"]
    with pytest.raises(UnlearningError, match="There is a forget set 'mine-2' already"):
        log.save_as("mine", "mine-2", 2, TAB)
    with pytest.raises(UnlearningError, match="The forget set 'none' is empty"):
        log.save_as("none", "new", 0, TAB)


def test_opening_a_long_log_applies_little_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget_history, "SNAPSHOT_WORK", 50)
    log = ForgetLog(tmp_path, IDS)
    version = done(log, commands.add(IDS)).version
    for number in range(200):
        version = log.change("mine", commands.set_weight({"a": number + 2.0}), version, TAB).version
    applied = []
    monkeypatch.setattr(forget_history, "applied", lambda command, entries: applied.append(command) or entries)
    log.read("mine")
    assert 1 <= len(applied) <= 26, "a command on one example is two units of work"
    with closing(raw(tmp_path)) as connection:
        connection.execute("DELETE FROM snapshots")
    monkeypatch.undo()
    assert ForgetLog(tmp_path, IDS).read("mine").entries["a"] == Entry(201.0), "snapshots can be computed again"


def test_a_loaded_set_needs_no_snapshot_and_nothing_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget_history, "SNAPSHOT_WORK", 3)
    log = ForgetLog(tmp_path, IDS)
    done(log, commands.add(["a"]), commands.load({"b": Entry(), "c": Entry(2.0), "d": Entry()}, "a file"))
    with closing(raw(tmp_path)) as connection:
        assert connection.execute("SELECT count(*) FROM snapshots").fetchone() == (0,)
    applied = []
    monkeypatch.setattr(forget_history, "applied", lambda command, entries: applied.append(command.name) or entries)
    log.read("mine")
    assert applied == ["load"]


def test_snapshots_never_outgrow_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole set is written down again only after as much work as it has examples."""
    monkeypatch.setattr(forget_history, "SNAPSHOT_WORK", 10)
    ids = [f"{number:016x}" for number in range(200)]
    log = ForgetLog(tmp_path, ids)
    version = done(log, commands.add(ids)).version
    counts = []
    for number in range(99):
        version = log.change("mine", commands.lock([ids[number]]), version, TAB).version
        with closing(raw(tmp_path)) as connection:
            counts += connection.execute("SELECT count(*) FROM snapshots").fetchone()
    assert counts == [1] * 99
    done(log, commands.lock([ids[99]]))
    with closing(raw(tmp_path)) as connection:
        assert connection.execute("SELECT seq FROM snapshots").fetchall() == [(1,), (101,)]


# Names and hostile text


@pytest.mark.parametrize("name", ["a", "My set 2", "v1.2-final_b", "Wörter", "x" * 80, "a..b"])
def test_names_that_can_be_used(log: ForgetLog, name: str) -> None:
    done(log, commands.add(["a"]), name=name)
    log.save_version(name, name, 1, TAB)
    assert log.names() == [name]
    assert list(log.entries_at(name, name)) == ["a"]


@pytest.mark.parametrize(
    "name",
    ["", " ", " a", "a ", ".", "..", "a/b", "..\\a", "a\n", "a\0", "x" * 81, "'; DROP TABLE log; --", "a\ud800", "<b>"],
)
def test_names_that_are_refused(log: ForgetLog, name: str) -> None:
    said = "cannot be the name of a forget set or of a version. Use letters, digits, spaces and - _ "
    for request in (
        lambda: log.read(name),
        lambda: log.version(name),
        lambda: log.history(name),
        lambda: log.versions(name),
        lambda: log.entries_at(name, 0),
        lambda: log.change(name, commands.add(["a"]), 0, TAB),
        lambda: log.undo(name, 0, TAB),
        lambda: log.save_version("mine", name, 0, TAB),
        lambda: log.save_as("mine", name, 0, TAB),
    ):
        with pytest.raises(UnlearningError, match=said) as caught:
            request()
        str(caught.value).encode()
    assert log.names() == []


HOSTILE = [
    "'; DROP TABLE log; --",
    '"',
    "\0",
    "a\nb\r\n\t",
    "<script>alert(1)</script>",
    "𝕏 ∇ \u202e",
    "{}",
    "%s{0}",
    "' OR 1=1",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_kept_as_it_is(tmp_path: Path, text: str) -> None:
    log = ForgetLog(tmp_path, ["a", text])
    found = done(log, commands.add([text, "a"]), commands.note({text: text, "a": text}), commands.lock([text]))
    assert found.entries == {text: Entry(1.0, locked=True, note=text), "a": Entry(note=text)}
    assert log.history("mine")[0].sentence == f"locked {text}"
    log.change("mine", commands.remove(["a"]), 3, text)
    assert log.history("mine")[0].actor == text
    assert ForgetLog(tmp_path, []).read("mine").version == 4


def test_text_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    """Half a surrogate pair fits in no UTF-8 file: it is refused before anything is done."""
    log = ForgetLog(tmp_path, ["a", "a\ud800", "x" * 100_000])
    before = done(log, commands.add(["a"]))
    half = "has half a surrogate pair at character 2, which is no valid Unicode"
    with pytest.raises(UnlearningError, match=f"The note of example a {half}"):
        commands.note({"a": "a\ud800"})
    with pytest.raises(UnlearningError, match=f"The note of example a {half}"):
        commands.load({"a": Entry(note="a\ud800")}, "a file")
    for make in (commands.add, commands.remove, commands.exclude, commands.lock):
        with pytest.raises(UnlearningError, match=f"The id of an example {half}"):
            make(["a", "a\ud800"])
    for make in (commands.set_weight, commands.note, partial(commands.load, origin="a file")):
        with pytest.raises(UnlearningError, match=f"The id of an example {half}"):
            make({"a\ud800": Entry()})
    with pytest.raises(UnlearningError, match=f"The name of the tab {half}"):
        log.change("mine", commands.remove(["a"]), 1, "t\ud800")
    with pytest.raises(
        UnlearningError, match="The id of an example has 100,000 characters, and at most 200 can be kept"
    ):
        done(log, commands.add(["x" * 100_000]))
    with pytest.raises(
        UnlearningError, match="note of example a has 100,000 characters, and at most 10,000 can be kept"
    ):
        commands.note({"a": "x" * 100_000})
    longest = "ä" * 10_000
    assert log.read("mine") == before
    assert done(log, commands.note({"a": longest})).entries["a"].note == longest


def test_numbers_from_tables(log: ForgetLog) -> None:
    """As they come from NumPy and pandas."""
    found = done(log, commands.add(np.array(["a", "b"])), commands.set_weight({"a": np.float32(0.5)}))
    assert found.entries == {"a": Entry(0.5), "b": Entry()}
    assert done(log, commands.note({"a": "x"}), commands.note({"a": None})).entries["a"].note == "", "an emptied cell"


# The log itself


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE log SET actor = 'x'", "never changed"),
        ("UPDATE log SET sentence = 'x' WHERE seq = 2", "never changed"),
        ("DELETE FROM log", "nothing is deleted"),
        ("DELETE FROM log WHERE seq = 2", "nothing is deleted"),
        ("INSERT OR REPLACE INTO log VALUES ('mine', 2, 1, 2, 't', 'x', 'add', 'x', '{}')", "must be the next"),
        ("INSERT INTO log VALUES ('mine', 4, 2, 4, 't', 'x', 'add', 'x', '{}')", "must be the next"),
        ("INSERT INTO log VALUES ('new', 2, 1, 2, 't', 'x', 'add', 'x', '{}')", "must be the next"),
    ],
)
def test_the_database_itself_refuses_to_change_the_log(tmp_path: Path, statement: str, said: str) -> None:
    log = ForgetLog(tmp_path, IDS)
    before = done(log, commands.add(["a", "b"]), commands.remove(["a"]))
    with closing(raw(tmp_path)) as connection, pytest.raises(sqlite3.IntegrityError, match=said):
        connection.execute(statement)
    assert log.read("mine") == before
    assert len(log.history("mine")) == 2


def test_rows_are_plain_json(tmp_path: Path, log: ForgetLog) -> None:
    done(log, commands.add(["a", "b"]), commands.lock(["b"]), commands.note({"a": "ü"}))
    log.undo("mine", 3, TAB)
    log.save_version("mine", "v", 4, TAB)
    with closing(raw(tmp_path)) as connection:
        rows = connection.execute("SELECT seq, base, head, command, arguments FROM log ORDER BY seq").fetchall()
    assert [(*row[:4], json.loads(row[4])) for row in rows] == [
        (1, 0, 1, "add", {"ids": ["a", "b"], "values": [1.0, 1.0]}),
        (2, 1, 2, "lock", {"ids": ["b"]}),
        (3, 2, 3, "note", {"ids": ["a"], "values": ["ü"]}),
        (4, 3, 2, "undo", {"command": 3}),
        (5, 2, 2, "save_version", {"name": "v"}),
    ]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("add", "not JSON"),
        ("add", "[]"),
        ("add", "{}"),
        ("add", '{"ids": ["a"], "values": []}'),
        ("conjure", '{"ids": ["a"]}'),
        ("load", '{"ids": ["a"], "values": [[1, 2, 3, 4, 5, 6]]}'),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(tmp_path: Path, log: ForgetLog, command: str, arguments: str) -> None:
    done(log, commands.add(["a"]))
    with closing(raw(tmp_path)) as connection:
        connection.execute("INSERT INTO log VALUES ('mine', 2, 1, 2, '', '', ?, '', ?)", (command, arguments))
    for request in (lambda: log.read("mine"), lambda: log.change("mine", commands.remove(["a"]), 2, TAB)):
        with pytest.raises(BundleError, match=r"Command 2 of the forget set 'mine' cannot be read .*Restore it"):
            request()


# Files


PAIRS = [
    PreferencePair(
        (Message("user", f"Question {number}?"),), f"Good {number}.", f"Bad {number}.", f"rows.jsonl:{number}"
    )
    for number in range(4)
]
PAIRS.append(PreferencePair((Message("system", "Be brief."), Message("user", "Hm?")), "Yes.", "No.", "rows.jsonl:4"))
CANDIDATES = [negative_example(pair) for pair in PAIRS]
REAL = [one.id for one in CANDIDATES]
CURATED = {
    REAL[3]: Entry(3.0, note="twice\nas 'bad' 𝕏"),
    REAL[0]: Entry(1.0, locked=True),
    REAL[4]: Entry(0.0, locked=True, excluded=True, note="never"),
    REAL[1]: Entry(0.0),
}
READ_BACK = {
    REAL[3]: Entry(2.25, note="twice\nas 'bad' 𝕏"),
    REAL[0]: Entry(0.75, locked=True),
    REAL[4]: Entry(1.0, locked=True, excluded=True, note="never"),
    REAL[1]: Entry(0.0),
}  # mean 1 over the three that are not excluded: times 3/4


@pytest.mark.parametrize("name", ["ids.jsonl", "columns.parquet", "unpaired.jsonl"])
def test_round_trip_through_files(name: str, tmp_path: Path) -> None:
    log = ForgetLog(tmp_path / "results", REAL)
    before = done(log, commands.load(CURATED, "a test"))
    content = {
        "ids.jsonl": forget_files.as_jsonl,
        "columns.parquet": forget_files.as_parquet,
        "unpaired.jsonl": lambda entries: forget_files.as_unpaired(entries, CANDIDATES),
    }[name](before.entries)
    (tmp_path / name).write_bytes(content)
    entries = forget_files.read_entries(tmp_path / name, CANDIDATES)
    assert list(entries.items()) == list(READ_BACK.items())
    assert read_forget_set(tmp_path / name, CANDIDATES) == log.forget_set("mine")
    after = log.change("mine", commands.load(entries, name), 1, TAB)
    assert after.undo == f"loaded 4 examples from {name}"
    assert log.forget_set("mine") == forget_files.chosen_set(CURATED)
    assert log.undo("mine", 2, TAB).entries == CURATED


def test_the_three_forms(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in forget_files.as_jsonl(CURATED).splitlines()]
    assert rows == [
        {"id": REAL[3], "weight": 2.25, "note": "twice\nas 'bad' 𝕏"},
        {"id": REAL[0], "weight": 0.75, "locked": True},
        {"id": REAL[4], "weight": 0.0, "locked": True, "excluded": True, "note": "never"},
        {"id": REAL[1], "weight": 0.0},
    ]
    (tmp_path / "set.parquet").write_bytes(forget_files.as_parquet(CURATED))
    empty = {"locked": False, "excluded": False, "note": ""}
    assert pq.read_table(tmp_path / "set.parquet").to_pylist() == [{**empty, **row} for row in rows]
    unpaired = [json.loads(line) for line in forget_files.as_unpaired(CURATED, CANDIDATES).splitlines()]
    assert unpaired[2] == {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hm?"}],
        "completion": [{"role": "assistant", "content": "No."}],
        "label": False,
        **rows[2],
    }
    without = [{key: value for key, value in row.items() if key != "id"} for row in unpaired]
    (tmp_path / "trl.jsonl").write_text("".join(json.dumps(row) + "\n" for row in without))
    assert forget_files.read_entries(tmp_path / "trl.jsonl", CANDIDATES) == READ_BACK, "known by content as well"


def test_a_forget_set_made_elsewhere(tmp_path: Path) -> None:
    log = ForgetLog(tmp_path, REAL)
    weighted = forget_set({REAL[0]: 1.0, REAL[1]: 3.0, REAL[2]: 9.0}, [REAL[1]], [REAL[2]])
    found = done(log, commands.load(forget_files.entries_of(weighted), "the weights of run 'first'"))
    assert found.entries == {REAL[0]: Entry(0.5), REAL[1]: Entry(1.5, locked=True), REAL[2]: Entry(excluded=True)}
    assert log.forget_set("mine") == weighted


def test_sets_that_cannot_be_unlearned(log: ForgetLog) -> None:
    with pytest.raises(UnlearningError, match="forget set is empty"):
        log.forget_set("mine")
    done(log, commands.add(["a"]), commands.exclude(["a"]))
    with pytest.raises(UnlearningError, match="nothing to unlearn"):
        log.forget_set("mine")


def test_files_that_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text(json.dumps({"id": REAL[0]}) + "\n" + json.dumps({"id": "feed"}) + "\n")
    with pytest.raises(UnlearningError, match=r"1 of the 2 examples .* no candidates of this bundle: feed"):
        forget_files.read_entries(file, CANDIDATES)
    file.write_text(json.dumps({"id": REAL[0]}) + "\n" + json.dumps({"id": REAL[1], "note": 3}) + "\n")
    with pytest.raises(DataError, match=r"set.jsonl, row 2: column `note` holds a number .*Correct or remove the note"):
        forget_files.read_entries(file, CANDIDATES)
    with pytest.raises(UnlearningError, match="1 of 4 examples are no candidates"):
        forget_files.as_unpaired(CURATED, CANDIDATES[:4])
