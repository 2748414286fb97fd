"""Progress: whole JSON lines for whoever watches, not too many, and an estimate from fresh work alone."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from u2a_core.errors import StorageError
from u2a_core.store import progress as module
from u2a_core.store.progress import Progress


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that moves only when told."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lines_worked_by_hand(tmp_path: Path, wait: Callable[[float], None]) -> None:
    path = tmp_path / "progress.jsonl"
    with Progress("influence", 10, path, show=False) as progress:
        wait(2)
        progress.step(4, loss=0.5)
        wait(6)
        progress.step(4)
        wait(1)
        progress.step(2, loss=0.25)
    assert lines(path) == [
        {"phase": "influence", "done": 4, "total": 10, "seconds": 2, "seconds_left": 3, "loss": 0.5},
        {"phase": "influence", "done": 8, "total": 10, "seconds": 8, "seconds_left": 2},
        {"phase": "influence", "done": 10, "total": 10, "seconds": 9, "seconds_left": 0, "loss": 0.25},
    ]


def test_at_most_two_lines_a_second_and_the_last(tmp_path: Path, wait: Callable[[float], None]) -> None:
    path = tmp_path / "progress.jsonl"
    with Progress("p", 1000, path, show=False) as progress:
        for _ in range(1000):
            wait(0.01)
            progress.step()
    found = lines(path)
    assert 18 <= len(found) <= 22
    assert found[-1]["done"] == 1000
    assert [line["done"] for line in found] == sorted({line["done"] for line in found})


def test_a_resumed_phase_estimates_from_its_own_work(tmp_path: Path, wait: Callable[[float], None]) -> None:
    path = tmp_path / "progress.jsonl"
    with Progress("p", 100, path, show=False, done=90) as progress:
        wait(5)
        progress.step(5)
    assert lines(path) == [{"phase": "p", "done": 95, "total": 100, "seconds": 5, "seconds_left": 5}]


def test_phases_follow_each_other_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    for label in ("one", "two"):
        with Progress(label, 1, path, show=False) as progress:
            progress.step()
    assert [line["phase"] for line in lines(path)] == ["one", "two"]


def test_numbers_that_are_none_stay_readable(tmp_path: Path) -> None:
    """JSON has no NaN: a browser would refuse the line."""
    path = tmp_path / "progress.jsonl"
    with Progress("p", 1, path, show=False) as progress:
        progress.step(loss=math.nan, gap=math.inf)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    (line,) = path.read_text().splitlines()
    assert json.loads(line, parse_constant=refuse)["loss"] is None


def test_without_a_file_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("p", 3, show=False) as progress:
        progress.step(3)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_the_bar_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("token rewards", 3) as progress:
        progress.step(3)
    out, err = capsys.readouterr()
    assert out == ""
    assert "token rewards" in err
    assert "3/3" in err


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    path = tmp_path / "file" / "progress.jsonl"
    with pytest.raises(StorageError, match=rf"Could not write {path}"), Progress("p", 1, path, show=False) as progress:
        progress.step()


def test_a_watcher_gets_the_lines_of_every_phase_too(
    tmp_path: Path, wait: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, watcher = tmp_path / "progress.jsonl", tmp_path / "watcher.jsonl"
    monkeypatch.setenv("U2A_PROGRESS", str(watcher))
    for label, own in (("one", path), ("two", None)):
        with Progress(label, 2, own, show=False) as progress:
            wait(1)
            progress.step(2, loss=0.5)
    both = [
        {"phase": name, "done": 2, "total": 2, "seconds": 1, "seconds_left": 0, "loss": 0.5} for name in ("one", "two")
    ]
    assert lines(watcher) == both
    assert lines(path) == both[:1]


def test_a_watcher_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gone" / "watcher.jsonl"
    monkeypatch.setenv("U2A_PROGRESS", str(path))
    with pytest.raises(StorageError, match=rf"Could not write {path}"), Progress("p", 1, show=False) as progress:
        progress.step()
